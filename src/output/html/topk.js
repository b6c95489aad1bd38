function start(data) {
  text = data.text;
  const page = document.getElementById("page"), next = data.next, k = data.k;
  heading("What does the model expect next?", `${data.model} · the ${k} most probable tokens after each token`);
  const given = (i) => (i > 0 ? next[i - 1].find(([id]) => id === text.ids[i])?.[1] ?? null : null);
  const rank = (i) => (i > 0 ? next[i - 1].findIndex(([id]) => id === text.ids[i]) : 0);
  const classOf = (i) => (i === 0 || rank(i) === 0 ? 0 : rank(i) > 0 ? 1 : 3);
  const show = (_, to) => {
    const i = to - 1, last = i + 1 === text.ids.length, actual = last ? undefined : text.ids[i + 1];
    const parts = [element("h3", {}, `after ${label(i)}`), bars(next[i], actual)];
    const p = last ? undefined : given(i + 1);
    if (!last) parts.push(element("p", { class: "muted" }, p === null
      ? `The text continues with ${label(i + 1)}, which is not among them.` : `The text continues with ${label(i + 1)}.`));
    parts.push(element("p", { class: "muted" }, `entropy ${(data.entropy[i] / Math.LN2).toFixed(2)} bits`));
    return parts;
  };
  page.append(element("h2", {}, "The text"),
    element("p", { class: "muted" }, "Point at a word, or tap it, to see what the model expects after it."),
    element("div", { class: "key" }, "each word was:", element("i", {}, "the model's first guess"),
      ...(k > 1 ? [element("i", { class: "bits-1" }, `among its first ${k}`)] : []), element("i", { class: "bits-3" }, k > 1 ? "not among them" : "another")));
  page.append(flow((span, from) => { if (classOf(from)) span.className = "bits-" + classOf(from); }, show));

  const rows = text.ids.map((id, i) => {
    const candidates = next[i].slice(0, 3).flatMap(([other, p]) => [
      element("td", { class: "mono", style: other === text.ids[i + 1] ? { color: "var(--mark)", fontWeight: "700" } : {} }, name(other)),
      element("td", { class: "number", style: { background: accent(p * 0.5) } }, percent(p))]);
    return element("tr", {}, element("td", { class: "number muted" }, String(i)), element("td", { class: "mono" }, label(i)), element("td", { class: "muted" }, "⇒"), ...candidates);
  });
  const head = element("tr", {}, ...["", "token", "", "expected next"].map((title) => element("th", {}, title)));
  page.append(element("h2", {}, "Token by token"),
    element("p", { class: "muted" }, "In bold: the next token of the text."),
    element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows))));
}
