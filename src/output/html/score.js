function start(data) {
  text = data.text;
  const page = document.getElementById("page");
  const record = data.record, bits = record.logprobs.map((l) => (l === null ? null : -l / Math.LN2));
  const protocol = record.protocol;
  const how = protocol.stride === null ? "one pass" : `windows of ${protocol.context} tokens, stride ${protocol.stride}`;
  heading("How surprised is the model?", `${record.model} · ${how} · ${protocol.bos ? "<|endoftext|>" : "nothing"} before the text`);
  const number = (x, digits) => (x === null ? "–" : x.toFixed(digits));
  const mean = record.scored_tokens ? -record.sum_logprob / Math.LN2 / record.scored_tokens : null;
  page.append(cards([
    ["perplexity", number(record.perplexity, 2)], ["bits per token", number(mean, 3)],
    ["bits per byte", number(record.bits_per_byte, 3)], ["log-probability", number(record.sum_logprob, 2)],
    [`tokens, ${record.scored_tokens} scored`, String(text.ids.length)]]));

  const sum = (from, to) => bits.slice(from, to).reduce((a, b) => (b === null ? a : (a ?? 0) + b), null);
  const paint = (span, from, to) => {
    const b = sum(from, to);
    if (b !== null && classOf(b) > 0) span.className = "bits-" + classOf(b);
  };
  const show = (from, to) => {
    const parts = [];
    for (let i = from; i < to; i++) {
      parts.push(element("h3", {}, label(i)));
      if (bits[i] === null) {
        parts.push(element("p", { class: "muted" }, "Nothing comes before it, so it has no probability."));
        continue;
      }
      parts.push(element("p", {}, `${percent(Math.exp(record.logprobs[i]))} likely · ${bits[i].toFixed(2)} bits · rank ${record.ranks[i]}`));
      parts.push(element("p", { class: "muted" }, "The model expected:"));
      parts.push(bars(data.alternatives[i].map(([id, l]) => [id, Math.exp(l)]), text.ids[i]));
    }
    return parts;
  };
  page.append(element("h2", {}, "The text"),
    element("p", { class: "muted" }, "Point at a word, or tap it, to see what the model expected in its place."),
    element("div", { class: "key" }, "bits of surprise:", ...CLASSES.map(([, label], i) => element("i", { class: "bits-" + i }, label))));
  const body = flow(paint, show);
  page.append(body, element("h2", {}, "Surprise along the text"), chart(bits, body));
}

// A bar for each token; if there are more tokens than pixels, a bar is the mean of the tokens that share it.
function chart(bits, body) {
  const width = Math.min(1100, Math.max(320, document.getElementById("page").clientWidth - 48)), left = 34, size = 11;
  const room = width - left, columns = Math.min(bits.length, room), step = room / columns;
  const means = Array.from({ length: columns }, (_, c) => {
    const part = bits.slice(Math.floor(c * bits.length / columns), Math.floor((c + 1) * bits.length / columns)).filter((b) => b !== null);
    return part.length ? part.reduce((a, b) => a + b, 0) / part.length : 0;
  });
  // Every how many bars there is room for the label of a token.
  const every = Math.max(1, Math.ceil((size + 3) / step)), tokenOf = (c) => Math.floor((c * bits.length) / columns);
  const labels = means.map((_, c) => (c % every ? "" : shortLabel(tokenOf(c), 14)));
  const below = 12 + 0.62 * size * Math.max(...labels.map((label) => label.length)), height = 150 + below;
  const top = Math.max(4, Math.ceil(means.reduce((a, b) => Math.max(a, b), 0) / 4) * 4);
  const y = (b) => height - below - (b / top) * (height - below - 16);
  const draw = (context, css) => {
    context.clearRect(0, 0, width, height);
    context.font = "12px sans-serif";
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (let b = 0; b <= top; b += top / 4) {
      context.fillStyle = css("--muted");
      context.fillText(String(b), left - 6, y(b));
      context.fillStyle = css("--line");
      context.fillRect(left, y(b), room, 1);
    }
    context.fillStyle = css("--accent-ink");
    means.forEach((b, c) => context.fillRect(left + c * step, y(b), Math.max(1, step - (step > 3 ? 1 : 0)), y(0) - y(b)));
    context.font = size + "px " + css("--mono");
    context.fillStyle = css("--ink");
    labels.forEach((label, c) => {
      context.save();
      context.translate(left + (c + 0.5) * step, y(0) + 6);
      context.rotate(-Math.PI / 2);
      context.fillText(label, 0, 0);
      context.restore();
    });
  };
  const node = canvas(width, height, draw);
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", "bits of surprise for each token");
  const at = (event) => Math.floor((event.offsetX - left) / step);
  node.addEventListener("pointermove", (event) => {
    const c = at(event);
    if (c < 0 || c >= columns) return tip.hide();
    const i = tokenOf(c);
    tip.show(event, element("h3", {}, label(i)), element("p", {}, `token ${i}: ${means[c].toFixed(2)} bits`));
  });
  node.addEventListener("pointerleave", tip.hide);
  node.addEventListener("click", (event) => {
    const i = tokenOf(at(event));
    const span = [...tokensOf(body)].find((span) => Number(span.dataset.to) > i);
    if (span) { span.scrollIntoView({ block: "center" }); span.focus(); }
  });
  return element("div", { class: "scroll" }, node, element("p", { class: "muted" }, "bits, token by token"));
}
