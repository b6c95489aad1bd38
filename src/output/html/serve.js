// What is asked for beside the prompt, under its name in the request: its range, its value at first, how that is put.
const SETTINGS = {
  temperature: [{ min: 0, max: 2, step: 0.05 }, 1, (t) => (t ? t.toFixed(2) : "greedy")],
  top_k: [{ min: 0, max: 200 }, 40, (k) => (k ? String(k) : "off")],
  top_p: [{ min: 0.05, max: 1, step: 0.01 }, 1, (p) => (p < 1 ? p.toFixed(2) : "off")],
  repetition_penalty: [{ min: 1, max: 2, step: 0.05 }, 1, (r) => (r > 1 ? r.toFixed(2) : "off")],
  max_tokens: [{ min: 1, max: 1024 }, 60, String],
};
const ALTERNATIVES = 10;

// What would hide, or reorder the text around it.
const UNSEEN = /[\p{Cc}\p{Zl}\p{Zp}\p{NChar}\u{ad}\u{61c}\u{180e}\u{200b}\u{200e}\u{200f}\u{202a}-\u{202e}\u{2060}-\u{206f}\u{feff}\u{fff9}-\u{fffb}\u{e0000}-\u{e007f}]/gu;
const escape = (c) => ({ "\n": "\\n", "\r": "\\r", "\t": "\\t" })[c] ?? `\\u{${c.codePointAt(0).toString(16)}}`;
const line = (words) => words.replace(UNSEEN, escape);
const lines = (words) => words.replace(UNSEEN, (c) => ("\n\t".includes(c) ? c : escape(c)));
const quoted = (words) => `"${line(words.replace(/["\\]/g, "\\$&")).replace(/^\p{M}/u, escape)}"`;

// A part of a character comes as its bytes, such as `bytes:\xf0\x9f`; any other token as its text.
const PART = /^bytes:(?=.*\\x[89a-f][0-9a-f])/;
const tokenName = (token) => (PART.test(token) ? `"${token.slice(6)}"` : quoted(token));
function bytesOf(token) {
  if (!PART.test(token)) return [...new TextEncoder().encode(token)];
  return Array.from(token.slice(6).matchAll(/\\x([0-9a-f]{2})|./g), ([c, hex]) => (hex ? parseInt(hex, 16) : c.charCodeAt(0)));
}

// The text of bytes; null unless they are whole characters or, with `stream`, may become so.
function decoded(bytes, stream = false) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(new Uint8Array(bytes), { stream });
  } catch {
    return null;
  }
}

// What went wrong, for the reader.
class Fault extends Error {}

// The events of a stream.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { done, value } = await reader.read().catch(() => ({ done: true }));
    if (done) throw new Fault("the answer breaks off");
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines.filter((line) => line.startsWith("data:"))) {
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

// Copies a text; over plain HTTP, where a page has no clipboard, through a selection.
async function copy(button, words) {
  try {
    await navigator.clipboard.writeText(words);
  } catch {
    const area = element("textarea", {}, words);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const label = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = label; }, 1500);
}

