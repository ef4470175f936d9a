// What is compared. model.state:
//   {known, now, patterns: [{text, matches}], ranges: {name: last}, last, span (ms), query, csv, note, problem, loading, lines,
//    suggestions}
// It asks with {add: pattern}, {remove: pattern}, {last: range}.
const { clock, zone, duration, element } = window.isotherm;

export function render({ model }) {
  const problem = element("p", { class: "problem", role: "status", hidden: "" });
  const field = element("input", { type: "search", list: "patterns", placeholder: "Add series: room-*/temperature",
    "aria-label": "Series to add, * stands for any text", autocomplete: "off", spellcheck: "false" });
  const offered = element("datalist", { id: "patterns" });
  const form = element("form", { class: "bar" }, field, offered, element("button", { class: "main" }, "Add"));
  const chips = element("div", { class: "chips", role: "group", "aria-label": "Compared series" });
  const ranges = element("span", { class: "choices", role: "group", "aria-label": "Range" });
  const status = element("span", { class: "quiet", role: "status" });
  const copy = element("button", { type: "button", class: "file" }, "Copy link");
  const file = element("a", { class: "file", download: "", title: "Download what is shown as a CSV file" }, "CSV");
  const note = element("p", { class: "note", role: "status" });
  const empty = element("div", { class: "card empty", hidden: "" },
    element("h2", {}, "Choose what to compare"),
    element("span", { class: "quiet" }, "A series is device/metric; * stands for any text."),
    element("div", { class: "chips" }));
  const view = element("div", {}, problem, element("a", { class: "trail", href: "/" }, "‹ Fleet"),
    element("div", { class: "bar" }, element("h1", {}, "Compare")), form, chips,
    element("div", { class: "ranges" }, ranges, status, copy, file), note, empty);
  let buttons = [];

  function draw() {
    const state = model.state;
    clock(state.now);
    problem.hidden = !state.problem;
    problem.textContent = state.problem;
    if (buttons.length === 0) {
      buttons = Object.entries(state.ranges).map(([name, last]) => {
        const button = element("button", { type: "button" }, name);
        button.last = last;
        button.addEventListener("click", () => model.send_msg({ last }));
        return button;
      });
      ranges.append(...buttons);
    }
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.last === state.last));
    chips.replaceChildren(...state.patterns.map(chip));
    if (state.known && offered.childElementCount !== state.suggestions.length) {
      offered.replaceChildren(...state.suggestions.map((value) => element("option", { value })));
      empty.lastChild.replaceChildren(...state.suggestions.slice(0, 6).map((text) => {
        const button = element("button", { type: "button", class: "tag" }, text);
        button.addEventListener("click", () => model.send_msg({ add: text }));
        return button;
      }));
    }
    const nothing = state.known && state.patterns.length === 0;
    empty.hidden = !nothing;
    document.body.dataset.compare = nothing ? "nothing" : "something";
    const said = nothing ? "" : `${state.lines} series over ${duration(state.span)} · times in ${zone}`;
    status.textContent = !state.known || state.loading ? "Loading…" : said;
    note.textContent = state.note;
    file.style.visibility = state.csv ? "visible" : "hidden";
    if (state.csv) file.href = state.csv;
    if (location.search.slice(1) !== state.query) history.replaceState(history.state, "", `?${state.query}`);
  }

  function chip({ text, matches }) {
    const remove = element("button", { type: "button", "aria-label": `Remove ${text}` }, "×");
    remove.addEventListener("click", () => { model.send_msg({ remove: text }); field.focus(); });
    const found = matches === 0 ? element("span", { class: "none" }, "matches nothing") : "";
    return element("span", { class: "tag" }, text, found, remove);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (field.value.trim()) model.send_msg({ add: field.value.trim() });
    field.value = "";
  });
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      copy.textContent = "Copied";
    } catch (error) { // only pages that came by HTTPS, or from this machine, may write there
      console.debug("isotherm: no clipboard", error);
      prompt("The address of this view", location.href);
    }
    setTimeout(() => { copy.textContent = "Copy link"; }, 2000);
  });
  model.on("state", draw);
  draw();
  model.send_msg("ready");
  return view;
}
