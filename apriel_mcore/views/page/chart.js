// Lines over steps: a mean with the extremes behind it, a cursor for pointer and keys, a range to drag.

import { drawn, el, redraw, svg } from "./dom.js";
import { short, ticks } from "./format.js";
import { smoothed } from "./frames.js";

const LEFT = 46;
const RIGHT = 12;
const TOP = 8;
const BOTTOM = 22;

// lines: [{ name, color, x, y, low, high, dashed }]. settings(): { smoothing, onRange }.
export class Chart {
  constructor({ title, unit = "", height = 200, zero = true, stacked = false, top, about }, settings) {
    Object.assign(this, { title, height, zero, stacked, top, settings });
    this.lines = [];
    this.hidden = new Set();
    this.picture = svg("svg", { role: "img", tabindex: 0, "aria-label": title });
    this.plot = el("div", { class: "plot", style: { height: `${height}px` } }, this.picture);
    this.tip = el("div", { class: "tip", role: "status", hidden: true });
    this.legend = el("ul", { class: "legend" });
    const caption = el("figcaption", { title: about }, title, unit ? el("small", {}, unit) : null);
    this.node = el("figure", { class: "card chart" }, caption, el("div", { class: "frame" }, this.plot, this.tip), this.legend);
    drawn(this.plot, () => this.draw());
    this.listen();
  }

  update(lines) {
    this.lines = lines.filter((line) => line.y.some((value) => value !== null && value !== undefined));
    redraw(this.plot);
  }

  shown() {
    return this.lines.filter((line) => !this.hidden.has(line.name));
  }

  draw() {
    this.width = this.plot.clientWidth;
    this.picture.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.drawLegend();
    const shown = this.shown();
    if (!shown.length) {
      this.axes = null;
      const text = this.lines.length ? "every line is hidden" : "nothing measured yet";
      this.picture.replaceChildren(svg("text", { class: "empty", x: this.width / 2, y: this.height / 2 }, text));
      return;
    }
    const layers = this.stacked ? stack(shown) : shown.map((line) => ({ ...line, drawn: smoothed(line.y, this.settings().smoothing) }));
    this.axes = this.scale(layers);
    this.layers = layers;
    const bands = this.stacked ? layers.map((layer) => this.area(layer)) : layers.map((layer) => this.band(layer));
    const paths = this.stacked ? [] : layers.map((layer) => this.path(layer));
    this.cursor = svg("g", { class: "cursor" });
    this.brush = svg("rect", { class: "brush", y: TOP, height: this.height - TOP - BOTTOM, visibility: "hidden" });
    this.picture.replaceChildren(...this.grid(), ...bands, ...paths, this.brush, this.cursor);
    if (this.at !== undefined) this.point(this.at);
  }

  scale(layers) {
    const xs = layers.flatMap((layer) => [layer.x[0], layer.x.at(-1)]);
    let low = this.zero || this.stacked ? 0 : Infinity;
    let high = -Infinity;
    for (const layer of layers)
      for (const part of [layer.drawn, layer.low, layer.high])
        for (const value of part ?? [])
          if (value !== null && value !== undefined) {
            if (value < low) low = value;
            if (value > high) high = value;
          }
    if (this.top !== undefined && high <= this.top) high = this.top;
    else high += (high - low) * 0.04;
    if (!(high > low)) [low, high] = [Math.min(low, low - Math.abs(low) * 0.1), high + (Math.abs(high) * 0.1 || 1)];
    const x0 = Math.min(...xs);
    const x1 = Math.max(...xs, x0 + 1);
    const wide = this.width - LEFT - RIGHT;
    const tall = this.height - TOP - BOTTOM;
    return {
      x0, x1, low, high,
      x: (step) => LEFT + ((step - x0) / (x1 - x0)) * wide,
      y: (value) => TOP + tall - ((value - low) / (high - low)) * tall,
      step: (pixel) => x0 + ((pixel - LEFT) / wide) * (x1 - x0),
    };
  }

  grid() {
    const { axes } = this;
    const parts = [];
    for (const value of ticks(axes.low, axes.high, this.height / 48)) {
      const y = axes.y(value);
      parts.push(svg("line", { class: value === 0 ? "zero" : "grid", x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y }));
      parts.push(svg("text", { class: "y", x: LEFT - 7, y: y + 4 }, short(value)));
    }
    for (const step of ticks(axes.x0, axes.x1, this.width / 90).filter(Number.isInteger))
      parts.push(svg("text", { class: "x", x: axes.x(step), y: this.height - 6 }, short(step)));
    return parts;
  }

  path(layer) {
    const d = outline(layer.x, layer.drawn, this.axes);
    const line = svg("path", { class: layer.dashed ? "line dashed" : "line", d, style: { stroke: layer.color } });
    if (layer.x.length > 1) return line;
    return svg("circle", { cx: this.axes.x(layer.x[0]), cy: this.axes.y(layer.drawn[0]), r: 3, style: { fill: layer.color } });
  }

  band(layer) {
    if (!layer.low || layer.dashed) return null;
    return svg("path", { class: "band", d: closed(layer.x, layer.low, layer.high, this.axes), style: { fill: layer.color } });
  }

  area(layer) {
    return svg("path", { class: "area", d: closed(layer.x, layer.base, layer.drawn, this.axes), style: { fill: layer.color } });
  }

  drawLegend() {
    const entries = this.lines.filter((line) => !line.dashed);
    this.legend.hidden = entries.length < 2;
    if (this.legend.dataset.names === JSON.stringify([entries.map((line) => line.name), [...this.hidden]])) return;
    this.legend.dataset.names = JSON.stringify([entries.map((line) => line.name), [...this.hidden]]);
    this.legend.replaceChildren(
      ...entries.map((line) =>
        el("li", {},
          el("button", { type: "button", "aria-pressed": String(!this.hidden.has(line.name)), onclick: () => this.toggle(line.name) },
            el("i", { style: { background: line.color } }), line.name)),
      ),
    );
  }

