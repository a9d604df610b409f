// One group: the question, and the siblings side by side with their rewards and advantages.

import { el } from "./dom.js";
import { duration, fixed, short, signed } from "./format.js";

export function groupView(group, { chosen, text }) {
  const most = Math.max(...group.rollouts.map((one) => Math.abs(one.advantage ?? 0)), 1e-6);
  const longest = Math.max(...group.rollouts.map((one) => one.tokens), 1);
  const solved = group.rollouts.filter((one) => one.success).length;
  const [first] = group.rollouts;
  return el("div", { class: "group" },
    el("p", { class: "soft" }, `step ${first.step}, ${first.domain}, ${solved} of ${group.rollouts.length} right, source ${group.problem.source}, problem ${group.problem.id}`),
    el("section", { class: "question" }, ...group.problem.messages.map((turn) => el("div", {}, el("b", {}, turn.role), el("pre", {}, ...marked(turn.content, text))))),
    el("details", {}, el("summary", {}, "what the judge compares with"), el("pre", {}, JSON.stringify(group.problem.reference, null, 1))),
    el("section", { class: "siblings", tabindex: 0, "aria-label": "answers of the group" },
      ...group.rollouts.map((one) => sibling(one, { most, longest, text, chosen: one.slot === chosen }))));
}

function sibling(one, { most, longest, text, chosen }) {
  const length = one.total - one.task;
  return el("article", { class: chosen ? "card chosen" : "card" },
    el("header", {}, el("span", { class: one.success ? "good" : "bad" }, one.status.replace("_", " ")), one.truncated ? el("span", { class: "bad" }, "truncated") : null),
    bar("advantage", one.advantage === null ? "masked" : signed(one.advantage), (one.advantage ?? 0) / most),
    bar("tokens", short(one.tokens), one.tokens / longest),
    el("dl", {},
      ...[["reward", fixed(one.task)], ["length", signed(length)], ["total", fixed(one.total)], ["version", `${one.version} (lag ${one.lag})`], ["time", duration(one.seconds)], ["server", one.server]]
        .map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value)))),
    one.verdict.detail ? el("p", { class: "soft" }, one.verdict.detail) : null,
    el("pre", { class: "answer" }, ...marked(one.text, text)));
}

function bar(name, value, share) {
  const side = share < 0 ? "left" : "right";
  const fill = el("i", { class: side, style: { width: `${Math.abs(share) * (name === "advantage" ? 50 : 100)}%` } });
  return el("div", { class: `bar ${name}` }, el("span", {}, name), el("div", { class: "track" }, fill), el("b", {}, value));
}

// The text with what was searched for marked; without markup strings.
function marked(text, wanted) {
  if (!wanted) return [text];
  const parts = [];
  const low = text.toLowerCase();
  const word = wanted.toLowerCase();
  let from = 0;
  for (let at = low.indexOf(word); at >= 0 && parts.length < 400; at = low.indexOf(word, from)) {
    parts.push(text.slice(from, at), el("mark", {}, text.slice(at, at + word.length)));
    from = at + word.length;
  }
  return [...parts, text.slice(from)];
}
