// Every number that a step has, by name.

import { debounced, el } from "./dom.js";

const SHOWN = 24;

export function metrics(page) {
  const charts = new Map();
  const grid = el("div", { class: "grid" });
  const status = el("p", { class: "soft", role: "status" });
  const search = el("input", { type: "search", placeholder: "part of a name, such as verify or keep_rate", "aria-label": "part of a name", oninput: debounced(() => update()) });
  const more = el("button", { type: "button", onclick: () => update(limit + SHOWN) }, "more");
  let limit = SHOWN;

  function update(wanted = SHOWN) {
    limit = wanted;
    const words = search.value.toLowerCase().split(/\s+/);
    const names = Object.keys(page.frame.steps.series).filter((name) => name !== "time" && words.every((word) => name.toLowerCase().includes(word)));
    const shown = names.slice(0, limit);
    for (const name of shown) if (!charts.has(name)) charts.set(name, page.chart({ title: name, zero: false, height: 150 }));
    const nodes = shown.map((name) => charts.get(name).node);
    if (nodes.length !== grid.children.length || nodes.some((node, i) => grid.children[i] !== node)) grid.replaceChildren(...nodes);
    shown.forEach((name) => charts.get(name).update([page.line(name, name, page.color(0))]));
    status.textContent = `${shown.length} of ${names.length}`;
    more.hidden = shown.length === names.length;
  }

  return { node: el("div", {}, el("div", { class: "card filters" }, el("label", { class: "search" }, el("span", {}, "metric"), search), status), grid, more), update: () => update(limit) };
}
