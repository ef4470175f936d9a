// The table of alarms. The server sends
//   {kind: "alarms", now (ms), may: the visitor may change things, known: the store has answered once, problem: text or null,
//    count: of all alarms, rules: how many are enabled, unwatched: why none of them is evaluated, or "",
//    changed: [row], gone: [key]}
//   row: {key, rule, device, metric, severity, since, cleared (µs, 0 while active), times, message, value, unit,
//         acknowledged: {by, time, note} or null, shelved: {by, until, key} or null}
// and is sent {do: "acknowledge", alarms: [[key, since]], note}, {do: "shelve", key, seconds}, {do: "unshelve", key}.
const { clock, now, number, ago, span, utc, moment, element, asker, dialog } = window.isotherm;

const SEVERITIES = ["critical", "major", "minor", "warning", "info"];
const STATES = {
  attention: ["Needs attention", (one) => !one.shelved && (!one.cleared || !one.acknowledged)],
  raised: ["Raised", (one) => !one.cleared && !one.acknowledged && !one.shelved],
  acknowledged: ["Acknowledged", (one) => one.acknowledged && !one.cleared],
  cleared: ["Cleared", (one) => one.cleared > 0],
  shelved: ["Shelved", (one) => one.shelved],
  all: ["All", () => true],
};
const SHELVES = [["30 min", 1800], ["2 h", 7200], ["8 h", 28800], ["1 d", 86400], ["7 d", 604800]];
const DRAWN = 200; // rows that the table has at first; a button brings the others
const TOLD = 3;    // alarms that are read out one by one when they come together

