// Elements without markup strings: what models wrote can only ever become text.

const SVG = "http://www.w3.org/2000/svg";

export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined));
  return node;
}

// Charts draw when they come into sight, and again when what they show or their width has changed.
const drawing = new WeakMap();
const sight = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const state = drawing.get(target);
      if (!state) continue;
      state.seen = isIntersecting;
      if (isIntersecting && state.stale) redraw(target);
    }
  },
  { rootMargin: "200px" },
);
const widths = new ResizeObserver((entries) => {
  for (const { target } of entries) redraw(target);
});

export function drawn(node, draw) {
  drawing.set(node, { draw, seen: false, stale: true });
  sight.observe(node);
  widths.observe(node);
  return node;
}

export function redraw(node) {
  const state = drawing.get(node);
  state.stale = !state.seen || !node.clientWidth;
  if (!state.stale) state.draw();
}

export function debounced(work, wait = 200) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), wait);
  };
}
