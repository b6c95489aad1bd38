function start(data) {
  text = data.text;
  heading("What happens inside", `${data.model} · ${text.ids.length} tokens`);
  strongest = data.strongest;
  if (data.attention.length) attention(data.attention);
  lens(data.lens);
  hidden(data.hidden);
}

// The attention weight of `query` on `key`: rows of a lower triangle, in units of 1/10000.
const weight = (head, query, key) => (key > query ? 0 : head[(query * (query + 1)) / 2 + key] / 10000);

// The square root, so that a tenth of the strongest can still be seen.
let strongest;
const shade = (w) => Math.sqrt(Math.min(1, w / strongest));

function attention(layers) {
  const page = document.getElementById("page"), n = text.ids.length;
  page.append(element("h2", {}, "Attention"),
    element("p", { class: "muted" }, "Pick a layer and a head. Each row is the token that looks, each column a token that it looks at. Hover over the map, or over a word to see where it looks."));
  const chosen = { layer: 0, head: 0 };
  const choose = (title, labels, key) => {
    const select = element("select", { id: key, "aria-label": title }, ...labels.map((label, i) => element("option", { value: i }, label)));
    select.addEventListener("change", () => { chosen[key] = Number(select.value); update(); });
    return element("label", {}, title + " ", select);
  };
  const numbers = layers.map((layer) => String(layer.layer)), heads = layers[0].heads.map((head) => String(head.head));
  const picker = element("div", {}, choose("layer", numbers, "layer"), choose("head", heads, "head"));
  const grid = element("div", { class: "heads", role: "group", "aria-label": "all heads", style: { gridTemplateColumns: `auto repeat(${heads.length}, max-content)` } });
  grid.append(element("span", { class: "axis" }, ""), ...heads.map((head) => element("span", { class: "axis" }, head)));
  const size = Math.max(18, Math.min(44, Math.floor(420 / Math.max(heads.length, layers.length))));
  layers.forEach((layer, l) => {
    grid.append(element("span", { class: "axis" }, `layer ${layer.layer}`));
    layer.heads.forEach((head, h) => {
      const button = element("button", { title: `layer ${layer.layer}, head ${head.head}`, "data-layer": l, "data-head": h }, thumbnail(head.weights, n, size));
      button.addEventListener("click", () => { Object.assign(chosen, { layer: l, head: h }); update(); });
      grid.append(button);
    });
  });
  const map = element("div", { class: "scroll", id: "map" }), title = element("p", {}), looks = element("div", {});
  const update = () => {
    const layer = layers[chosen.layer], head = layer.heads[chosen.head];
    for (const key of ["layer", "head"]) document.getElementById(key).value = chosen[key];
    for (const button of grid.querySelectorAll("button"))
      button.setAttribute("aria-pressed", Number(button.dataset.layer) === chosen.layer && Number(button.dataset.head) === chosen.head);
    title.textContent = `layer ${layer.layer}, head ${head.head}`;
    map.replaceChildren(heatMap(head.weights, n));
    looks.replaceChildren(looking(head.weights));
  };
  page.append(picker, element("div", { class: "split" },
    element("div", {}, element("p", { class: "muted" }, "all heads"), grid),
    element("div", { style: { minWidth: "0", maxWidth: "100%" } }, title, map,
      ramp("of a token's attention" + (strongest < 1 ? " (or more)" : ""), [0, 0.1, 0.4, 1].map((part) => 100 * part * strongest), shade))), looks);
  update();
}

function paintCells(context, css, head, n, left, top, cell) {
  const colour = css("--accent");
  for (let q = 0; q < n; q++) for (let k = 0; k <= q; k++) {
    const w = weight(head, q, k);
    if (w === 0) continue;
    context.fillStyle = `rgba(${colour}, ${shade(w)})`;
    context.fillRect(left + k * cell, top + q * cell, cell, cell);
  }
}

function thumbnail(head, n, size) {
  return canvas(size, size, (context, css) => {
    context.clearRect(0, 0, size, size);
    paintCells(context, css, head, n, 0, 0, size / n);
  });
}

function heatMap(head, n) {
  const cell = Math.max(3, Math.min(44, Math.floor(560 / n))), labels = cell >= 9, size = Math.min(13, cell - 1);
  const longest = Math.max(...text.labels.map((label) => [...label].length));
  const margin = labels ? Math.min(150, 14 + 0.61 * size * longest) : 6, side = margin + n * cell + 4;
  let at = null;
  const draw = (context, css) => {
    context.clearRect(0, 0, side, side);
    context.font = size + "px " + css("--mono");
    context.textBaseline = "middle";
    if (labels) text.ids.forEach((id, i) => {
      const short = [...label(i)].slice(0, 18).join("");
      context.fillStyle = css(at && at.q === i ? "--accent-ink" : "--ink");
      context.textAlign = "right";
      context.fillText(short, margin - 6, margin + (i + 0.5) * cell);
      context.fillStyle = css(at && at.k === i ? "--accent-ink" : "--ink");
      context.save();
      context.translate(margin + (i + 0.5) * cell, margin - 6);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(short, 0, 0);
      context.restore();
    });
    context.strokeStyle = css("--line");
    context.strokeRect(margin - 0.5, margin - 0.5, n * cell + 1, n * cell + 1);
    paintCells(context, css, head, n, margin, margin, cell);
    if (at) {
      context.strokeStyle = css("--mark");
      context.lineWidth = 2;
      context.strokeRect(margin + at.k * cell, margin + at.q * cell, cell, cell);
      context.lineWidth = 1;
    }
  };
  const node = canvas(side, side, draw);
  node.setAttribute("role", "img");
  const repaint = () => {
    const css = getComputedStyle(document.documentElement);
    draw(node.getContext("2d"), (variable) => css.getPropertyValue(variable).trim());
  };
  node.addEventListener("pointermove", (event) => {
    const k = Math.floor((event.offsetX - margin) / cell), q = Math.floor((event.offsetY - margin) / cell);
    const inside = k >= 0 && q >= 0 && q < n && k <= q;
    at = inside ? { q, k } : null;
    repaint();
    if (!inside) return tip.hide();
    tip.show(event, element("h3", {}, `${label(q)} → ${label(k)}`),
      element("p", {}, `${percent(weight(head, q, k))} of the attention of token ${q} goes to token ${k}`));
  });
  node.addEventListener("pointerleave", () => { at = null; repaint(); tip.hide(); });
  return node;
}

