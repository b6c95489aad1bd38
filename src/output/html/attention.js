// Attention: a grid of all heads, and one of them as a map or as lines between the tokens.

// The weights of one head: rows of a lower triangle, in units of 1/10000, written as bits in base64. Each row begins with a
// shift of 4 bits. A number is its upper part in unary, at most 12, and then the bits shifted out; 12 announces 14 plain bits.
const DIGITS = new Uint8Array(128);
[..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"].forEach((digit, i) => { DIGITS[digit.charCodeAt(0)] = i; });

function unpacked(packed, n) {
  const weights = new Uint16Array((n * (n + 1)) / 2);
  let at = 0, digit = 0, left = 0;
  const bit = () => {
    if (left === 0) { digit = DIGITS[packed.charCodeAt(at++)]; left = 6; }
    return (digit >> --left) & 1;
  };
  const bits = (count) => { let x = 0; while (count-- > 0) x = 2 * x + bit(); return x; };
  for (let query = 0, i = 0; query < n; query++) {
    const shift = bits(4);
    for (let key = 0; key <= query; key++) {
      let upper = 0;
      while (upper < 12 && bit()) upper++;
      weights[i++] = upper === 12 ? bits(14) : (upper << shift) | bits(shift);
    }
  }
  return weights;
}

// The heads of a layer in shades, compressed: a byte for each weight, the root of which it is the part.
async function shaded(layer, shades, n) {
  const bytes = Uint8Array.from(atob(layer.weights), (digit) => digit.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const all = new Uint8Array(await new Response(stream).arrayBuffer()), size = (n * (n + 1)) / 2;
  layer.heads.forEach((head, h) => { head.weights = Uint16Array.from(all.subarray(h * size, (h + 1) * size), (x) => Math.round(10000 * (x / shades) ** 2)); });
}

// Unpacks a layer's weights, once.
function opened(layer, shades, n) {
  layer.opened ??= shades ? shaded(layer, shades, n) : Promise.resolve(layer.heads.forEach((head) => { head.weights = unpacked(head.weights, n); }));
  return layer.opened;
}

// The attention weight of `query` on `key`.
const weight = (head, query, key) => (key > query ? 0 : head[(query * (query + 1)) / 2 + key] / 10000);

// The square root, so that a tenth of the strongest can still be seen.
let strongest;
const shade = (w) => Math.sqrt(Math.min(1, w / strongest));

async function attention(page, layers, shades, opens) {
  const n = text.ids.length;
  const [layer, head] = opens, chosen = { layer, head, view: "map" };
  page.append(element("h2", {}, "Attention"),
    element("p", { class: "muted" }, "Point at a word to see where the head looks from there. Pick a head in the grid, with the mouse or the arrow keys. The page opens at the head that looks most at single tokens other than the first, the one before, and itself."));

  const choose = (title, labels, key) => {
    const select = element("select", { id: key, "aria-label": title }, ...labels.map((label, i) => element("option", { value: i }, label)));
    select.addEventListener("change", () => { chosen[key] = Number(select.value); update(); });
    return element("label", {}, title + " ", select);
  };
  const views = ["map", "lines"].map((view) => {
    const button = element("button", { class: "choice", id: "as-" + view }, view);
    button.addEventListener("click", () => { chosen.view = view; update(); });
    return button;
  });
  const numbers = layers.map((layer) => String(layer.layer)), heads = layers[0].heads.map((head) => String(head.head));
  const picker = element("div", { class: "controls" }, element("span", {}, choose("layer", numbers, "layer"), choose("head", heads, "head")),
    element("span", { role: "group", "aria-label": "view" }, ...views));

  const room = page.clientWidth, isWide = room > 760;
  const side = Math.max(10, Math.min(44, Math.floor(((isWide ? 0.42 * room : room) - 60) / heads.length) - 6));
  const grid = element("div", { class: "heads", role: "group", "aria-label": "all heads", style: { gridTemplateColumns: `auto repeat(${heads.length}, max-content)` } });
  grid.append(element("span", { class: "axis" }, "layer"), ...heads.map((head) => element("span", { class: "axis" }, head)));
  layers.forEach((layer, l) => {
    grid.append(element("span", { class: "axis" }, String(layer.layer)));
    layer.heads.forEach((head, h) => {
      const label = `layer ${layer.layer}, head ${head.head}`;
      const small = element("canvas", { style: { width: side + "px", height: side + "px" } });
      const button = element("button", { title: label, "aria-label": label, "data-layer": l, "data-head": h }, small);
      button.addEventListener("click", () => { Object.assign(chosen, { layer: l, head: h }); update(); });
      grid.append(button);
    });
  });
  grid.addEventListener("keydown", (event) => {
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
    const next = grid.querySelector(`button[data-layer="${chosen.layer + down}"][data-head="${chosen.head + right}"]`);
    if (!(down || right) || !next) return;
    event.preventDefault();
    next.click();
    next.focus();
  });

  const map = element("div", { class: "scroll", id: "map" }), title = element("h3", {}), words = element("div", { class: "reading" }), how = element("p", { class: "muted" });
  const manual = {
    map: "Each row is the token that looks, each column a token that it looks at.",
    lines: "From the token that looks, on the left, to those that it looks at. Point at a token to see only its lines.",
  };
  const update = async () => {
    const layer = layers[chosen.layer];
    await opened(layer, shades, n);
    if (layer !== layers[chosen.layer]) return;
    const head = layer.heads[chosen.head];
    for (const key of ["layer", "head"]) document.getElementById(key).value = chosen[key];
    for (const button of grid.querySelectorAll("button")) {
      const isChosen = Number(button.dataset.layer) === chosen.layer && Number(button.dataset.head) === chosen.head;
      button.setAttribute("aria-pressed", isChosen);
      button.tabIndex = isChosen ? 0 : -1;
    }
    views.forEach((button) => button.setAttribute("aria-pressed", button.textContent === chosen.view));
    title.textContent = `layer ${layer.layer}, head ${head.head}`;
    how.textContent = manual[chosen.view];
    const space = isWide ? room - grid.offsetWidth - 48 : room;
    map.replaceChildren(chosen.view === "map" ? heatMap(head.weights, n, space) : lines(head.weights, n, space));
    words.replaceChildren(looking(head.weights));
  };
  if (shades) page.append(element("p", { class: "muted" }, `So many weights are rounded to ${shades} shades: read their percentages as about.`));
  page.append(words, picker, element("div", { class: "split" },
    element("div", { class: "scroll" }, element("p", { class: "muted" }, "all heads: across, the heads of a layer"), grid),
    element("div", { class: "view" }, title, how, map,
      ramp("of a token's attention" + (strongest < 1 ? " (or more)" : ""), [0, 0.1, 0.4, 1].map((part) => 100 * part * strongest), shade))));
  await update();
  // The others on the way, with pauses in which the page can be used.
  for (const [l, layer] of layers.entries()) {
    await opened(layer, shades, n);
    for (const [h, head] of layer.heads.entries()) {
      grid.querySelector(`button[data-layer="${l}"][data-head="${h}"]`).replaceChildren(thumbnail(head.weights, n, side));
    }
    await new Promise((resolve) => setTimeout(resolve));
  }
}

// The map of a head in `size` x `size` pixels. Each shows the strongest of the weights that fall on it, so that a thin line
// stays visible.
function picture(head, n, size, colour) {
  const image = new ImageData(size, size), [r, g, b] = colour.split(",").map(Number);
  for (let query = 0, i = 0; query < n; query++) {
    const row = Math.floor((query * size) / n) * size;
    for (let key = 0; key <= query; key++, i++) {
      const at = 4 * (row + Math.floor((key * size) / n)), alpha = 255 * shade(head[i] / 10000);
      if (alpha > image.data[at + 3]) image.data.set([r, g, b, alpha], at);
    }
  }
  const node = element("canvas", { width: size, height: size });
  node.getContext("2d").putImageData(image, 0, 0);
  return node;
}

function thumbnail(head, n, side) {
  return canvas(side, side, (context, css) => {
    const size = Math.min(n, Math.round(side * Math.max(1, window.devicePixelRatio || 1)));
    context.imageSmoothingEnabled = false;
    context.clearRect(0, 0, side, side);
    context.drawImage(picture(head, n, size, css("--accent")), 0, 0, side, side);
  });
}

const short = (i) => shortLabel(i, 18);
const widest = () => Math.max(...text.ids.map((_, i) => [...short(i)].length));

function heatMap(head, n, space) {
  const labelled = (margin) => Math.max(1, Math.min(44, (space - margin - 4) / n));
  // The space that the labels take depends on their size, which depends on the cells that the labels leave room for.
  const every = Math.ceil(9 / labelled(90)), size = Math.min(13, labelled(90) * every * 0.9);
  const margin = Math.min(150, space / 3, 14 + 0.61 * size * widest()), cell = labelled(margin), side = margin + n * cell + 4;
  let at = null, node;
  const draw = (context, css) => {
    context.clearRect(0, 0, side, side);
    context.font = size + "px " + css("--mono");
    context.textBaseline = "middle";
    const isMarked = (i, place) => at && at[place] === i;
    for (let i = 0; i < n; i++) {
      const label = short(i), middle = margin + (i + 0.5) * cell;
      const near = (place) => at && !isMarked(i, place) && Math.abs(at[place] - i) < every;
      const shows = (place) => isMarked(i, place) || (i % every === 0 && !near(place));
      if (shows("query")) {
        context.fillStyle = css(isMarked(i, "query") ? "--mark" : "--ink");
        context.textAlign = "right";
        context.fillText(label, margin - 6, middle);
      }
      if (shows("key")) {
        context.fillStyle = css(isMarked(i, "key") ? "--mark" : "--ink");
        context.save();
        context.translate(middle, margin - 6);
        context.rotate(-Math.PI / 2);
        context.textAlign = "left";
        context.fillText(label, 0, 0);
        context.restore();
      }
    }
    context.strokeStyle = css("--line");
    context.strokeRect(margin - 0.5, margin - 0.5, n * cell + 1, n * cell + 1);
    context.imageSmoothingEnabled = false;
    context.drawImage(picture(head, n, n, css("--accent")), margin, margin, n * cell, n * cell);
    if (at) {
      context.strokeStyle = css("--mark");
      context.lineWidth = 2;
      context.strokeRect(margin + at.key * cell - 1, margin + at.query * cell - 1, cell + 2, cell + 2);
    }
  };
  const look = (event, to) => {
    const isInside = to && to.key >= 0 && to.query >= 0 && to.query < n && to.key <= to.query;
    at = isInside ? to : null;
    node.repaint();
    if (!isInside) return tip.hide();
    const box = node.getBoundingClientRect();
    const point = { x: box.left + margin + (to.key + 0.5) * cell, y: box.top + margin + (to.query + 0.5) * cell };
    tip.show({ target: node, clientX: event.clientX ?? point.x, clientY: event.clientY ?? point.y }, element("h3", {}, `${label(to.query)} → ${label(to.key)}`),
      element("p", {}, `${percent(weight(head, to.query, to.key))} of the attention of token ${to.query} goes to token ${to.key}`));
  };
  node = canvas(side, side, draw);
  Object.assign(node.dataset, { cell, margin });
  node.tabIndex = 0;
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", "attention map; the arrow keys move from cell to cell");
  const under = (event) => ({ key: Math.floor((event.offsetX - margin) / cell), query: Math.floor((event.offsetY - margin) / cell) });
  for (const kind of ["pointermove", "pointerdown"]) node.addEventListener(kind, (event) => look(event, under(event)));
  node.addEventListener("pointerleave", (event) => look(event, null));
  node.addEventListener("focusout", (event) => look(event, null));
  node.addEventListener("keydown", (event) => {
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
    if (!(down || right)) return;
    event.preventDefault();
    const from = at ?? { query: n - 1, key: n - 1 - right };
    const query = Math.max(0, Math.min(n - 1, from.query + down));
    look(event, { query, key: Math.max(0, Math.min(query, from.key + right)) });
  });
  return node;
}

// Two columns of the tokens, and a line for each weight; of one token only, while the pointer is on it.
function lines(head, n, space) {
  const row = Math.max(15, Math.min(24, Math.floor(520 / n))), height = n * row + 8, width = Math.min(560, space - 14);
  const size = Math.min(13, row - 2), margin = Math.min(width / 3, 12 + 0.61 * size * widest());
  let from = null, to = null, node;
  const draw = (context, css) => {
    context.clearRect(0, 0, width, height);
    context.font = size + "px " + css("--mono");
    context.textBaseline = "middle";
    const y = (i) => 4 + (i + 0.5) * row, colour = css("--accent");
    context.lineWidth = 1.5;
    for (let query = 0; query < n; query++) for (let key = 0; key <= query; key++) {
      const w = weight(head, query, key);
      if (w < 0.01 || (from !== null && from !== query) || (to !== null && to !== key)) continue;
      context.strokeStyle = `rgba(${colour}, ${shade(w)})`;
      context.beginPath();
      context.moveTo(margin, y(query));
      context.lineTo(width - margin, y(key));
      context.stroke();
    }
    for (let i = 0; i < n; i++) {
      const given = from !== null ? weight(head, from, i) : 0, got = to !== null ? weight(head, i, to) : 0;
      context.fillStyle = css(from === i ? "--mark" : "--ink");
      context.textAlign = "right";
      if (got >= 0.01) { context.fillStyle = `rgba(${colour}, ${0.5 * shade(got)})`; context.fillRect(0, y(i) - row / 2, margin - 3, row); context.fillStyle = css("--ink"); }
      context.fillText(short(i), margin - 6, y(i));
      context.textAlign = "left";
      if (given >= 0.01) { context.fillStyle = `rgba(${colour}, ${0.5 * shade(given)})`; context.fillRect(width - margin + 3, y(i) - row / 2, margin - 3, row); }
      context.fillStyle = css(to === i ? "--mark" : "--ink");
      context.fillText(short(i), width - margin + 6, y(i));
    }
  };
  node = canvas(width, height, draw);
  node.tabIndex = 0;
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", "lines between tokens; the arrow keys move from token to token");
  const look = (query, key) => {
    [from, to] = [query, key];
    node.repaint();
  };
  for (const kind of ["pointermove", "pointerdown"]) node.addEventListener(kind, (event) => {
    const i = Math.floor((event.offsetY - 4) / row), isToken = i >= 0 && i < n;
    if (isToken && event.offsetX < width / 2) look(i, null); else if (isToken) look(null, i); else look(null, null);
  });
  for (const kind of ["pointerleave", "focusout"]) node.addEventListener(kind, () => look(null, null));
  node.addEventListener("keydown", (event) => {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    look(Math.max(0, Math.min(n - 1, (from ?? (step > 0 ? -1 : n)) + step)), null);
  });
  return element("div", { class: "tall" }, node);
}

// The running text: the attention of the token pointed at, as the background of the others.
function looking(head) {
  const clear = () => { for (const span of tokensOf(box)) { span.style.background = ""; span.classList.remove("on"); } };
  const show = (_, to, chosen) => {
    const query = to - 1;
    for (const span of tokensOf(box)) {
      let sum = 0;
      for (let k = Number(span.dataset.from); k < Number(span.dataset.to); k++) sum += weight(head, query, k);
      span.style.background = accent(0.75 * shade(sum));
      span.classList.toggle("on", span === chosen);
    }
    const keys = text.ids.slice(0, query + 1).map((id, k) => [id, weight(head, query, k)]);
    keys.sort((a, b) => b[1] - a[1]);
    return [element("h3", {}, `${label(query)} looks at`), bars(keys.slice(0, 5))];
  };
  const box = flow(null, show);
  box.addEventListener("pointerleave", clear);
  box.addEventListener("focusout", clear);
  return box;
}
