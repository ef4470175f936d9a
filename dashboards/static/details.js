// Below the charts of a device. model.alarms: [{severity, message, start, end or null, status}], model.texts:
// [{name, text, time}], times in ms.
const { moment, utc, duration, now, element } = window.isotherm;

export function render({ model }) {
  const alarms = element("tbody");
  const attributes = element("tbody");
  const part = (title, head, body, id) => element("section", { class: "card part", "aria-labelledby": id, hidden: "" },
    element("h2", { id }, title),
    element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": `${title}, table` }, element("table", {},
      element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))), body)));
  const one = part("Alarms", ["Severity", "Alarm", "Raised", "Lasted", "Status"], alarms, "alarms-title");
  const other = part("Attributes", ["Name", "Value", "Said"], attributes, "attributes-title");
  const time = (ms) => element("time", { title: utc(ms) }, moment(ms));

  function drawAlarms() {
    one.hidden = model.alarms.length === 0;
    alarms.replaceChildren(...model.alarms.map((alarm) => element("tr", {},
      element("td", {}, element("span", { class: "severity", "data-severity": alarm.severity }, alarm.severity)),
      element("td", { class: "wide" }, alarm.message),
      element("td", {}, time(alarm.start)),
      element("td", { class: "number" }, duration((alarm.end ?? now()) - alarm.start)),
      element("td", {}, alarm.status))));
  }

  function drawAttributes() {
    other.hidden = model.texts.length === 0;
    attributes.replaceChildren(...model.texts.map((attribute) => element("tr", {},
      element("td", {}, attribute.name), element("td", { class: "wide" }, attribute.text), element("td", {}, time(attribute.time)))));
  }

  const ticking = setInterval(() => { if (model.alarms.some((alarm) => alarm.end == null)) drawAlarms(); }, 1000); // they last
  model.on("remove", () => clearInterval(ticking));
  model.on("alarms", drawAlarms);
  model.on("texts", drawAttributes);
  drawAlarms();
  drawAttributes();
  return element("div", { class: "parts" }, one, other);
}
