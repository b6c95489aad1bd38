function start(data) {
  text = data.text;
  heading("What happens inside", `${data.model} · ${text.ids.length} tokens`);
  strongest = data.strongest;
  const place = document.getElementById("page").appendChild(element("section"));
  if (data.attention.length) attention(place, data.attention, data.shades, data.opens);
  lens(data.lens);
  attribution(data.attribution, data.made);
  hidden(data.hidden);
}

// The contributions to a logit: a row for each layer, a column for each part of it.
function contributions(made) {
  const largest = Math.max(...made.rows.flat().map((x) => Math.abs(x || 0)), Number.MIN_VALUE);
  const shade = (share) => share < 0 ? `rgba(var(--against), ${-0.6 * share})` : `rgba(var(--accent), ${0.6 * share})`;
  const cell = (x) => element("td", { class: "number", style: x === null ? {} : { background: shade(x / largest) } }, x === null ? "" : (x > 0 ? "+" : "") + x.toFixed(2));
  const head = element("tr", {}, element("th", {}, "layer"), ...made.columns.map((name) => element("th", { class: "number" }, name)));
  const rows = made.rows.map((row, layer) => element("tr", {}, element("th", {}, String(layer)), ...row.map(cell)));
  return [element("p", {}, `${isolated(made.question)} — ${made.total}`),
    element("div", { class: "scroll" }, element("table", { class: "made" }, element("thead", {}, head), element("tbody", {}, ...rows))),
    element("p", { class: "muted" }, `Besides: ${made.others}`)];
}

function attribution(asked, made) {
  const page = document.getElementById("page"), parts = "what each head (by number), the bias of attention's output, and the MLP of each layer contribute";
  if (asked) page.append(element("h2", {}, "What made the logit"), element("p", { class: "muted" }, `Direct logit attribution: ${parts}.`), ...contributions(asked));
  page.append(element("h2", {}, "What made each token"),
    element("p", { class: "muted" }, `Click a word, or choose it with the keyboard: of its logit after the words before, ${parts}.`));
  const shown = element("div", { id: "made", "aria-live": "polite" }), body = flow();
  // The token at `to - 1` is what the position before it leads to; the last position's best token stands at the end.
  const show = (to, chosen) => {
    for (const span of tokensOf(body)) { span.classList.toggle("on", span === chosen); span.setAttribute("aria-pressed", span === chosen); }
    shown.replaceChildren(...(to === 1 ? [element("p", { class: "muted" }, "Nothing comes before the first token.")] : contributions(made[to - 2])));
  };
  const best = element("button", { class: "choice", id: "best" }, "the model's next token");
  best.addEventListener("click", () => show(made.length + 1, best));
  const choose = (event) => {
    const span = event.target.closest("[data-from]");
    if (!span || (event.type === "keydown" && event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    show(Number(span.dataset.to), span);
  };
  for (const span of tokensOf(body)) span.setAttribute("role", "button");
  for (const kind of ["click", "keydown"]) body.addEventListener(kind, choose);
  page.append(element("div", { class: "reading" }, body), best, shown);
  show(made.length + 1, best);
}

function lens(layers) {
  const page = document.getElementById("page");
  page.append(element("h2", {}, "Logit lens"),
    element("p", { class: "muted" }, "What the model would predict if it stopped after each layer. Framed: what the last block predicts. Point at a cell, or tap it, for its best tokens; the list follows that position through the layers."));
  const title = (layer) => (layer.name === "embed" ? "embedding" : "after block " + layer.name.split(".")[1]);
  const head = element("tr", {}, element("th", {}, "token"), ...text.labels.map((token) => element("td", {}, isolated(token))));
  const outcome = (i) => layers[layers.length - 1].positions[i].top[0][0];
  const rows = layers.map((layer, l) => element("tr", {}, element("th", {}, title(layer)),
    ...layer.positions.map((reading, i) => {
      const [id, p] = reading.top[0], kinds = [p > 0.7 && "strong", id === outcome(i) && "outcome"].filter(Boolean);
      return element("td", { "data-layer": l, "data-position": i, tabindex: 0, class: kinds.join(" ") || false, style: { background: accent(p) } }, name(id));
    })));
  const table = element("table", { class: "lens" }, element("thead", {}, head), element("tbody", {}, ...rows));
  const path = element("div", { id: "path" });
  const follow = (i) => {
    for (const cell of table.querySelectorAll("td.on")) cell.classList.remove("on");
    for (const cell of table.querySelectorAll(`td[data-position="${i}"]`)) cell.classList.add("on");
    const grid = element("div", { class: "bars", style: { gridTemplateColumns: "max-content minmax(4rem, max-content) minmax(2rem, 12rem) max-content" } });
    for (const layer of layers) {
      const reading = layer.positions[i], said = reading.top[0][0];
      grid.append(element("span", { class: "muted" }, title(layer)),
        element("span", { class: said === outcome(i) ? "mono actual" : "mono" }, name(said)),
        element("span", { class: "bar", style: { width: 100 * reading.outcome + "%" } }),
        element("span", { class: "number" }, percent(reading.outcome)));
    }
    path.replaceChildren(element("p", {}, "after ", element("b", { class: "mono" }, label(i)), ` (token ${i}): each layer's best token, and the probability that it gives to `,
      element("b", { class: "mono" }, name(outcome(i))), ", the model's answer"), grid);
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

// A colour key: percentages next to their shades.
function ramp(what, percentages, shade) {
  const ticks = percentages.map((p) => element("span", { style: { left: 100 * shade(p / 100) + "%" } }, Number(p.toFixed(1)) + "%"));
  return element("div", { class: "key" }, element("span", { class: "ramp" }, ...ticks), what);
}
