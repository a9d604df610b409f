// Distributions over steps: counts as shades (lengths) or as shares of a column (difficulty).

import { drawn, el, redraw, svg } from "./dom.js";
import { short } from "./format.js";

const SHADES = 8;
const LEFT = 46;
const BOTTOM = 20;
const RIGHT = 4;

// columns: counts by bucket and bin; edges: bins' limits; first: first step of each bucket.
export class Heat {
  constructor({ title, unit = "", height = 150, shares = false, names = [], about }) {
    Object.assign(this, { height, shares, names, title });
    this.picture = svg("svg", { role: "img", tabindex: 0, "aria-label": title });
    this.plot = el("div", { class: "plot", style: { height: `${height}px` } }, this.picture);
    this.tip = el("div", { class: "tip", role: "status", hidden: true });
    const caption = el("figcaption", { title: about }, title, unit ? el("small", {}, unit) : null);
    this.node = el("figure", { class: "card chart heat" }, caption, el("div", { class: "frame" }, this.plot, this.tip));
    drawn(this.plot, () => this.draw());
    this.picture.addEventListener("pointermove", (event) => this.hover(event.clientX - this.picture.getBoundingClientRect().left));
    for (const name of ["pointerleave", "blur"]) this.picture.addEventListener(name, () => this.leave());
    this.picture.addEventListener("keydown", (event) => this.key(event));
  }

  update({ columns, edges, first, width, color }) {
    Object.assign(this, { columns, edges, first, bucket: width, color });
    redraw(this.plot);
  }

  draw() {
    this.width = this.plot.clientWidth;
    this.picture.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    if (!this.columns?.length) {
      this.picture.replaceChildren(svg("text", { class: "empty", x: this.width / 2, y: this.height / 2 }, "nothing trained yet"));
      return;
    }
    const shades = this.shares ? this.stacks() : this.cells();
    this.cursor = svg("rect", { class: "column", y: 0, height: this.height - BOTTOM, visibility: "hidden" });
    this.picture.replaceChildren(
      ...shades.map((d, i) => svg("path", { d, style: { fill: this.color, "fill-opacity": (i + 1) / shades.length } })),
      ...this.labels(), this.cursor);
  }

  place(i) {
    const wide = (this.width - LEFT - RIGHT) / this.columns.length;
    return [LEFT + i * wide, Math.max(1, wide - (wide > 5 ? 1 : 0))];
  }

  // One path a shade: a few nodes, however many cells.
  cells() {
    const totals = this.columns.map((column) => column.reduce((sum, value) => sum + value, 0) || 1);
    const most = this.columns.reduce((high, column, i) => Math.max(high, ...column.map((value) => value / totals[i])), 1e-9);
    const bins = this.edges.length - 1;
    const tall = (this.height - BOTTOM) / bins;
    const shades = Array(SHADES).fill("");
    this.columns.forEach((column, i) => {
      const [x, wide] = this.place(i);
      column.forEach((value, bin) => {
        if (!value) return;
        const shade = Math.min(SHADES - 1, Math.floor(Math.sqrt(value / totals[i] / most) * SHADES));
        shades[shade] += rectangle(x, (bins - 1 - bin) * tall, wide, Math.max(1, tall - 0.5));
      });
    });
    return shades;
  }

  stacks() {
    const levels = Array(this.edges.length - 1).fill("");
    this.columns.forEach((column, i) => {
      const [x, wide] = this.place(i);
      const total = column.reduce((sum, value) => sum + value, 0) || 1;
      let below = 0;
      column.forEach((value, level) => {
        const tall = (value / total) * (this.height - BOTTOM);
        if (value) levels[level] += rectangle(x, this.height - BOTTOM - below - tall, wide, Math.max(0.5, tall - 0.5));
        below += tall;
      });
    });
    return levels;
  }

  labels() {
    const tall = this.height - BOTTOM;
    const bins = this.edges.length - 1;
    const y = this.shares ? [["0", tall], ["50%", tall / 2 + 4], ["100%", 10]] : [0, 0.5, 1].map((share) => {
      const bin = Math.round(share * bins);
      return [short(Math.round(this.edges[bin])), Math.max(10, tall - (bin / bins) * tall)];
    });
    const x = [0, this.columns.length - 1].map((i) => svg("text", { class: i ? "x end" : "x start", x: i ? this.width - RIGHT : LEFT, y: this.height - 5 }, short(this.first[i])));
    return [...y.map(([text, at]) => svg("text", { class: "y", x: LEFT - 7, y: at }, text)), ...(this.columns.length > 1 ? x : x.slice(0, 1))];
  }

  hover(pixel) {
    if (!this.columns?.length) return;
    const i = Math.floor(((pixel - LEFT) / (this.width - LEFT - RIGHT)) * this.columns.length);
    if (i < 0 || i >= this.columns.length) this.leave();
    else this.point(i);
  }

  key(event) {
    if (!this.columns?.length) return;
    const last = this.columns.length - 1;
    const now = this.at ?? last;
    const targets = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last };
    if (event.key === "Escape") this.leave();
    else if (event.key in targets) this.point(Math.max(0, Math.min(last, targets[event.key])));
    else return;
    event.preventDefault();
  }

  point(i) {
    this.at = i;
    const column = this.columns[i];
    const total = column.reduce((sum, value) => sum + value, 0);
    const [x, wide] = this.place(i);
    this.cursor.setAttribute("x", x);
    this.cursor.setAttribute("width", wide);
    this.cursor.setAttribute("visibility", "visible");
    const steps = this.bucket > 1 ? `steps ${this.first[i]} to ${this.first[i] + this.bucket - 1}` : `step ${this.first[i]}`;
    const rows = this.shares ? this.shareRows(column, total) : this.quantileRows(column, total);
    this.tip.replaceChildren(el("header", {}, steps), el("ul", {}, ...rows.map(([name, value]) => el("li", {}, el("span", {}, name), el("b", {}, value)))));
    this.tip.hidden = false;
    const left = x > this.width / 2 ? x - this.tip.offsetWidth - 12 : x + wide + 12;
    this.tip.style.transform = `translate(${Math.max(0, left)}px, 4px)`;
  }

  shareRows(column, total) {
    return column.map((value, level) => [this.names[level], `${Math.round((100 * value) / (total || 1))}%`]).reverse();
  }

  quantileRows(column, total) {
    const at = (share) => {
      let below = 0;
      const bin = column.findIndex((value) => (below += value) >= share * total);
      return `about ${short(Math.round((this.edges[bin] + this.edges[bin + 1]) / 2))}`;
    };
    return [["90th percentile", at(0.9)], ["median", at(0.5)], ["10th percentile", at(0.1)], ["rollouts", short(total)]];
  }

  leave() {
    this.at = undefined;
    this.tip.hidden = true;
    this.cursor?.setAttribute("visibility", "hidden");
  }
}

function rectangle(x, y, wide, tall) {
  return `M${x.toFixed(1)},${y.toFixed(1)}h${wide.toFixed(1)}v${tall.toFixed(1)}h-${wide.toFixed(1)}z`;
}
