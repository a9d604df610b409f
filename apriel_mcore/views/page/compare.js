// How do runs differ: the same numbers of each in one picture, their ends in a table, their recipes' leaves.

import { el } from "./dom.js";
import { duration, fixed, short } from "./format.js";
import { points } from "./frames.js";

const FIELDS = [["reward", "Task reward", "reward_mean"], ["solve_rate", "Solve rate", null], ["tokens_mean", "Answer length, tokens", null], ["trained_share", "Share of trained groups", null]];
const WHOLE = [["logprob_abs_diff", "Log-prob gap"], ["lag_mean", "Mean lag"], ["tokens_per_s", "Trained tokens a second"], ["entropy", "Entropy"], ["length_penalty_mean", "Length penalty"], ["grad_norm", "Gradient norm"]];

export function compare(page) {
  let domain = "";
  const choice = el("select", { onchange: () => ((domain = choice.value), update()) });
  const accuracy = page.chart({ title: "Held-out accuracy", top: 1 });
  const fields = FIELDS.map(([key, title, whole]) => ({ key, whole, chart: page.chart({ title }) }));
  const wholes = WHOLE.map(([key, title]) => ({ key, chart: page.chart({ title, zero: key !== "length_penalty_mean" }) }));
  const table = el("div", { class: "card scroll" });
  const recipes = el("div", { class: "card scroll" });

  function each(key) {
    return page.cards.map((card, i) => ({ name: card.name, color: page.color(i), ...points(page.frameOf(i).steps, key), low: undefined, high: undefined }));
  }

  function update() {
    const names = [...new Set(page.cards.flatMap((card) => card.domains))];
    if (choice.options.length !== names.length + 1) choice.replaceChildren(el("option", { value: "" }, "all domains"), ...names.map((name) => el("option", { value: name }, name)));
    const field = domain ? `accuracy.${domain}` : "accuracy_mean";
    accuracy.update(page.cards.map((card, i) => ({ name: card.name, color: page.color(i), x: card.evals.map((one) => one.step), y: card.evals.map((one) => one[field] ?? null) })));
    for (const { key, whole, chart } of fields) {
      const name = domain ? `${key}.${domain}` : whole;
      chart.node.hidden = !name;
      if (name) chart.update(each(name));
    }
    for (const { key, chart } of wholes) chart.update(each(key));
    table.replaceChildren(el("h2", {}, "At the end"), ends(page));
    recipes.replaceChildren(el("h2", {}, "Recipes differ in"), differences(page));
  }

  const bar = el("div", { class: "card filters" }, el("label", {}, el("span", {}, "domain"), choice));
  const charts = el("div", { class: "grid" }, accuracy.node, ...fields.map(({ chart }) => chart.node), ...wholes.map(({ chart }) => chart.node));
  return { node: el("div", {}, bar, table, charts, recipes), update };
}

function ends({ cards, color }) {
  const heads = ["run", "state", "steps", "held-out", "reward", "log-prob gap", "tokens/s", "time"];
  const rows = cards.map((card, i) => {
    const { latest, evals } = card;
    const held = evals.length ? `${fixed(evals[0].accuracy_mean)} \u2192 ${fixed(evals.at(-1).accuracy_mean)}` : "-";
    const cells = [card.state, short(card.step), held, fixed(latest.reward_mean), fixed(latest.logprob_abs_diff, 4), short(latest.tokens_per_s), duration(card.heard - card.started)];
    return el("tr", {}, el("th", { scope: "row" }, el("i", { style: { background: color(i) } }), card.name), ...cells.map((text) => el("td", {}, text)));
  });
  return el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))), el("tbody", {}, ...rows));
}

function differences({ cards }) {
  const keys = [...new Set(cards.flatMap((card) => Object.keys(card.recipe)))].sort();
  const text = (card, key) => (key in card.recipe ? JSON.stringify(card.recipe[key]) : "-");
  const changed = keys.filter((key) => new Set(cards.map((card) => text(card, key))).size > 1);
  if (!changed.length) return el("p", { class: "soft" }, "nothing");
  return el("table", {},
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "key"), ...cards.map((card) => el("th", { scope: "col" }, card.name)))),
    el("tbody", {}, ...changed.map((key) => el("tr", {}, el("th", { scope: "row" }, key), ...cards.map((card) => el("td", {}, text(card, key)))))));
}