// The running text: the hovered token's attention shown as the background of the others.
function looking(head) {
  const clear = () => { for (const span of box.children) { span.style.background = ""; span.classList.remove("on"); } };
  const show = (_, to, chosen) => {
    const query = to - 1;
    for (const span of box.children) {
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

function lens(layers) {
  const page = document.getElementById("page");
  page.append(element("h2", {}, "Logit lens"),
    element("p", { class: "muted" }, "What the model would predict if it stopped after each layer. Hover over a cell for its best tokens; the list follows that position through the layers."));
  const title = (layer) => (layer.name === "embed" ? "embedding" : "after block " + layer.name.split(".")[1]);
  const head = element("tr", {}, element("th", {}, "token"), ...text.labels.map((label) => element("td", {}, label)));
  const rows = layers.map((layer, l) => element("tr", {}, element("th", {}, title(layer)),
    ...layer.positions.map((reading, i) => {
      const [id, p] = reading.top[0];
      return element("td", { "data-layer": l, "data-position": i, tabindex: 0, class: p > 0.7 ? "strong" : false, style: { background: accent(p) } }, name(id));
    })));
  const table = element("table", { class: "lens" }, element("thead", {}, head), element("tbody", {}, ...rows));
  const path = element("div", { id: "path" });
  const follow = (i) => {
    for (const cell of table.querySelectorAll("td.on")) cell.classList.remove("on");
    for (const cell of table.querySelectorAll(`td[data-position="${i}"]`)) cell.classList.add("on");
    const outcome = layers[layers.length - 1].positions[i].top[0][0];
    const grid = element("div", { class: "bars", style: { gridTemplateColumns: "max-content minmax(5rem, max-content) 12rem max-content" } });
    for (const layer of layers) {
      const reading = layer.positions[i], said = reading.top[0][0];
      grid.append(element("span", { class: "muted" }, title(layer)),
        element("span", { class: said === outcome ? "mono actual" : "mono" }, name(said)),
        element("span", { class: "bar", style: { width: 100 * reading.outcome + "%" } }),
        element("span", { class: "number" }, percent(reading.outcome)));
    }
    path.replaceChildren(element("p", {}, "after ", element("b", { class: "mono" }, label(i)), ` (token ${i}): each layer's best token, and the probability that it gives to `,
      element("b", { class: "mono" }, name(outcome)), ", the model's answer"), grid);
  };
  const enter = (event) => {
    const cell = event.target.closest("td[data-position]");
    if (!cell) return tip.hide();
    const l = Number(cell.dataset.layer), i = Number(cell.dataset.position);
    if (!cell.classList.contains("on")) follow(i);
    tip.show(event, element("h3", {}, `${label(i)} → ?`), element("p", { class: "muted" }, title(layers[l])), bars(layers[l].positions[i].top, text.ids[i + 1]));
  };
  table.addEventListener("pointermove", enter);
  table.addEventListener("focusin", enter);
  table.addEventListener("pointerleave", tip.hide);
  table.addEventListener("focusout", tip.hide);
  page.append(element("div", { class: "scroll" }, table),
    ramp("probability", [0, 50, 100], (p) => p), path);
  follow(text.ids.length - 1);
}

function hidden(states) {
  const page = document.getElementById("page");
  page.append(element("h2", {}, "Hidden states"),
    element("p", { class: "muted" }, "The residual stream after the embedding, each block, and the final norm: its statistics, and the length of each token's vector."));
  const n = text.ids.length, cell = Math.max(2, Math.min(26, Math.floor(640 / n)));
  const strip = (state) => {
    const longest = Math.max(...state.norms);
    const node = canvas(n * cell, 18, (context, css) => {
      context.clearRect(0, 0, n * cell, 18);
      state.norms.forEach((norm, i) => {
        context.fillStyle = `rgba(${css("--accent")}, ${norm / longest})`;
        context.fillRect(i * cell, 0, cell - (cell > 4 ? 1 : 0), 18);
      });
    });
    node.addEventListener("pointermove", (event) => {
      const i = Math.min(n - 1, Math.max(0, Math.floor(event.offsetX / cell)));
      tip.show(event, element("h3", {}, label(i)), element("p", {}, `${state.name}: ‖x‖ = ${state.norms[i].toFixed(3)}`));
    });
    node.addEventListener("pointerleave", tip.hide);
    return node;
  };
  const rows = states.map((state) => element("tr", {}, element("td", { class: "mono" }, state.name),
    element("td", { class: "number" }, `${state.shape[0]} × ${state.shape[1]}`),
    element("td", { class: "number" }, state.mean.toFixed(4)), element("td", { class: "number" }, state.std.toFixed(4)),
    element("td", { class: "number" }, Math.max(...state.norms).toFixed(2)), element("td", {}, strip(state))));
  const titles = [["state", ""], ["shape", "number"], ["mean", "number"], ["std", "number"], ["longest", "number"], ["length of each token's vector, relative to the longest", ""]];
  const head = element("tr", {}, ...titles.map(([title, kind]) => element("th", { class: kind }, title)));
  page.append(element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows))));
}
