"use strict";
// Shared by all pages: elements, tokens, the tooltip that follows the pointer, bars, running text.
let text;

// Classes of surprisal: lower bound in bits, and label.
const CLASSES = [[0, "0–1"], [1, "1–4"], [4, "4–7"], [7, "7–11"], [11, "11+"]];

function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "style") Object.assign(node.style, value);
    else if (value !== false && value !== null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

// Letters that run from right to left would turn around the quotes and the words beside them: what is between quotes stays by
// itself, in `token` and in any sentence with tokens.
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;
const isolated = (token) => (RIGHT_TO_LEFT.test(token) ? token.replace(/"((?:[^"\\]|\\.)*)("|$)/g, '"\u2066$1\u2069$2') : token);
const name = (id) => isolated(text.names[id] ?? "#" + id);
const label = (i) => isolated(text.labels[i]);
// At most so many of its characters.
const shortLabel = (i, most) => isolated([...text.labels[i]].slice(0, most).join(""));
const percent = (p) => (p > 0 && p < 1e-5 ? p.toExponential(1)
  : (p >= 0.0995 ? (100 * p).toFixed(1) : p >= 0.000995 ? (100 * p).toFixed(2) : (100 * p).toPrecision(2)) + "%");
const classOf = (bits) => Math.max(0, CLASSES.findLastIndex(([least]) => bits >= least));
const accent = (alpha) => `rgba(var(--accent), ${Math.max(0, Math.min(1, alpha)).toFixed(3)})`;

function heading(title, sub) {
  document.getElementById("page").append(element("h1", {}, title), element("p", { class: "muted" }, sub));
}

function cards(list) {
  const card = ([what, value]) => element("div", { class: "card" }, element("b", {}, value), element("span", { class: "muted" }, what));
  return element("div", { class: "cards" }, ...list.map(card));
}

// Candidates as bars: [[id, probability], ...]; `actual` is the next token of the text. The largest fills its place.
// A candidate is a button if `action(id)` returns what it does.
function bars(candidates, actual, action) {
  const grid = element("div", { class: "bars" });
  const largest = candidates.reduce((most, [, p]) => Math.max(most, p), 0) || 1;
  for (const [id, p] of candidates) {
    const mark = id === actual ? " actual" : "", act = action && action(id);
    const row = element(act ? "button" : "div", { class: "row", type: act ? "button" : null },
      element("span", { class: "mono" + mark }, name(id)),
      element("span", { class: "bar", style: { width: (100 * p) / largest + "%" } }),
      element("span", { class: "number" + mark }, percent(p)));
    if (act) row.addEventListener("click", act);
    grid.append(row);
  }
  return grid;
}

// A slider and its value as `say` puts it; `set` gets every new one.
function slider(id, label, range, value, say, set) {
  const input = element("input", { type: "range", id, ...range, value });
  const output = element("output", { for: id });
  const tell = () => {
    output.textContent = say(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", () => { tell(); set(Number(input.value)); });
  tell();
  return element("label", { class: "slider" }, element("span", {}, label), input, output);
}

const tip = {
  show(event, ...children) {
    const box = document.getElementById("tip");
    box.replaceChildren(...children);
    box.hidden = false;
    const at = event.clientX === undefined || event.type === "focusin" ? below(event.target) : { x: event.clientX, y: event.clientY };
    const [w, h] = [box.offsetWidth, box.offsetHeight];
    box.style.left = Math.max(8, Math.min(at.x + 16, innerWidth - w - 8)) + "px";
    box.style.top = (at.y + 22 + h > innerHeight - 8 ? Math.max(8, at.y - h - 16) : at.y + 22) + "px";
  },
  hide() { document.getElementById("tip").hidden = true; },
};

function below(node) {
  const box = node.getBoundingClientRect();
  return { x: box.left, y: box.bottom - 16 };
}

// The tokens' spans in running text.
const tokensOf = (box) => box.querySelectorAll("[data-from]");

// Appends the span of the tokens from `from` to `to`.
function put(box, piece, from, to) {
  const span = element("span", { tabindex: 0, "data-from": from, "data-to": to }, piece);
  // A line breaks before a token and not after the space that it begins with, of which a coloured stub would be left.
  if (/^ \S{0,24}$/u.test(piece)) {
    span.classList.add("whole");
    box.append(element("wbr"));
  }
  box.append(span);
  return span;
}

// The text, with a span for each token (or for the tokens of a split character). `paint(span, from, to)` colours a span,
// `show(from, to)` returns its tooltip, if it has one.
function flow(paint, show) {
  const box = element("div", { class: "flow" });
  let from = 0;
  for (const [piece, tokens] of text.spans) {
    const span = put(box, piece, from, from + tokens);
    if (paint) paint(span, from, from + tokens);
    from += tokens;
  }
  if (!show) return box;
  const range = (event) => {
    const span = event.target.closest("[data-from]");
    return span && [Number(span.dataset.from), Number(span.dataset.to), span];
  };
  const enter = (event) => {
    const at = range(event);
    if (at) tip.show(event, ...show(...at)); else tip.hide();
  };
  for (const kind of ["pointermove", "pointerdown", "focusin"]) box.addEventListener(kind, enter);
  box.addEventListener("pointerleave", tip.hide);
  box.addEventListener("focusout", tip.hide);
  return box;
}

// A canvas of w x h CSS pixels, sharp on any screen; redrawn with `draw` when the colour scheme changes, and by `repaint`.
function canvas(w, h, draw) {
  const node = element("canvas", { style: { width: w + "px", height: h + "px" } });
  const paint = () => {
    const scale = Math.max(1, window.devicePixelRatio || 1);
    node.width = Math.round(w * scale);
    node.height = Math.round(h * scale);
    const context = node.getContext("2d");
    context.scale(scale, scale);
    const css = getComputedStyle(document.documentElement);
    draw(context, (variable) => css.getPropertyValue(variable).trim());
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  node.repaint = paint;
  paint();
  return node;
}
