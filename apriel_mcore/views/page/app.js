// The page: which run, which view, which steps; asks again while a run goes on.

import { Chart } from "./chart.js";
import { compare } from "./compare.js";
import { el } from "./dom.js";
import { domains } from "./domains.js";
import { clock, duration } from "./format.js";
import { EMPTY, points } from "./frames.js";
import { Heat } from "./heat.js";
import { heldout } from "./heldout.js";
import { metrics } from "./metrics.js";
import { overview } from "./overview.js";
import { rollouts } from "./rollouts.js";
import { servers } from "./servers.js";
import { FixedSource, LiveSource } from "./source.js";
import { time, trainer } from "./trainer.js";

const VIEWS = { overview: ["Overview", overview], domains: ["Domains", domains], trainer: ["Trainer", trainer], time: ["Time", time], servers: ["Servers", servers], heldout: ["Held-out", heldout], rollouts: ["Rollouts", rollouts], metrics: ["Metrics", metrics], compare: ["Compare", compare] };
const POLL_MS = 2000;
const QUIET_S = 600;
const SILENT_S = 60;
const NUM_COLORS = 8;

class Page {
  constructor(source) {
    Object.assign(this, { source, run: 0, view: "overview", range: null, smoothing: 0, cards: [], frames: [], views: {}, shapes: null });
    this.header = el("header", { class: "bar" });
    this.tabs = el("nav", { class: "tabs", role: "tablist", "aria-label": "views" });
    this.tools = el("div", { class: "tools" });
    this.main = el("main", { id: "view", role: "tabpanel", tabindex: -1 });
    document.body.append(this.header, el("div", { class: "under" }, this.tabs, this.tools), this.main);
  }

  // --- what views ask for ---

  get card() {
    return this.cards[this.run];
  }

  get frame() {
    return this.frameOf(this.run);
  }

  frameOf(run) {
    return this.frames[run] ?? { steps: EMPTY, receipts: EMPTY };
  }

  color = (i) => `var(--c${i % NUM_COLORS})`;

  chart(spec) {
    return new Chart(spec, () => ({ smoothing: this.smoothing, onRange: (range) => this.setRange(range) }));
  }

  heat(spec) {
    return new Heat(spec);
  }

  line(key, name, color) {
    return { name, color, ...points(this.frame.steps, key) };
  }

  receipt(key, name, color) {
    return { name, color, ...points(this.frame.receipts ?? EMPTY, key) };
  }

  byDomain(field) {
    return this.card.domains.map((name, i) => this.line(`${field}.${name}`, name, this.color(i)));
  }

  // --- life ---

  async start() {
    this.cards = await this.source.cards();
    this.route();
    addEventListener("hashchange", () => this.route());
    addEventListener("keydown", (event) => this.key(event));
    await this.refresh();
    if (this.source.live) this.follow();
  }