  toggle(name) {
    for (const one of [name, `${name} target`]) {
      if (this.hidden.has(one)) this.hidden.delete(one);
      else this.hidden.add(one);
    }
    this.draw();
  }

  listen() {
    let from = null;
    const pixel = (event) => event.clientX - this.picture.getBoundingClientRect().left;
    this.picture.addEventListener("pointermove", (event) => {
      if (!this.axes) return;
      if (from !== null) this.select(from, pixel(event));
      this.point(this.nearest(this.axes.step(pixel(event))));
    });
    this.picture.addEventListener("pointerleave", () => this.leave());
    this.picture.addEventListener("blur", () => this.leave());
    this.picture.addEventListener("pointerdown", (event) => {
      if (!this.axes || event.pointerType === "touch") return;
      from = pixel(event);
      this.picture.setPointerCapture(event.pointerId);
    });
    this.picture.addEventListener("pointerup", (event) => {
      const start = from;
      from = null;
      if (start === null || !this.axes) return;
      this.brush.setAttribute("visibility", "hidden");
      if (Math.abs(pixel(event) - start) > 8) this.settings().onRange(this.range(start, pixel(event)));
    });
    this.picture.addEventListener("dblclick", () => this.settings().onRange(null));
    this.picture.addEventListener("keydown", (event) => this.key(event));
  }

  range(a, b) {
    const ends = [this.axes.step(Math.min(a, b)), this.axes.step(Math.max(a, b))];
    return [Math.max(this.axes.x0, Math.round(ends[0])), Math.min(this.axes.x1, Math.round(ends[1]))];
  }

  select(a, b) {
    this.brush.setAttribute("visibility", "visible");
    this.brush.setAttribute("x", Math.min(a, b));
    this.brush.setAttribute("width", Math.abs(a - b));
  }

  key(event) {
    const longest = this.longest();
    if (!longest) return;
    const last = longest.x.length - 1;
    const now = this.at ?? last;
    const stride = event.shiftKey ? 10 : 1;
    const targets = { ArrowLeft: now - stride, ArrowRight: now + stride, Home: 0, End: last };
    if (event.key === "Escape") this.leave();
    else if (event.key in targets) this.point(Math.max(0, Math.min(last, targets[event.key])));
    else return;
    event.preventDefault();
  }

  longest() {
    return this.shown().reduce((best, line) => (!best || line.x.length > best.x.length ? line : best), null);
  }

  nearest(step) {
    const { x } = this.longest();
    let low = 0;
    let high = x.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (x[middle] < step) low = middle;
      else high = middle;
    }
    return step - x[low] < x[high] - step ? low : high;
  }

  // The cursor stands on the i-th bucket of the longest line; the others show what they have at its step.
  point(i) {
    const longest = this.longest();
    if (!longest || !this.axes || i >= longest.x.length) return;
    this.at = i;
    const step = longest.x[i];
    const x = this.axes.x(step);
    const marks = [svg("line", { x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM })];
    const rows = [];
    for (const layer of this.layers) {
      const at = layer.x === longest.x ? i : layer.x.indexOf(step);
      const value = layer.y[at];
      if (at < 0 || value === null || value === undefined) continue;
      if (!this.stacked) marks.push(svg("circle", { cx: x, cy: this.axes.y(layer.drawn[at]), r: 3, style: { fill: layer.color } }));
      const extremes = layer.low && layer.low[at] !== layer.high[at] ? ` (${short(layer.low[at])} to ${short(layer.high[at])})` : "";
      rows.push({ value, row: el("li", {}, el("i", { style: { background: layer.color } }), el("span", {}, layer.name), el("b", {}, short(value) + extremes)) });
    }
    if (!this.stacked) rows.sort((a, b) => b.value - a.value);
    this.cursor.replaceChildren(...marks);
    this.tip.replaceChildren(el("header", {}, `step ${step.toLocaleString("en")}`), el("ul", {}, ...rows.map(({ row }) => row)));
    this.tip.hidden = false;
    const left = x > this.width / 2 ? x - this.tip.offsetWidth - 12 : x + 12;
    this.tip.style.transform = `translate(${Math.max(0, Math.min(left, this.width - this.tip.offsetWidth))}px, ${TOP}px)`;
  }

  leave() {
    this.at = undefined;
    this.tip.hidden = true;
    this.cursor?.replaceChildren();
  }
}

function outline(x, y, axes) {
  let d = "";
  let pen = "M";
  for (let i = 0; i < x.length; i++) {
    if (y[i] === null || y[i] === undefined) continue; // a domain absent from a step has no value there: its line goes on
    d += `${pen}${axes.x(x[i]).toFixed(1)},${axes.y(y[i]).toFixed(1)}`;
    pen = "L";
  }
  return d;
}

function closed(x, low, high, axes) {
  const there = x.map((_, i) => i).filter((i) => low[i] !== null && low[i] !== undefined);
  if (!there.length) return "";
  const up = there.map((i) => `${axes.x(x[i]).toFixed(1)},${axes.y(high[i]).toFixed(1)}`);
  const down = there.reverse().map((i) => `${axes.x(x[i]).toFixed(1)},${axes.y(low[i]).toFixed(1)}`);
  return `M${up.join("L")}L${down.join("L")}Z`;
}

function stack(lines) {
  const total = lines[0].x.map(() => 0);
  return lines.map((line) => {
    const base = [...total];
    line.y.forEach((value, i) => (total[i] += value ?? 0));
    return { ...line, low: undefined, high: undefined, base, drawn: [...total] };
  });
}