function start() {
  text = { names: Object.create(null) };
  const page = document.getElementById("page"), field = (id) => document.getElementById(id);
  const number = (id) => Number(field(id).value);
  const button = (label, attributes) => element("button", { type: "button", class: "choice", ...attributes }, label);
  heading("What comes next?", "GPT-2 continues a text.");
  const about = page.lastChild;

  const prompt = element("textarea", { id: "prompt", rows: 4, spellcheck: "false", placeholder: "Once upon a time" });
  const seed = element("input", { id: "seed", type: "number", min: 0, step: 1, placeholder: "new each time" });
  const sliders = Object.entries(SETTINGS).map(([id, [range, value, say]]) => slider(id, id.replace("_", " "), range, value, say, () => {}));
  const more = button("Go on", { id: "more", disabled: true }), halt = button("Stop", { id: "stop", disabled: true, title: "Escape" });
  const state = element("span", { id: "state", class: "muted", role: "status" });
  const form = element("form", { novalidate: true },
    element("label", { for: "prompt" }, "Prompt ", element("span", { class: "muted" }, "(Ctrl+Enter completes it)")), prompt,
    element("div", { class: "settings" }, ...sliders, element("label", { class: "slider" }, element("span", {}, "seed"), seed)),
    element("div", { class: "controls" }, button("Complete", { type: "submit", class: "choice main" }), more, halt, state));
  const fault = element("p", { id: "fault", class: "fault", role: "alert" });
  const secret = element("input", { id: "key", type: "password", autocomplete: "off" });
  const gate = element("form", { class: "controls", hidden: true },
    element("label", { for: "key" }, "This server asks for its key:"), secret, button("Use it", { type: "submit" }));

  const words = element("div", { class: "flow", id: "words" }), side = element("section", { class: "panel low", "aria-live": "polite" });
  const odds = CLASSES.map((_, i) => (CLASSES[i + 1] ? `over ${Number((100 * 2 ** -CLASSES[i + 1][0]).toPrecision(1))}%` : "less"));
  const result = element("div", { hidden: true },
    element("div", { class: "key" }, "likely:", ...odds.map((label, i) => element("i", { class: "bits-" + i }, label))),
    element("div", { class: "beside" }, words, side),
    element("p", { class: "muted" }, "Grey: the prompt. Point at a token, tap it, or use Tab and the arrow keys; an alternative that you choose goes on from there. Probabilities are those after temperature, top k, top p and penalty."));
  const command = element("pre", { class: "mono command", tabindex: 0 }), copyCommand = button("Copy"), copyLink = button("Copy link");
  page.append(form, gate, fault, result,
    element("details", {}, element("summary", {}, "The same from a shell"), command, copyCommand), copyLink);

  // `given` is the prompt, `spans` are the elements of the tokens; the last `parts` tokens are no whole character yet.
  // `chosen` is the token in the panel, `pin` the one that was chosen not only by pointing at it.
  let given = "", tokens = [], spans = [], parts = 0, chosen = null, pin = null;
  // The key is kept here and nowhere else; `isDue` is whether it starts a completion. `drawn` is the seed of the last one.
  let key = "", isDue = false, running = null, drawn = null, startToken = "";

  const ask = async (path, body, signal) => {
    const headers = { "Content-Type": "application/json" };
    if (key) headers.Authorization = "Bearer " + String.fromCharCode(...new TextEncoder().encode(key));
    const request = body ? { method: "POST", body: JSON.stringify(body), headers, signal } : { headers };
    const response = await fetch(path, request).catch(() => { throw new Fault("the server does not answer"); });
    if (response.ok) return response;
    const answer = await response.json().catch(() => null);
    gate.hidden = response.status !== 401;
    if (!gate.hidden) secret.focus();
    throw new Fault(gate.hidden || key ? answer?.error?.message ?? `the server answers with status ${response.status}` : "");
  };
  const complain = (error) => {
    if (!(error instanceof Fault)) throw error;
    fault.textContent = line(error.message);
  };

  const ownSeed = () => (seed.value === "" ? null : Number(seed.value));
  const request = (words, seed) => ({
    prompt: words,
    max_tokens: number("max_tokens"),
    temperature: number("temperature"),
    ...(number("temperature") > 0 && { top_k: number("top_k"), top_p: number("top_p"), ...(seed !== null && { seed }) }),
    ...(number("repetition_penalty") !== 1 && { repetition_penalty: number("repetition_penalty") }),
  });
  const tellCommand = () => {
    const hex = (unit) => "\\u" + unit.charCodeAt(0).toString(16).padStart(4, "0");
    const body = JSON.stringify(request(prompt.value, ownSeed() ?? drawn)).replace(UNSEEN, (c) => c.replace(/[^]/g, hex));
    const header = gate.hidden && !key ? "" : ` -H "Authorization: Bearer $GPT2_API_KEY"`;
    command.textContent = `curl ${new URL("v1/completions", location.href)}${header} -H 'Content-Type: application/json' -d '${body.replace(/'/g, "'\\''")}'`;
  };

  // The form as a link's fragment, and back.
  const fragment = (seed) => {
    const values = Object.keys(SETTINGS).map((id) => [id, field(id).value]);
    return "#" + new URLSearchParams([["prompt", prompt.value], ...values, ...(seed === null ? [] : [["seed", seed]])]);
  };
  const remember = () => history.replaceState(null, "", fragment(ownSeed()));
  const recall = () => {
    const values = new URLSearchParams(location.hash.slice(1));
    for (const id of ["prompt", "seed", ...Object.keys(SETTINGS)].filter((id) => values.has(id))) {
      field(id).value = values.get(id);
      field(id).dispatchEvent(new Event("input", { bubbles: true }));
    }
    tellCommand();
    return values.has("run");
  };

  const bytesBefore = (end) => tokens.slice(0, end).flatMap(({ token }) => bytesOf(token));
  const spanOf = (i) => spans.find((span) => Number(span.dataset.to) > i);
  // What could stand in the place of a token.
  const place = (i, label) => {
    const { token, logprob, top, byHand } = tokens[i], before = bytesBefore(i);
    const list = top.map(([other, logprob]) => [other, Math.exp(logprob)]);
    for (const [other] of list) text.names[other] = tokenName(other);
    const rank = top.findIndex(([other]) => other === token), others = 1 - list.reduce((sum, [, p]) => sum + p, 0);
    // A prompt cannot end within a character.
    const action = (other) => (decoded([...before, ...bytesOf(other)]) === null ? null : () => replace(i, other));
    return [
      element("h2", {}, "in place of ", element("span", { class: "mono" }, label)),
      element("p", {}, `${percent(Math.exp(logprob))} likely${rank < ALTERNATIVES ? ` · rank ${rank + 1}` : ""} · token ${i + 1}${byHand ? " · your choice" : ""}`),
      bars(list, token, action),
      element("p", { class: "muted" }, `all others together: ${others > 1e-6 ? percent(others) : "none"}`),
    ];
  };
  const choose = (i) => {
    const one = spanOf(i), from = Number(one.dataset.from), count = one.dataset.to - from;
    chosen = from;
    for (const span of spans) {
      span.classList.toggle("on", span === one);
      span.tabIndex = span === one ? 0 : -1;
    }
    const label = (k) => (count === 1 ? tokenName(tokens[from].token) : `${quoted(one.textContent)} ${k + 1}/${count}`);
    side.replaceChildren(...Array.from({ length: count }, (_, k) => place(from + k, label(k))).flat());
  };

  // Shows one more token.
  const add = (token) => {
    const last = tokens.push(token) - 1;
    let from = last - parts, bytes = tokens.slice(from).flatMap(({ token }) => bytesOf(token));
    // The tokens before may not go on with this one.
    if (decoded(bytes, true) === null) [from, bytes, parts] = [last, bytesOf(token.token), 0];
    const whole = decoded(bytes);
    if (whole === null) {
      from = last;
      parts = decoded(bytes, true) === null ? 0 : parts + 1;
    } else {
      for (; parts > 0; parts--) spans.pop().remove();
    }
    const span = put(words, lines(whole ?? "\ufffd"), from, last + 1);
    const logprob = tokens.slice(from).reduce((sum, { logprob }) => sum + logprob, 0);
    span.classList.add("bits-" + classOf(-logprob / Math.LN2));
    span.classList.toggle("newline", /^\n+$/.test(whole));
    span.tabIndex = -1;
    spans.push(span);
    if (chosen === null || chosen >= from) choose(chosen ?? 0);
  };
  const redraw = (kept) => {
    [tokens, spans, parts, chosen, pin] = [[], [], 0, null, null];
    words.replaceChildren(element("span", { class: "given" }, lines(given)));
    side.replaceChildren(element("p", { class: "muted" }, "Nothing yet."));
    kept.forEach(add);
  };
  const replace = (i, other) => {
    const { top } = tokens[i];
    redraw([...tokens.slice(0, i), { token: other, logprob: top.find(([token]) => token === other)[1], top, byHand: true }]);
    spanOf(i).focus({ preventScroll: true });
    run();
  };

  // Continues what is shown.
  const run = async () => {
    running?.abort();
    const mine = (running = new AbortController()), begun = performance.now(), before = decoded(bytesBefore());
    const ours = ownSeed() ?? Math.floor(Math.random() * 1e9), most = number("max_tokens");
    drawn = tokens.length ? null : ours;
    let count = 0, end = "";
    remember();
    tellCommand();
    [result.hidden, halt.disabled, more.disabled] = [false, false, true];
    [fault.textContent, state.textContent] = ["", "running…"];
    words.classList.add("running");
    try {
      // An empty prompt is the start of a text.
      const body = request((given || (tokens.length ? startToken : "")) + before, ours);
      const response = await ask("v1/completions", { ...body, logprobs: ALTERNATIVES, stream: true }, mine.signal);
      for await (const part of events(response)) {
        if (mine.signal.aborted) break;
        if (part.error) throw new Fault(part.error.message);
        for (const { logprobs, finish_reason: reason } of part.choices) {
          logprobs.tokens.forEach((token, i) => {
            const top = Object.entries(logprobs.top_logprobs[i]).sort(([, a], [, b]) => b - a);
            add({ token, logprob: logprobs.token_logprobs[i], top });
            count += 1;
          });
          if (reason) end = reason === "stop" ? "end of text" : count < most ? "the context is full" : "";
        }
      }
    } catch (error) {
      if (!mine.signal.aborted) complain(error);
    } finally {
      if (running === mine) {
        const seconds = (performance.now() - begun) / 1000, isDrawn = number("temperature") > 0;
        const speed = `${count} token${count === 1 ? "" : "s"} in ${seconds.toFixed(2)} s · ${(count / seconds).toFixed(0)} tokens/s`;
        state.textContent = [count && speed, mine.signal.aborted ? "stopped" : end, count && isDrawn && `seed ${ours}`].filter(Boolean).join(" · ");
        [running, halt.disabled, isDue] = [null, true, !gate.hidden];
        more.disabled = decoded(bytesBefore(tokens.length - parts)) === null;
        words.classList.remove("running");
      }
    }
  };
  const begin = () => {
    given = prompt.value;
    redraw([]);
    run();
  };
  // Which model it is.
  const greet = async () => {
    try {
      const { data: [model] } = await (await ask("v1/models")).json();
      startToken = (await (await ask("tokenizer_info")).json()).bos_token ?? "";
      about.textContent = line(`${model.id} · sees ${model.max_model_len} tokens`);
      document.title = line(`${model.id} · gpt2`);
      field("max_tokens").max = Math.min(model.max_model_len, SETTINGS.max_tokens[0].max);
      field("max_tokens").dispatchEvent(new Event("input", { bubbles: true }));
      if (isDue) begin();
    } catch (error) {
      complain(error);
    }
  };

  form.addEventListener("submit", (event) => { event.preventDefault(); begin(); });
  form.addEventListener("input", () => { drawn = null; tellCommand(); });
  form.addEventListener("change", remember);
  more.addEventListener("click", () => { redraw(tokens.slice(0, tokens.length - parts)); run(); });
  halt.addEventListener("click", () => running?.abort());
  gate.addEventListener("submit", (event) => {
    event.preventDefault();
    [key, gate.hidden, fault.textContent] = [secret.value, true, ""];
    tellCommand();
    greet();
  });
  copyCommand.addEventListener("click", () => copy(copyCommand, command.textContent));
  copyLink.addEventListener("click", () => copy(copyLink, location.href.split("#")[0] + fragment(ownSeed() ?? drawn) + "&run"));
  page.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); begin(); }
    if (event.key === "Escape") running?.abort();
  });
  const tokenAt = (event) => event.target.closest("[data-from]")?.dataset.from;
  words.addEventListener("pointerover", (event) => { if (tokenAt(event)) choose(tokenAt(event)); });
  words.addEventListener("pointerleave", () => { if (pin) choose(pin); });
  for (const kind of ["click", "focusin"]) {
    words.addEventListener(kind, (event) => { if (tokenAt(event)) choose(pin = tokenAt(event)); });
  }
  words.addEventListener("keydown", (event) => {
    const at = spans.indexOf(event.target);
    const next = spans[{ ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: spans.length - 1 }[event.key]];
    if (next) { event.preventDefault(); next.focus(); }
  });
  addEventListener("hashchange", () => { if (recall()) begin(); });

  isDue = recall();
  greet();
}
