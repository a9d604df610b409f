// The domains side by side, each a column that reads from top to bottom.

import { el } from "./dom.js";
import { fixed, short } from "./format.js";

const LEVELS = ["none solved", "up to 1/4", "up to 1/2", "up to 3/4", "below all", "all solved"];

export function domains(page) {
  const node = el("div", { class: "lanes" });
  let lanes = [];
  return {
    node,
    update() {
      if (lanes.length !== page.card.domains.length) {
        lanes = page.card.domains.map((name, i) => lane(page, name, page.color(i)));
        node.replaceChildren(...lanes.map((one) => one.node));
      }
      lanes.forEach((one) => one.update());
    },
  };
}

function lane(page, name, color) {
  const facts = el("dl", {});
  const reward = page.chart({ title: "Reward", unit: "dashed: solve rate", height: 130, top: 1 });
  const share = page.chart({ title: "Share of groups", unit: "dashed: target", height: 110 });
  const difficulty = page.heat({ title: "Solve rates", unit: "of groups; dark: all", height: 130, shares: true, names: LEVELS, about: "Share of the trained groups at each solve rate; a group that everyone or no one solves teaches only by length" });
  const lengths = page.heat({ title: "Answer lengths", unit: "tokens, log scale", height: 150 });
  const kept = page.chart({ title: "Groups with a signal", unit: "share kept", height: 110, top: 1 });
  const head = el("header", {}, el("i", { style: { background: color } }), el("h2", {}, name));
  const node = el("section", { class: "lane", "aria-label": name }, head, facts, reward.node, share.node, difficulty.node, lengths.node, kept.node);
  const line = (key, label, extra = {}) => ({ ...page.line(key, label, color), ...extra });
  return {
    node,
    update() {
      facts.replaceChildren(...facets(page.card, name));
      reward.update([line(`reward.${name}`, "reward"), line(`solve_rate.${name}`, "solve rate", { dashed: true })]);
      share.update([line(`trained_share.${name}`, "trained"), line(`target_share.${name}`, "target", { dashed: true })]);
      kept.update([line(`feed.keep_rate.${name}`, "kept")]);
      const { shapes } = page;
      if (!shapes) return;
      const shared = { first: shapes.first_B, width: shapes.width, color };
      difficulty.update({ ...shared, columns: shapes.difficulty[name] ?? [], edges: LEVELS.map((_, i) => i).concat(LEVELS.length) });
      lengths.update({ ...shared, columns: shapes.lengths[name] ?? [], edges: shapes.length_edges });
    },
  };
}

function facets({ latest, evals, domains, data }, name) {
  const last = evals.at(-1) ?? {};
  const first = evals[0] ?? {};
  const pairs = [
    ["held-out", evals.length ? `${fixed(first[`accuracy.${name}`])} \u2192 ${fixed(last[`accuracy.${name}`])}` : "-"],
    ["share / target", `${fixed(latest[`trained_share.${name}`], 3)} / ${fixed(latest[`target_share.${name}`], 3)}`],
    ["tokens", `${whole(latest[`tokens_mean.${name}`])} (p90 ${whole(latest[`tokens_p90.${name}`])})`],
    ["ready / asked", `${short(latest[`feed.ready.${name}`])} / ${short(latest[`feed.pending.${name}`])}`],
    ["problems", short(data.train?.[name])],
  ];
  return pairs.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value)));
}

function whole(value) {
  return value === undefined ? "-" : short(Math.round(value));
}
