function start(data) {
  const page = document.getElementById("page");
  const setting = { temperature: data.temperature, topK: Math.min(data.top_k, Math.max(0, ...data.sequences.flatMap((s) => s.places.map((p) => p.top.length)))) };
  let sequence = data.sequences[0], chosen = 0, box;
  text = sequence.text;
  heading("What else could it have said?", `${data.model} · each generated word, and the words that could stand in its place`);

  // The probabilities in a place at the chosen setting, exact since the weight of all tokens that are not listed is known.
  const distribution = (place) => {
    const t = data.temperatures[setting.temperature], largest = place.top[0][1];
    const weight = (logit) => Math.exp((logit - largest) / t);
    const kept = setting.topK ? place.top.slice(0, setting.topK) : place.top;
    const rest = setting.topK ? 0 : place.rest[setting.temperature];
    const sum = kept.reduce((sum, [, logit]) => sum + weight(logit), rest);
    const isKept = !setting.topK || place.rank <= setting.topK;
    return {
      candidates: kept.map(([id, logit]) => [id, weight(logit) / sum]),
      chosen: isKept ? weight(place.logit) / sum : 0,
      rest: rest / sum,
    };
  };

  const change = (what) => (value) => { setting[what] = value; paint(); panel(); };
  const most = Math.max(0, ...data.sequences.flatMap((s) => s.places.map((p) => p.top.length)));
  const controls = element("div", { class: "controls" },
    slider("temperature", "temperature", { min: 0, max: data.temperatures.length - 1 }, setting.temperature, (i) => data.temperatures[i].toFixed(1), change("temperature")),
    slider("top-k", "top-k", { min: 0, max: most }, setting.topK, (k) => (k ? String(k) : "off"), change("topK")));
  if (data.sequences.length > 1) {
    const select = element("select", { id: "sequence" }, ...data.sequences.map((s, i) => element("option", { value: i }, `${i}: ${s.places.length} tokens`)));
    select.addEventListener("change", () => { sequence = data.sequences[Number(select.value)]; chosen = 0; draw(); });
    controls.prepend(element("label", {}, "sequence ", select));
  }

  const words = element("div", { class: "words" }), side = element("section", { class: "panel", "aria-live": "polite" });
  const spanOf = (i) => [...tokensOf(box)].find((span) => Number(span.dataset.to) > i + sequence.from);
  const paint = () => {
    for (const span of tokensOf(box)) {
      const from = Math.max(Number(span.dataset.from), sequence.from), to = Number(span.dataset.to);
      if (to <= sequence.from) continue;
      let p = 1;
      for (let i = from; i < to; i++) p *= distribution(sequence.places[i - sequence.from]).chosen;
      const bits = -Math.log2(p);
      for (const name of [...span.classList]) if (name.startsWith("bits-")) span.classList.remove(name);
      span.classList.add("bits-" + classOf(bits));
    }
    if (sequence.places.length) for (const span of tokensOf(box)) span.classList.toggle("on", span === spanOf(chosen));
  };
  const panel = () => {
    const place = sequence.places[chosen];
    if (!place) return side.replaceChildren(element("p", { class: "muted" }, "Nothing was generated."));
    const id = text.ids[sequence.from + chosen], now = distribution(place), shown = now.candidates.slice(0, 25);
    const list = shown.some(([other]) => other === id) || now.chosen === 0 ? shown : [...shown, [id, now.chosen]];
    const others = 1 - list.reduce((sum, [, p]) => sum + p, 0);
    side.replaceChildren(
      element("h2", {}, "in place of ", element("span", { class: "mono" }, label(sequence.from + chosen))),
      element("p", {}, now.chosen ? `${percent(now.chosen)} likely` : "ruled out by top-k", ` · rank ${place.rank} · token ${chosen + 1} of ${sequence.places.length}`),
      bars(list, id),
      element("p", { class: "muted" }, others > 1e-9 && (setting.topK === 0 || setting.topK > list.length) ? `all others together: ${percent(others)}` : "all others: none"));
  };
  const draw = () => {
    text = sequence.text;
    box = flow((span, from, to) => {
      if (to <= sequence.from) { span.classList.add("given"); span.removeAttribute("tabindex"); }
    }, null);
    const take = (event) => {
      const span = event.target.closest("[data-from]");
      if (!span || Number(span.dataset.to) <= sequence.from) return;
      chosen = Math.max(0, Number(span.dataset.from) - sequence.from);
      paint();
      panel();
    };
    for (const kind of ["click", "focusin", "pointerover"]) box.addEventListener(kind, take);
    box.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const next = step && sequence.places[chosen + step] && spanOf(chosen + step);
      if (next) { event.preventDefault(); next.focus(); }
    });
    words.replaceChildren(box);
    paint();
    panel();
  };
  page.append(controls,
    element("p", { class: "muted" }, "Grey: the prompt. Point at a generated word, tap it, or use Tab and the arrow keys. The numbers are the model's at this temperature and top-k, without penalties and other processors."),
    element("div", { class: "key" }, "bits of surprise:", ...CLASSES.map(([, label], i) => element("i", { class: "bits-" + i }, label))),
    element("div", { class: "beside" }, words, side));
  draw();
}
