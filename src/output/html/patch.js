function start(data) {
  const page = document.getElementById("page");
  heading(`Patching ${data.what}`, `${data.model} · ${isolated(data.question)}`);
  page.append(element("p", { class: "muted" },
    "Each cell is a run of the corrupt prompt with one activation of the clean one: 0% is as the corrupt run, 100% as the clean one. Point at a cell, or move with the arrow keys."));
  const columns = data.values[0]?.length ?? 0;
  const shown = (layer, i) => (data.shares[layer][i] === null ? data.values[layer][i].toFixed(2) : (Math.round(100 * data.shares[layer][i]) || 0) + "%");
  const table = element("table", { class: "patch", "aria-label": "patched runs: a row for each layer" });
  const head = (name, labels, other) => table.append(element("tr", {}, element("th", { scope: "row" }, name),
    ...labels.map((label, i) => element("th", { scope: "col", class: "mono" + (other && label !== other[i] ? " differs" : "") }, isolated(label)))));
  if (data.heads) head("head", Array.from({ length: columns }, (_, i) => String(i)));
  else { head("clean", data.clean, data.corrupt); head("corrupt", data.corrupt, data.clean); }
  const cells = data.values.map((row, layer) => {
    const cells = row.map((value, i) => {
      const share = Math.max(-1, Math.min(1, data.shares[layer][i] ?? 0));
      const colour = share < 0 ? `rgba(var(--against), ${(-share).toFixed(3)})` : accent(share);
      const cell = element("td", { tabindex: layer || i ? -1 : 0, style: { background: colour } }, shown(layer, i));
      if (Math.abs(share) > 0.7) cell.classList.add("strong");
      cell.dataset.at = `${layer},${i}`;
      return cell;
    });
    table.append(element("tr", {}, element("th", { scope: "row" }, `layer ${layer}`), ...cells));
    return cells;
  });
  const at = (event) => event.target.closest("td")?.dataset.at?.split(",").map(Number);
  const tell = (event) => {
    const place = at(event);
    if (!place) return tip.hide();
    const [layer, i] = place;
    tip.show(event, element("h3", {}, data.heads ? `layer ${layer}, head ${i}` : `layer ${layer}, position ${i}`),
      data.heads ? "" : element("p", { class: "mono" }, data.clean[i] === data.corrupt[i] ? isolated(data.clean[i]) : `${isolated(data.clean[i])} into ${isolated(data.corrupt[i])}`),
      element("p", {}, `difference of logits ${data.values[layer][i].toFixed(4)}, ${shown(layer, i)}`));
  };
  for (const kind of ["pointermove", "pointerdown", "focusin"]) table.addEventListener(kind, tell);
  table.addEventListener("pointerleave", tip.hide);
  table.addEventListener("focusout", tip.hide);
  table.addEventListener("keydown", (event) => {
    const place = at(event), step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const next = place && step && cells[place[0] + step[0]]?.[place[1] + step[1]];
    if (!next) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  page.append(element("div", { class: "wide" }, table));
}
