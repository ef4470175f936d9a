// The lines of the comparison. model.rows: [{series, unit, color, dash, hidden, mean, min, max, newest}]; a click on a name
// shows or hides its line. It is a table beside the plot and never in it, where it would cover lines.
const { number, element } = window.isotherm;
const FIGURES = [["mean", "Mean"], ["min", "Min"], ["max", "Max"], ["newest", "Last"]];

export function render({ model }) {
  const body = element("tbody");
  const view = element("div", { class: "card part" }, element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Series" }, element("table", {},
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Series"),
      ...FIGURES.map(([, title]) => element("th", { scope: "col", class: "right" }, title)))), body)));
  let made = new Map();

  function build(series) {
    const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
    const button = element("button", { type: "button", class: "line" }, swatch, series);
    button.addEventListener("click", () => model.send_msg(series));
    const [device] = series.split("/");
    const link = element("a", { href: `/device?id=${encodeURIComponent(device)}&metric=${encodeURIComponent(series.slice(device.length + 1))}`,
      "aria-label": `Open ${device}`, title: `Open ${device}` }, "›");
    const cells = FIGURES.map(() => element("td", { class: "number right" }));
    return { row: element("tr", {}, element("td", { class: "wide" }, button, link), ...cells), button, swatch, cells };
  }

  function draw() {
    const before = made;
    made = new Map(model.rows.map((row) => [row.series, before.get(row.series) ?? build(row.series)]));
    const same = made.size === before.size && [...made.keys()].every((key) => before.has(key));
    if (!same) body.replaceChildren(...[...made.values()].map((one) => one.row));
    for (const row of model.rows) {
      const { button, swatch, cells } = made.get(row.series);
      button.setAttribute("aria-pressed", String(!row.hidden));
      swatch.style.borderTop = `3px ${row.dash} ${row.color}`;
      FIGURES.forEach(([name], at) => {
        const text = row[name] == null ? "–" : `${number(row[name])} ${row.unit}`.trim();
        if (cells[at].textContent !== text) cells[at].textContent = text;
      });
    }
    view.hidden = model.rows.length === 0;
  }

  model.on("rows", draw);
  draw();
  return view;
}
