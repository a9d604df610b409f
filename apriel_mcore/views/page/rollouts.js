// What did the model say? Rows by filter, order or search; a row opens its group.

import { debounced, el } from "./dom.js";
import { count, fixed, short, signed } from "./format.js";
import { groupView } from "./group.js";

const PAGE_ROWS = 50;
const RANGES = [["step", "step"], ["reward", "reward"], ["tokens", "tokens"], ["version", "version"]];
const ORDERS = [["step", "newest"], ["task", "reward"], ["total", "shaped reward"], ["advantage", "advantage"], ["tokens", "tokens"], ["seconds", "time"], ["lag", "lag"]];

export function rollouts(page) {
  return new Browser(page);
}

class Browser {
  constructor(page) {
    this.page = page;
    this.query = { order: "step", descending: true, offset: 0 };
    this.rows = [];
    this.form = el("form", { class: "card filters", role: "search", onsubmit: (event) => event.preventDefault() });
    this.status = el("p", { class: "soft", role: "status" });
    this.body = el("tbody", {});
    this.pager = el("nav", { class: "pager", "aria-label": "pages" });
    this.dialog = el("dialog", { "aria-label": "group" });
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    const heads = ["step", "domain", "question", "answer ends", "verdict", "reward", "advantage", "tokens", "lag"];
    const table = el("table", { class: "rows" }, el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))), this.body);
    table.addEventListener("keydown", (event) => this.key(event));
    this.node = el("div", {}, this.form, this.status, el("div", { class: "card scroll" }, table), this.pager, this.dialog);
    this.changed = debounced(() => this.look());
    this.run = undefined;
  }

  // New rollouts do not move the rows under the reader's eyes: the page is read anew when it is asked for.
  update() {
    const words = JSON.stringify([this.page.run, this.page.card.words]);
    if (words !== this.words) {
      this.words = words;
      this.fillForm();
    }
    if (this.run !== this.page.run) {
      this.run = this.page.run;
      this.look();
    } else if (this.page.card.num_rollouts && !this.rows.length && !this.asked) this.look();
    this.fresh();
  }

  fillForm() {
    const { words } = this.page.card;
    const choice = (name, label, options) => el("label", {}, el("span", {}, label), el("select", { name, onchange: () => this.read() }, ...options.map(([value, text]) => el("option", { value, selected: String(this.query[name] ?? "") === value }, text))));
    const any = (list) => [["", "any"], ...list.map((one) => [one, one.replace("_", " ")])];
    const ends = ([name, label]) => el("div", { class: "ends", role: "group", "aria-label": label }, el("span", {}, label), ...["min", "max"].map((end) => el("input", { name: `${name}_${end}`, type: "number", step: "any", placeholder: end, "aria-label": `${label} ${end}`, value: this.query[`${name}_${end}`] ?? "", oninput: () => this.read() })));
    this.form.replaceChildren(
      el("label", { class: "search" }, el("span", {}, "search questions and answers"), el("input", { name: "text", type: "search", value: this.query.text ?? "", placeholder: "press / to search", oninput: () => this.read() })),
      choice("domain", "domain", any(words.domain)), choice("status", "verdict", any(words.status)),
      choice("finish", "ending", [["", "any"], ["whole", "whole"], ["truncated", "truncated"]]), choice("server", "server", any(words.server)),
      ...RANGES.map(ends),
      choice("order", "order by", ORDERS), choice("descending", "direction", [["true", "highest first"], ["false", "lowest first"]]),
      el("button", { type: "button", onclick: () => this.reset() }, "clear"));
  }

  reset() {
    this.query = { order: "step", descending: true, offset: 0 };
    this.fillForm();
    this.look();
  }

  read() {
    this.query = { ...Object.fromEntries(new FormData(this.form)), offset: 0 };
    this.changed();
  }

  async look() {
    this.asked?.abort();
    this.asked = new AbortController();
    const { signal } = this.asked;
    this.rows = [];
    this.seen = this.page.card.num_rollouts;
    this.status.textContent = "reading";
    try {
      if (this.query.text) await this.search(signal);
      else this.show(await this.page.source.rollouts(this.page.run, this.query, signal), signal);
    } catch (error) {
      if (error.name !== "AbortError") this.status.textContent = error.message;
    }
  }

  show({ rows, total, of }, signal) {
    if (signal.aborted) return;
    this.rows = rows;
    this.draw();
    const { offset } = this.query;
    const carried = this.page.source.live ? "" : `; the report carries ${of.toLocaleString("en")} of ${this.page.card.num_rollouts.toLocaleString("en")}`;
    this.status.textContent = total ? `${(offset + 1).toLocaleString("en")} to ${(offset + rows.length).toLocaleString("en")} of ${count(total, "rollout")}${carried}` : `no rollout fits${carried}`;
    const turn = (label, to, possible) => el("button", { type: "button", disabled: !possible, onclick: () => this.turn(to) }, label);
    this.pager.replaceChildren(turn("first", 0, offset > 0), turn("previous", offset - PAGE_ROWS, offset > 0), turn("next", offset + PAGE_ROWS, offset + rows.length < total));
    this.fresh();
  }

  // Texts are read on the way: hits appear as they are found, until a page is full.
  async search(signal) {
    this.pager.replaceChildren();
    let next = this.query.offset;
    while (next >= 0 && this.rows.length < PAGE_ROWS) {
      const found = await this.page.source.rollouts(this.page.run, { ...this.query, offset: next }, signal);
      if (signal.aborted) return;
      next = found.next;
      this.rows.push(...found.rows);
      this.draw();
      this.status.textContent = `${count(this.rows.length, "hit")}; ${next < 0 ? "searched all" : `searched ${found.searched.toLocaleString("en")} of ${found.of.toLocaleString("en")} groups, newest first`}`;
    }
    if (next >= 0) this.pager.replaceChildren(el("button", { type: "button", onclick: () => this.turn(next) }, "search on"));
  }

  turn(offset) {
    this.query = { ...this.query, offset: Math.max(0, offset) };
    this.look().then(() => this.body.firstElementChild?.focus());
  }

  fresh() {
    const more = this.page.card.num_rollouts - (this.seen ?? 0);
    if (!this.page.source.live || more <= 0 || !this.asked || this.query.text) return;
    this.pager.querySelector(".fresh")?.remove();
    this.pager.append(el("button", { type: "button", class: "fresh", onclick: () => this.turn(0) }, `${count(more, "new rollout")}`));
  }

  draw() {
    this.body.replaceChildren(...this.rows.map((row, i) => this.row(row, i)));
  }

  row(row, i) {
    const cells = [short(row.step), row.domain];
    const open = () => this.open(i);
    return el("tr", { tabindex: 0, "data-i": i, onclick: open },
      ...cells.map((text) => el("td", {}, text)), el("td", { class: "head" }, row.head), el("td", { class: "end", title: row.end }, row.end),
      el("td", {}, el("span", { class: row.success ? "good" : "bad" }, row.status.replace("_", " "))),
      ...[fixed(row.task), row.advantage === null ? "masked" : signed(row.advantage), short(row.tokens) + (row.truncated ? " cut" : ""), short(row.lag)].map((text) => el("td", {}, text)));
  }

  key(event) {
    const row = event.target.closest("tr[data-i]");
    if (!row) return;
    const steps = { ArrowDown: "nextElementSibling", j: "nextElementSibling", ArrowUp: "previousElementSibling", k: "previousElementSibling" };
    if (event.key === "Enter" || event.key === " ") this.open(Number(row.dataset.i));
    else if (event.key in steps) row[steps[event.key]]?.focus();
    else return;
    event.preventDefault();
  }

  async open(i) {
    const row = this.rows[i];
    this.dialog.replaceChildren(el("p", { class: "soft" }, "reading"));
    if (!this.dialog.open) this.dialog.showModal();
    let view;
    try {
      view = groupView(await this.page.source.group(this.page.run, row.group), { chosen: row.slot, text: this.query.text });
    } catch (error) {
      view = el("p", { class: "bad" }, `this group cannot be read: ${error.message}`);
    }
    const move = (label, to) => el("button", { type: "button", disabled: !this.rows[to], onclick: () => this.open(to) }, label);
    const bar = el("header", { class: "top" }, el("h2", {}, `Group of step ${row.step}`), move("previous", i - 1), move("next", i + 1), el("button", { type: "button", autofocus: true, onclick: () => this.dialog.close() }, "close"));
    this.dialog.replaceChildren(bar, view);
    view.querySelector(".chosen")?.scrollIntoView({ block: "nearest", inline: "center" });
    this.dialog.onclose = () => this.body.children[i]?.focus();
    this.dialog.onkeydown = (event) => {
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1 }[event.key];
      if (to !== undefined && this.rows[to] && !event.target.closest(".siblings")) this.open(to);
    };
  }

  focusSearch() {
    this.form.elements.text.focus();
  }
}
