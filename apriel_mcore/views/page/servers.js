// What does each rollout server do, and is one slower than the others?

import { el } from "./dom.js";
import { duration, fixed, short } from "./format.js";

const SLOW = 1.5;
const SILENT_S = 30;

export function servers(page) {
  const ranks = el("div", { class: "card scroll" });
  const table = el("div", { class: "card scroll" });
  const charts = [
    ["Servers", "now serving or joining", ["pool.serving", "pool.joining"]],
    ["Requests", "running and waiting", ["pool.running", "pool.waiting"]],
    ["Lost", "since this attempt began", ["pool.failed_requests", "pool.aborted_requests", "pool.retired", "pool.restarts"]],
    ["Waiting for a judge", "answers", ["verify.queue"]],
  ].map(([title, unit, keys]) => ({ chart: page.chart({ title, unit }), keys }));
  const slow = page.chart({ title: "Time of a verdict", unit: "seconds, 99th percentile" });
  const lost = page.chart({ title: "Verdicts lost", unit: "judge crashed or late; never scored" });
  const judges = (field) => page.card.domains.map((name, i) => page.line(`feed.verify.${name}.${field}`, name, page.color(i)));
  return {
    node: el("div", {}, table, ranks, el("div", { class: "grid" }, ...charts.map(({ chart }) => chart.node), slow.node, lost.node)),
    update() {
      table.replaceChildren(el("h2", {}, "Fleet"), fleet(page.card));
      ranks.hidden = !page.card.pulses.length;
      ranks.replaceChildren(el("h2", {}, "Trainer ranks"), trainers(page.card));
      for (const { chart, keys } of charts) {
        const lines = keys.map((key, i) => page.line(`feed.${key}`, key.split(".")[1].replaceAll("_", " "), page.color(i)));
        chart.update(lines);
        chart.node.hidden = !lines.some((line) => line.y.length);
      }
      slow.update(judges("p99_s"));
      lost.update(judges("lost"));
    },
  };
}

// What a server did for trained rollouts, and what the pool says of it now; either may be missing.
function known({ servers: rows, latest }) {
  const found = new Map(rows.map((row) => [row.server, row]));
  for (const key of Object.keys(latest)) {
    const [, server] = /^feed\.pool\.(.+)\.running$/.exec(key) ?? [];
    if (server && !found.has(server)) found.set(server, { server });
  }
  const now = (server, field) => latest[`feed.pool.${server}.${field}`];
  return [...found.values()].map((row) => ({ ...row, now: (field) => now(row.server, field) }));
}

function fleet(card) {
  const rows = known(card);
  const { step } = card;
  if (!rows.length) return el("p", { class: "soft" }, "no server has answered a trained rollout yet");
  const heads = ["server", "running", "version", "failures", "restarts", "rollouts", "tokens", "mean length", "median time", "mean lag", "pace", "last trained"];
  return el("table", {},
    el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {},
      el("th", { scope: "row" }, row.server), ...["running", "version", "failures", "restarts"].map((field) => el("td", {}, short(row.now(field)))),
      ...[short(row.rollouts), short(row.tokens), short(row.tokens_mean), duration(row.seconds_median), fixed(row.lag_mean, 1)].map((text) => el("td", {}, text)),
      el("td", {}, pace(row)), el("td", {}, !row.rollouts ? "never" : row.last_step === step ? "this step" : `${short(step - row.last_step)} steps ago`)))));
}

function trainers({ pulses, now }) {
  const rows = pulses.map((pulse) => {
    const quiet = now - pulse.time;
    const sign = el("span", { class: quiet > SILENT_S ? "bad" : "good" }, `${duration(quiet)} ago`);
    const doing = pulse.doing ? `${pulse.doing} for ${duration(now - pulse.since)}` : "between two phases";
    return el("tr", {}, el("th", { scope: "row" }, `rank ${pulse.rank}`), ...[pulse.host, String(pulse.pid), doing].map((text) => el("td", {}, text)), el("td", {}, sign));
  });
  const heads = ["rank", "host", "process", "doing", "last sign of life"];
  return el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))), el("tbody", {}, ...rows));
}

function pace({ slowness, recent }) {
  if (recent === undefined) return "-";
  if (!recent) return el("span", { class: "bad" }, "silent");
  if (slowness > SLOW) return el("span", { class: "bad" }, `${fixed(slowness, 1)}x slower`);
  return el("span", { class: "good" }, slowness ? `${fixed(slowness)}x` : "-");
}
