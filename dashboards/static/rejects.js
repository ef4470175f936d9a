// The newest rejects. The server sends
//   {kind: "reasons", reasons: {reason: count}}
//   {kind: "rejects", now (ms), problem: why Kafka cannot be asked, rows: newest first, when there are others than before}
//   row: {id, reason, detail, protocol, peer, device, received (µs), size, kept (bytes), count}
// and is sent {do: "bytes", id}; the answer's done is the original as text.
const { clock, ago, utc, moment, element, asker } = window.isotherm;
const whole = new Intl.NumberFormat();

export function render({ model }) {
  const ask = asker(model);
  let rows = null;
  let chosen = "";
  let reasons = {};
  const times = new Map(); // <time> → ms

  const note = element("span", { class: "quiet" }, "Loading…");
  const problem = element("p", { class: "problem", role: "status", hidden: "" });
  const chips = element("div", { class: "chips", role: "group", "aria-label": "Reasons" });
  const body = element("tbody", { role: "rowgroup" });
  const heads = ["Received", "Reason", "From", "Device", "What was wrong", "Bytes"].map((name) =>
    element("th", { scope: "col", role: "columnheader", class: name === "Bytes" ? "amount" : null }, name));
  const card = element("div", { class: "card", hidden: "" }, element("table", { class: "list rejects", role: "table", "aria-label": "Newest rejects" },
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...heads)), body));
  const empty = element("div", { class: "card empty", hidden: "" }, element("h2", {}, "Nothing was refused"),
    element("p", {}, "What cannot be accepted is kept, and shown here with its reason and its bytes."));
  const view = element("div", { class: "rejects-part" },
    element("div", { class: "bar" }, element("h2", {}, "Rejects"), note), chips, problem, card, empty);

  function count() {
    const found = Object.entries(reasons).sort(([, a], [, b]) => b - a);
    if (!found.some(([reason]) => reason === chosen)) chosen = "";
    const words = JSON.stringify([found, chosen]);
    if (chips.dataset.words === words) return;
    chips.dataset.words = words;
    const focus = view.getRootNode().activeElement?.dataset?.reason;
    chips.replaceChildren(...found.map(([reason, times]) => {
      const chip = element("button", { type: "button", class: "chip", "data-reason": reason, "aria-pressed": String(reason === chosen) },
        `${reason} `, element("span", { class: "number" }, whole.format(times)));
      chip.addEventListener("click", () => { chosen = reason === chosen ? "" : reason; count(); draw(); });
      return chip;
    }));
    if (focus) chips.querySelector(`[data-reason="${CSS.escape(focus)}"]`)?.focus();
  }

  function draw() {
    if (rows === null) return;
    const shown = rows.filter((row) => !chosen || row.reason === chosen);
    const open = new Set([...body.querySelectorAll("[aria-expanded=true]")].map((one) => one.dataset.id));
    times.clear();
    body.replaceChildren(...shown.flatMap((row) => lines(row, open.has(row.id))));
    card.hidden = shown.length === 0;
    empty.hidden = rows.length > 0 || Object.keys(reasons).length > 0;
    note.textContent = rows.length === 0 ? (empty.hidden ? "none are kept in Kafka any more" : "")
      : shown.length === 0 ? `none of the newest ${rows.length} is for this reason; see: isotherm rejects list --reason ${chosen}`
        : `the newest ${shown.length}`;
  }

  function lines(row, isOpen) {
    const received = row.received / 1000;
    const when = element("time", { title: `${moment(received)}, ${utc(received)}` }, ago(received));
    times.set(when, received);
    const bytes = element("pre", { tabindex: "0" }, "…");
    const under = element("tr", { role: "row", class: "bytes", hidden: "" }, element("td", { role: "cell", colspan: "6" }, bytes));
    const toggle = element("button", { type: "button", class: "button", "aria-expanded": "false", "data-id": row.id,
      "aria-label": `Bytes of reject ${row.id}` }, whole.format(row.size));
    const open = async () => {
      toggle.setAttribute("aria-expanded", "true");
      under.hidden = false;
      const answer = await ask({ do: "bytes", id: row.id });
      const cut = row.kept < row.size ? `\n… the first ${whole.format(row.kept)} of ${whole.format(row.size)} bytes; all that are kept: isotherm rejects show ${row.id}` : "";
      bytes.textContent = answer.error ?? answer.done + cut;
      bytes.classList.toggle("dump", bytes.textContent.startsWith("00000000  "));
    };
    toggle.addEventListener("click", () => {
      if (under.hidden) open();
      else { under.hidden = true; toggle.setAttribute("aria-expanded", "false"); }
    });
    if (isOpen) open();
    const device = row.device ? element("a", { href: `/device?id=${encodeURIComponent(row.device)}` }, row.device) : "";
    const cells = [["when", when], ["reason", element("span", { class: "tag" }, row.reason)],
      ["from", row.protocol, element("div", { class: "quiet" }, row.peer)], ["device", device],
      ["detail", row.detail, ...(row.count > 1 ? [element("div", { class: "quiet" }, `${row.count} inputs`)] : [])], ["amount", toggle]];
    return [element("tr", { role: "row" }, ...cells.map(([kind, ...children]) => element("td", { role: "cell", class: kind }, ...children))), under];
  }

  function take(data) {
    if (data.kind === "reasons") {
      ({ reasons } = data);
      count();
      return;
    }
    if (data.kind !== "rejects") return;
    clock(data.now);
    problem.hidden = data.problem == null;
    problem.textContent = `${data.problem}: the bytes of what was refused are there. The rest of this page goes on.`;
    if (data.problem != null && rows === null) note.textContent = "";
    if (data.rows) { rows = data.rows; draw(); }
  }

  const ticking = setInterval(() => {
    for (const [when, time] of times) {
      const words = ago(time);
      if (when.textContent !== words) when.textContent = words;
    }
  }, 1000);
  model.on("remove", () => clearInterval(ticking));
  model.on("msg:custom", take);
  model.send_msg("ready");
  return view;
}
