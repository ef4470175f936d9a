// The buttons of the history chart. model.choices: [name], model.chosen: name or "", model.note: text, model.csv: address or ""
const { zone, element } = window.isotherm;

export function render({ model }) {
  const note = element("span", { class: "quiet", role: "status" });
  const file = element("a", { class: "file", download: "", title: "Download what is shown as a CSV file" }, "CSV");
  const buttons = model.choices.map((name) => {
    const button = element("button", { type: "button" }, name);
    button.addEventListener("click", () => model.send_msg(name));
    return button;
  });
  function draw() {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.textContent === model.chosen));
    note.textContent = model.note ? `${model.note} · times in ${zone}` : `times in ${zone}`;
    file.style.visibility = model.csv ? "visible" : "hidden";
    if (model.csv) file.href = model.csv;
  }
  for (const name of ["chosen", "note", "csv"]) model.on(name, draw);
  draw();
  return element("div", { class: "ranges" },
    element("strong", {}, "History"), element("span", { class: "choices", role: "group", "aria-label": "Range" }, ...buttons), note, file);
}