  async follow() {
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      if (document.hidden) continue;
      try {
        this.cards = await this.source.cards();
        this.lost = false;
        await this.refresh();
      } catch (error) {
        this.lost = error.message;
        this.drawHeader();
      }
    }
  }

  async refresh() {
    const wanted = this.view === "compare" ? this.cards.map((_, i) => i) : [this.run];
    for (const run of wanted) this.frames[run] = (await this.source.frame(run, this.range)) ?? this.frames[run];
    const shapesOf = `${this.run} ${this.card.revision}`;
    if (this.view === "domains" && this.shapesOf !== shapesOf) {
      this.shapes = await this.source.shapes(this.run);
      this.shapesOf = shapesOf;
    }
    this.draw();
  }

  route() {
    const [run, view] = location.hash.slice(2).split("/");
    const number = Number(run);
    this.run = Number.isInteger(number) && number >= 0 && number < this.cards.length ? number : 0;
    this.view = this.names().includes(view) ? view : "overview";
    this.shapes = this.shapesOf?.startsWith(`${this.run} `) ? this.shapes : null;
    this.draw();
    this.refresh();
  }

  names() {
    return Object.keys(VIEWS).filter((name) => name !== "compare" || this.cards.length > 1);
  }

  go(run, view) {
    location.hash = `#/${run}/${view}`;
  }

  setRange(range) {
    this.range = range && range[1] > range[0] ? range : null;
    this.drawTools();
    this.refresh();
  }

  // --- drawing ---

  draw() {
    this.drawHeader();
    this.drawTabs();
    if (!this.tools.children.length) this.drawTools();
    const view = (this.views[this.view] ??= VIEWS[this.view][1](this));
    if (this.main.firstElementChild !== view.node) {
      this.main.replaceChildren(view.node);
      scrollTo(0, 0);
    }
    view.update();
  }

  drawHeader() {
    const { card } = this;
    document.title = `${card.name} \u00b7 ${card.step}${card.num_steps ? `/${card.num_steps}` : ""}`;
    const [word, tone, note] = this.lost ? ["not connected", "bad", this.lost] : state(card);
    const label = JSON.stringify([this.run, this.cards.map((one) => one.name), word, note, card.step, card.num_steps]);
    if (label === this.label) return;
    this.label = label;
    const choice = this.cards.length > 1
      ? el("select", { "aria-label": "run", onchange: (event) => this.go(event.target.selectedIndex, this.view) }, ...this.cards.map((one, i) => el("option", { selected: i === this.run }, one.name)))
      : el("h1", {}, card.name);
    const share = card.num_steps ? Math.min(1, card.step / card.num_steps) : 0;
    this.header.replaceChildren(
      choice, el("span", { class: `pill ${tone}`, title: note }, word), el("span", { class: "soft note" }, note),
      el("div", { class: "progress", role: "progressbar", "aria-label": "steps done", "aria-valuenow": Math.round(100 * share), "aria-valuemin": 0, "aria-valuemax": 100 }, el("i", { style: { width: `${100 * share}%` } })),
      this.themeButton());
  }

  themeButton() {
    const next = { auto: "light", light: "dark", dark: "auto" };
    const now = document.documentElement.dataset.theme ?? "auto";
    return el("button", { type: "button", class: "theme", "aria-label": `colours: ${now}`, onclick: (event) => {
      const theme = next[document.documentElement.dataset.theme ?? "auto"];
      document.documentElement.dataset.theme = theme;
      event.target.textContent = theme;
      event.target.setAttribute("aria-label", `colours: ${theme}`);
    } }, now);
  }

  drawTabs() {
    const label = `${this.run} ${this.view} ${this.cards.length}`;
    if (this.tabs.dataset.label === label) return;
    this.tabs.dataset.label = label;
    const hadFocus = this.tabs.contains(document.activeElement);
    this.tabs.replaceChildren(...this.names().map((name) =>
      el("a", { href: `#/${this.run}/${name}`, role: "tab", "aria-selected": String(name === this.view), "aria-controls": "view", tabindex: name === this.view ? 0 : -1 }, VIEWS[name][0])));
    const selected = this.tabs.querySelector("[aria-selected=true]");
    if (hadFocus) selected.focus();
    this.tabs.scrollLeft = selected.offsetLeft - this.tabs.offsetLeft - 40;
  }

  drawTools() {
    const end = (i, name) => el("input", { type: "number", min: 0, placeholder: name, "aria-label": `${name} step`, value: this.range?.[i] ?? "", onchange: (event) => {
      const range = [...(this.range ?? [0, this.card.step])];
      range[i] = event.target.value === "" ? [0, this.card.step][i] : Number(event.target.value);
      this.setRange(range);
    } });
    const smooth = el("input", { type: "range", min: 0, max: 3, step: 1, value: [0, 0.6, 0.9, 0.97].indexOf(this.smoothing), "aria-label": "smoothing", oninput: (event) => {
      this.smoothing = [0, 0.6, 0.9, 0.97][event.target.value];
      this.draw();
    } });
    this.tools.replaceChildren(
      el("label", {}, "steps", end(0, "first"), end(1, "last")),
      el("button", { type: "button", disabled: !this.range, onclick: () => this.setRange(null) }, "all"),
      el("label", {}, "smooth", smooth));
  }

  // --- keys: digits change the view, / searches, ? tells ---

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const names = this.names();
    if (event.target.getAttribute?.("role") === "tab" && ["ArrowRight", "ArrowLeft"].includes(event.key)) {
      const step = event.key === "ArrowRight" ? 1 : -1;
      this.go(this.run, names[(names.indexOf(this.view) + step + names.length) % names.length]);
      event.preventDefault();
      return;
    }
    if (event.target.closest?.("input, select, textarea, dialog")) return;
    if (event.key >= "1" && event.key <= "9" && names[event.key - 1]) this.go(this.run, names[event.key - 1]);
    else if (event.key === "/") {
      this.go(this.run, "rollouts");
      setTimeout(() => this.views.rollouts?.focusSearch(), 50);
      event.preventDefault();
    }
  }
}

function state(card) {
  if (card.reading) return ["reading", "", `${card.num_rollouts.toLocaleString("en")} rollouts so far`];
  if (card.state === "done") return ["done", "good", `finished at ${clock(card.heard)}`];
  if (card.state !== "open") return [card.state, "bad", card.outcome.message];
  if (!card.heard) return ["not begun", "", "waiting for its first event"];
  const quiet = card.now - card.heard;
  const last = card.messages.at(-1);
  const doing = last && last.time >= (card.latest.time ?? 0) ? last.message : `last step ${duration(quiet)} ago`;
  const silent = card.pulses.find((pulse) => card.now - pulse.time > SILENT_S);
  if (silent) return ["stalled", "bad", `trainer rank ${silent.rank} (pid ${silent.pid} on ${silent.host}) has given no sign of life for ${duration(card.now - silent.time)}`];
  return quiet > QUIET_S ? ["no sign of life", "bad", `last event ${duration(quiet)} ago`] : ["running", "good", doing];
}

const carried = document.getElementById("content");
new Page(carried ? new FixedSource(JSON.parse(carried.textContent)) : new LiveSource()).start();