export function render({ model }) {
  const ask = asker(model);
  const alarms = new Map();  // key → row
  const built = new Map();   // key → {row, line, ticking: [[element, text()]]}
  const chosen = new Set();  // keys
  let facts = { known: false, count: 0, rules: 0, may: false };
  let limit = DRAWN;

  const problem = element("p", { class: "problem", role: "status", hidden: "" });
  const count = element("span", { class: "quiet" }, "Loading…");
  const state = select("State", Object.entries(STATES).map(([value, [name]]) => [value, name]));
  const severity = select("Severity", [["info", "Any severity"], ...SEVERITIES.slice(0, -1).map((name, place) =>
    [name, place ? `${capital(name)} or worse` : "Critical only"])]);
  const order = select("Order", [["worst", "Worst first"], ["newest", "Newest first"]]);
  const search = element("input", { type: "search", placeholder: "Filter alarms", "aria-label": "Filter alarms" });
  const many = element("button", { type: "button", class: "button", hidden: "" });
  const all = element("input", { type: "checkbox", "aria-label": "Choose all alarms shown" });
  const body = element("tbody", { role: "rowgroup" });
  const table = element("table", { class: "list alarms", role: "table", "aria-label": "Alarms" },
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" },
      heading(all, "choose"), heading("Severity"), heading("Alarm"), heading("Value", "amount"), heading("State"),
      heading("Raised"), heading("Lasted"), heading(element("span", { class: "unseen" }, "Actions")))), body);
  const more = element("button", { type: "button", class: "button more", hidden: "" });
  const card = element("div", { class: "card", hidden: "" }, table, more);
  const empty = element("div", { class: "card empty", hidden: "" });
  const said = element("p", { class: "said", role: "status" });
  const told = element("div", { class: "unseen", "aria-live": "polite" });
  const view = element("div", {}, problem,
    element("div", { class: "bar" }, element("h1", {}, "Alarms"), count, many, state, severity, order, search),
    said, card, empty, told);

  function select(name, options) {
    return element("select", { "aria-label": name }, ...options.map(([value, text]) => element("option", { value }, text)));
  }

  function heading(text, kind) {
    return element("th", { scope: "col", role: "columnheader", class: kind }, text);
  }

  function take(data) {
    clock(data.now);
    const first = !facts.known && data.known;
    facts = data;
    const news = [];
    for (const row of data.changed) {
      const before = alarms.get(row.key);
      if (!first && !row.cleared && !row.shelved && (!before || before.since !== row.since)) news.push(row);
      alarms.set(row.key, row);
    }
    for (const key of data.gone) { alarms.delete(key); chosen.delete(key); }
    problem.hidden = data.problem == null && !data.unwatched;
    problem.textContent = data.problem != null ? "The store does not answer. What is shown is what was known; it goes on by itself."
      : `No rule is evaluated now. ${data.unwatched}`;
    arrange();
    tell(news);
  }

  function tell(news) {
    if (news.length === 0) return;
    const words = news.slice(0, TOLD).map((row) => `New ${row.severity} alarm: ${row.message}`);
    if (news.length > TOLD) words.push(`and ${news.length - TOLD} more`);
    told.textContent = words.join(". ");
  }

  function wanted() {
    const words = search.value.trim().toLowerCase();
    const worst = SEVERITIES.slice(0, SEVERITIES.indexOf(severity.value) + 1);
    const [, fits] = STATES[state.value];
    const found = [...alarms.values()].filter((one) => fits(one) && worst.includes(one.severity)
      && (!words || `${one.key} ${one.message} ${one.severity}`.toLowerCase().includes(words)));
    const rank = (one) => (order.value === "newest" ? 0 : (one.cleared ? 10 : 0) + SEVERITIES.indexOf(one.severity));
    return found.sort((a, b) => rank(a) - rank(b) || b.since - a.since || (a.key < b.key ? -1 : 1));
  }

  function arrange() {
    const rows = wanted();
    const shown = rows.slice(0, limit);
    const focus = focused();
    const lines = shown.map((row) => {
      const held = built.get(row.key);
      if (held?.row === row) return held.line;
      const made = build(row);
      built.set(row.key, made);
      return made.line;
    });
    for (const key of built.keys()) if (!alarms.has(key)) built.delete(key);
    if (lines.length !== body.children.length || lines.some((line, place) => body.children[place] !== line)) {
      body.replaceChildren(...lines);
    }
    restore(focus);
    for (const key of chosen) if (!shown.some((row) => row.key === key && pending(row))) chosen.delete(key);
    card.hidden = rows.length === 0;
    more.hidden = rows.length <= limit;
    more.textContent = `Show ${Math.min(DRAWN, rows.length - limit)} more of ${rows.length}`;
    card.dataset.may = String(facts.may);
    explain(rows.length);
    mark();
    tick();
    const waiting = [...alarms.values()].filter(STATES.raised[1]).length;
    const over = facts.count > alarms.size ? `; the first ${alarms.size} are listed` : "";
    if (facts.known) count.textContent = facts.count ? `${facts.count} in all, ${waiting} raised and not acknowledged${over}` : "none";
    for (const field of [state, severity, order, search]) field.hidden = facts.known && facts.count === 0;
    document.title = waiting ? `(${waiting}) Alarms · Isotherm` : "Alarms · Isotherm";
  }

  const pending = (row) => !row.acknowledged;

  function focused() {
    const at = view.getRootNode().activeElement;
    const line = at?.closest?.("tr[data-key]");
    return line ? { key: line.dataset.key, act: at.dataset.act } : null;
  }

  function restore(focus) {
    if (!focus) return;
    const line = built.get(focus.key)?.line;
    if (line?.isConnected) (line.querySelector(`[data-act="${focus.act}"]`) ?? line.querySelector("a"))?.focus();
  }

  function build(row) {
    const ticking = [];
    const words = (text, attributes) => {
      const made = element("time", attributes, text());
      ticking.push([made, text]);
      return made;
    };
    const since = row.since / 1000;
    const box = element("input", { type: "checkbox", "data-act": "choose", "aria-label": `Choose ${row.key}` });
    box.checked = chosen.has(row.key);
    box.hidden = !pending(row);
    box.addEventListener("change", () => { chosen[box.checked ? "add" : "delete"](row.key); mark(); });
    const href = `/device?id=${encodeURIComponent(row.device)}${row.metric ? `&metric=${encodeURIComponent(row.metric)}` : ""}`;
    const value = row.value == null ? "" : row.unit ? `${number(row.value)} ${row.unit}` : number(row.value);
    const line = element("tr", { role: "row", "data-key": row.key, "data-severity": row.severity,
      class: row.cleared || row.shelved ? "past" : null },
    cell("choose", box),
    cell("grade", element("span", { class: `severity ${row.severity}` }, row.severity)),
    cell("what", element("a", { href }, row.device), row.metric ? ` ${row.metric}` : "",
      element("div", { class: "quiet" }, row.message)),
    cell("amount number", value),
    cell("state", ...stateOf(row)),
    cell("since", words(() => ago(since), { title: utc(since), datetime: new Date(since).toISOString() }),
      element("div", { class: "quiet" }, moment(since))),
    cell("lasted", words(() => span((row.cleared ? row.cleared / 1000 : now()) - since)),
      ...(row.times > 1 ? [element("div", { class: "quiet" }, `${row.times} times`)] : [])),
    cell("acts", ...(pending(row) ? [button("acknowledge", "Acknowledge", () => acknowledge([row]))] : []),
      row.shelved ? button("unshelve", "Unshelve", () => unshelve(row)) : button("shelve", "Shelve", () => shelve(row))));
    return { row, line, ticking };
  }

  function cell(kind, ...children) {
    return element("td", { role: "cell", class: kind }, ...children);
  }

  function button(act, text, does) {
    const made = element("button", { type: "button", class: "button", "data-act": act }, text);
    made.addEventListener("click", does);
    return made;
  }

  function stateOf(row) {
    const seen = row.acknowledged;
    const parts = [element("span", { class: `stage ${row.cleared ? "cleared" : seen ? "seen" : "raised"}` },
      row.cleared ? (seen ? "Cleared, acknowledged" : "Cleared") : seen ? "Acknowledged" : "Raised")];
    if (seen) {
      parts.push(element("div", { class: "quiet", title: utc(seen.time / 1000) },
        `by ${seen.by}, ${moment(seen.time / 1000)}${seen.note ? `: ${seen.note}` : ""}`));
    }
    if (row.shelved) {
      const until = row.shelved.until / 1000;
      parts.push(element("div", { class: "quiet", title: utc(until) }, `shelved by ${row.shelved.by} until ${moment(until)}`));
    }
    return parts;
  }

  function tick() {
    for (const line of body.children) {
      for (const [where, text] of built.get(line.dataset.key)?.ticking ?? []) {
        const words = text();
        if (where.textContent !== words) where.textContent = words;
      }
    }
  }

  function mark() {
    const boxes = [...body.querySelectorAll("input[type=checkbox]:not([hidden])")];
    all.disabled = boxes.length === 0;
    all.checked = boxes.length > 0 && boxes.every((box) => box.checked);
    all.indeterminate = !all.checked && boxes.some((box) => box.checked);
    many.hidden = chosen.size === 0 || !facts.may;
    many.textContent = `Acknowledge ${chosen.size}`;
  }

  function explain(shown) {
    empty.hidden = shown > 0 || !facts.known;
    if (empty.hidden) return;
    if (facts.count > 0) {
      const reset = element("button", { type: "button", class: "button" }, "Show all");
      reset.addEventListener("click", () => { state.value = "all"; severity.value = "info"; search.value = ""; filter(); });
      empty.replaceChildren(element("h2", {}, state.value === "attention" && !search.value ? "Nothing needs attention" : "No alarm matches"),
        element("p", {}, `${facts.count} ${facts.count === 1 ? "alarm is" : "alarms are"} not shown with this filter.`), reset);
      return;
    }
    const parts = [element("h2", {}, "No alarms")];
    if (facts.rules) {
      const text = `${facts.rules} ${facts.rules === 1 ? "rule is" : "rules are"}`;
      parts.push(element("p", {}, facts.unwatched ? `${text} waiting to be evaluated.` : `${text} evaluated; what they raise comes here by itself.`));
    }
    else {
      parts.push(element("p", {}, "There is no rule yet that says when to raise one."));
      if (facts.may) {
        const add = element("button", { type: "button", class: "button main" }, "Add a rule");
        add.addEventListener("click", () => dispatchEvent(new CustomEvent("isotherm:add-rule")));
        parts.push(add);
      } else parts.push(element("p", {}, "An operator may add one."));
    }
    empty.replaceChildren(...parts);
  }

  async function done(request) {
    const answer = await ask(request);
    if (answer.error) throw new Error(answer.error);
    said.textContent = answer.done;
  }

  function acknowledge(rows) {
    const note = element("textarea", { rows: "3", maxlength: "500", "aria-label": "Note", placeholder: "Note (may be left out)" });
    const what = rows.length === 1 ? rows[0].message : `${rows.length} alarms, as they are shown now.`;
    dialog(view, rows.length === 1 ? "Acknowledge this alarm" : `Acknowledge ${rows.length} alarms`,
      [element("p", {}, what), note], "Acknowledge", async () => {
        await done({ do: "acknowledge", alarms: rows.map((row) => [row.key, row.since]), note: note.value.trim() });
        chosen.clear();
      });
  }

  function shelve(row) {
    const spans = select("For how long", SHELVES.map(([name, seconds]) => [String(seconds), name]));
    const which = select("Which alarms", [[row.key, "This alarm only"], [row.rule, `Every alarm of the rule ${row.rule}`]]);
    dialog(view, "Shelve", [element("p", {}, `Nobody hears of it for a while, however often it is raised: ${row.message}`),
      element("label", {}, "For", spans), element("label", {}, "Which", which)], "Shelve",
    () => done({ do: "shelve", key: which.value, seconds: Number(spans.value) }));
  }

  function unshelve(row) {
    const key = row.shelved.key;
    const what = key === row.rule ? `Every alarm of the rule ${row.rule} is heard of again.` : row.message;
    dialog(view, "Unshelve", [element("p", {}, what)], "Unshelve", () => done({ do: "unshelve", key }));
  }

  // The filter is part of the address: a link or a reload brings it back.
  const fields = { state, severity, order, search };
  function filter() {
    limit = DRAWN;
    const kept = new URLSearchParams(Object.entries(fields).map(([name, field]) => [name, field.value]).filter(([name, value]) =>
      value !== { state: "attention", severity: "info", order: "worst", search: "" }[name]));
    history.replaceState(null, "", kept.size ? `#${kept}` : location.pathname + location.search);
    arrange();
  }
  const kept = new URLSearchParams(location.hash.slice(1));
  for (const [name, field] of Object.entries(fields)) {
    const value = kept.get(name);
    if (value !== null && (field === search || [...field.options].some((one) => one.value === value))) field.value = value;
    field.addEventListener("input", filter);
  }
  all.addEventListener("change", () => {
    for (const line of body.children) {
      const box = line.querySelector("input[type=checkbox]");
      if (box.hidden || box.checked === all.checked) continue;
      box.checked = all.checked;
      chosen[box.checked ? "add" : "delete"](line.dataset.key);
    }
    mark();
  });
  many.addEventListener("click", () => acknowledge([...chosen].map((key) => alarms.get(key)).filter(Boolean)));
  more.addEventListener("click", () => { limit += DRAWN; arrange(); });
  const ticking = setInterval(tick, 1000);
  model.on("remove", () => clearInterval(ticking));
  model.on("msg:custom", (data) => { if (data.kind === "alarms") take(data); });
  model.send_msg("ready");
  return view;
}

const capital = (word) => word[0].toUpperCase() + word.slice(1);
