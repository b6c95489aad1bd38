function start(data) {
  text = data.text;
  const page = document.getElementById("page"), n = text.ids.length;
  heading("The text in tokens", "Each colour is a token. Point at one, tap it, or move with Tab, to see what it is.");
  page.append(cards([
    [n === 1 ? "token" : "tokens", n.toLocaleString("en")],
    ["characters", data.characters.toLocaleString("en")],
    ["bytes", data.bytes.toLocaleString("en")],
    ["characters per token", n ? (data.characters / n).toFixed(2) : "–"]]));
  const show = (from, to) => {
    const parts = [];
    for (let i = from; i < to; i++) {
      const [piece, begin, end] = data.tokens[i];
      parts.push(element("h3", {}, label(i)));
      parts.push(element("p", {}, `token ${i} · id ${text.ids[i]} · in the vocabulary `, element("span", { class: "mono" }, piece)));
      parts.push(element("p", { class: "muted" }, begin === end ? "added by the tokenizer" : `bytes ${begin} to ${end - 1} of the text`));
    }
    if (to - from > 1) parts.unshift(element("p", { class: "muted" }, `${to - from} tokens, which split a character:`));
    return parts;
  };
  let at = 0;
  const box = flow((span, from, to) => {
    span.classList.add("token", "token-" + at++ % 6);
    if (!span.textContent) span.append(element("i", { class: "muted" }, label(from)));
    // A line break would hide where the token ends.
    if (/\n/.test(span.textContent)) span.classList.add("break");
    if (to - from > 1) span.dataset.count = to - from;
  }, show);
  const ids = element("p", { class: "mono ids", hidden: true }, text.ids.join(" "));
  const button = element("button", { class: "choice", "aria-pressed": "false", id: "as-ids" }, "as ids");
  button.addEventListener("click", () => {
    const asIds = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", asIds);
    ids.hidden = !asIds;
    box.hidden = asIds;
  });
  page.append(button, box, ids);
}
