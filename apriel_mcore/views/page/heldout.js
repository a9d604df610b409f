// Held-out problems: the numbers before and after, and the same problems answered twice.

import { el } from "./dom.js";
import { fixed, short, signed } from "./format.js";
import { heldOut } from "./overview.js";

export function heldout(page) {
  const table = el("div", { class: "card scroll" });
  const accuracy = page.chart({ title: "Held-out accuracy", top: 1 });
  const tokens = page.chart({ title: "Held-out answer length", unit: "tokens" });
  const samples = el("section", { class: "samples" });
  let shown = "";
  return {
    node: el("div", {}, table, el("div", { class: "grid two" }, accuracy.node, tokens.node), samples),
    update() {
      accuracy.update(heldOut(page));
      tokens.update(heldOut(page, "tokens_mean"));
      const { evals } = page.card;
      const key = `${page.run} ${evals.length} ${evals.at(-1)?.step}`;
      if (key === shown) return;
      shown = key;
      table.replaceChildren(...results(page));
      samples.replaceChildren(...pairs(evals));
    },
  };
}

function results({ card, color }) {
  const first = card.evals[0];
  const last = card.evals.at(-1);
  if (!first) return [el("h2", {}, "Held-out problems"), el("p", { class: "soft" }, "not evaluated yet")];
  const heads = ["domain", "before", "after", "change", "best constant", "tokens before", "after", "problems"];
  const rows = card.domains.filter((name) => `accuracy.${name}` in first).map((name) => {
    const i = card.domains.indexOf(name);
    const at = (event, field) => event[`${field}.${name}`];
    const cells = [fixed(at(first, "accuracy")), fixed(at(last, "accuracy")), signed(at(last, "accuracy") - at(first, "accuracy")), fixed(at(first, "constant")),
      short(at(first, "tokens_mean")), short(at(last, "tokens_mean")), short(at(last, "count"))];
    return el("tr", {}, el("th", { scope: "row" }, el("i", { style: { background: color(i) } }), name), ...cells.map((text) => el("td", {}, text)));
  });
  const mean = el("tr", { class: "sum" }, el("th", { scope: "row" }, "mean"), ...[fixed(first.accuracy_mean), fixed(last.accuracy_mean), signed(last.accuracy_mean - first.accuracy_mean)].map((text) => el("td", {}, text)));
  return [
    el("h2", {}, `Held-out problems, step ${first.step} and step ${last.step}`),
    el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))), el("tbody", {}, ...rows, mean)),
  ];
}

function pairs(evals) {
  const before = evals[0]?.samples ?? [];
  const after = new Map((evals.length > 1 ? evals.at(-1).samples ?? [] : []).map((one) => [one.problem, one]));
  const cards = before.filter((one) => after.has(one.problem)).map((one) => {
    const later = after.get(one.problem);
    return el("article", { class: "card" }, el("header", {}, one.domain), el("pre", {}, one.prompt), answer("before", one), answer("after", later));
  });
  return cards.length ? [el("h2", {}, "The same problems, before and after"), el("div", { class: "grid" }, ...cards)] : [];
}

function answer(when, sample) {
  const right = sample.score === 1;
  return [
    el("p", { class: "verdict" }, el("b", {}, when), el("span", { class: right ? "good" : "bad" }, right ? "right" : `score ${fixed(sample.score)}`), ` ${short(sample.tokens)} tokens`),
    el("pre", { class: "answer" }, sample.answer),
  ];
}
