// The buttons of the history chart. model.choices: [name], model.chosen: name or "", model.note: text
const { zone, element } = window.isotherm;

export function render({ model }) {
  const note = element("span", { class: "quiet", role: "status" });
  const buttons = model.choices.map((name) => {
    const button = element("button", { type: "button" }, name);
    button.addEventListener("click", () => model.send_msg(name));
    return button;
  });
  function draw() {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.textContent === model.chosen));
    note.textContent = model.note ? `${model.note} · times in ${zone}` : `times in ${zone}`;
  }
  model.on("chosen", draw);
  model.on("note", draw);
  draw();
  return element("div", { class: "ranges" },
    element("strong", {}, "History"), element("span", { class: "choices" }, ...buttons), note);
}
