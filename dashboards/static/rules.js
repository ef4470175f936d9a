// The rules, and the form in which one is written. The server sends
//   {kind: "rules", may, rules: [form with about, condition, base], broken: [text]}
// and is sent {do: "save", form, base, anyway}, {do: "enable", id, enabled}, {do: "remove", id}, {do: "preview", form},
// {do: "stop"}. An answer has done, error, or fields: {name: what is wrong}; that of a preview has
//   done: {count, alarms: [{device, metric, raised, cleared (ISO), message}], series, readings, coarsest (µs), skipped}.
const { now, ago, span, utc, moment, element, asker, dialog } = window.isotherm;

const KINDS = { threshold: "Threshold", rate: "Rate of change", silence: "Silence", expression: "Expression" };
const LIMITS = ["threshold", "rate"];
const HELD = ["threshold", "rate", "expression"];
const DAY = 86_400_000;
// name, label, hint, kinds that have it (all without)
const FIELDS = {
  what: [
    ["id", "Id", "kitchen-hot", null],
    ["name", "Name", "What people call it", null],
    ["metric", "Metric", "temperature, or a pattern: bme280/*", ["threshold", "rate", "silence"]],
    ["devices", "Devices", "All; or a device, or a pattern: room-*", null],
    ["label", "Label", "Any; a word, or key=value", null],
    ["type", "Type", "Any", null],
  ],
  when: [
    ["above", "Above", "30", LIMITS],
    ["below", "Below", "5", LIMITS],
    ["hysteresis", "Hysteresis", "2: cleared so far inside", LIMITS],
    ["clear_above", "Clear at or below", "instead of hysteresis", LIMITS],
    ["clear_below", "Clear at or above", "instead of hysteresis", LIMITS],
    ["per", "Change per", ["second", "minute", "hour"], ["rate"]],
    ["window", "Measured over", "1m", ["rate"]],
    ["silence", "Nothing came for", "10m", ["silence"]],
    ["expression", "Is true", "temperature > 30 and humidity < 20", ["expression"]],
    ["hold", "For at least", "at once; or 5m", HELD],
    ["clear_after", "Cleared after", "at once; or 1m", HELD],
  ],
  said: [
    ["severity", "Severity", ["critical", "major", "minor", "warning", "info"], null],
    ["message", "Message", "{device}: {metric} is {value} {unit}, limit {threshold}", null],
  ],
};
const WIDE = ["expression", "message"];

export function render({ model }) {
  const ask = asker(model);
  let rules = [];
  let may = false;

  const count = element("span", { class: "quiet" }, "");
  const add = element("button", { type: "button", class: "button main", hidden: "" }, "Add a rule");
  const body = element("tbody", { role: "rowgroup" });
  const table = element("table", { class: "list rules", role: "table", "aria-label": "Rules" },
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" },
      ...["Rule", "Severity", "Devices", "Raised when", "Evaluated"].map((name) =>
        element("th", { scope: "col", role: "columnheader" }, name)),
      element("th", { scope: "col", role: "columnheader" }, element("span", { class: "unseen" }, "Actions")))), body);
  const card = element("div", { class: "card", hidden: "" }, table);
  const broken = element("div", {});
  const said = element("p", { class: "said", role: "status" });
  const view = element("div", { class: "rules-part", hidden: "" },
    element("div", { class: "bar" }, element("h2", {}, "Rules"), count, add), said, broken, card);

  function draw(data) {
    ({ rules, may } = data);
    view.hidden = false; // below the alarms, which are there by now: it does not jump
    add.hidden = !may;
    card.hidden = rules.length === 0;
    count.textContent = rules.length ? `${rules.length}, ${rules.filter((one) => one.enabled).length} evaluated` : "none yet";
    broken.replaceChildren(...data.broken.map((text) => element("p", { class: "problem" }, text)));
    const at = view.getRootNode().activeElement;
    const focus = at?.closest?.("tr[data-id]") && { id: at.closest("tr").dataset.id, act: at.dataset.act };
    body.replaceChildren(...rules.map(line));
    if (focus) body.querySelector(`tr[data-id="${CSS.escape(focus.id)}"] [data-act="${focus.act}"]`)?.focus();
  }

  function line(rule) {
    const on = element("button", { type: "button", class: "switch", role: "switch", "aria-checked": String(rule.enabled),
      "aria-label": `Evaluate ${rule.id}`, "data-act": "switch", disabled: may ? null : "" });
    on.addEventListener("click", () => plain({ do: "enable", id: rule.id, enabled: !rule.enabled }));
    const cells = [
      ["what", element("strong", {}, rule.name || rule.id), ...(rule.name ? [element("div", { class: "quiet" }, rule.id)] : [])],
      ["grade", element("span", { class: `severity ${rule.severity}` }, rule.severity)],
      ["about", rule.about], ["condition", rule.condition], ["on", on],
      ["acts", ...(may ? [button("edit", "Edit", () => edit(rule)), button("remove", "Remove", () => remove(rule))] : [])],
    ];
    return element("tr", { role: "row", "data-id": rule.id, class: rule.enabled ? null : "past" },
      ...cells.map(([kind, ...children]) => element("td", { role: "cell", class: kind }, ...children)));
  }

  function button(act, text, does) {
    const made = element("button", { type: "button", class: "button", "data-act": act }, text);
    made.addEventListener("click", does);
    return made;
  }

  async function plain(request) {
    const answer = await ask(request);
    said.textContent = answer.error ?? answer.done;
    said.classList.toggle("wrong", Boolean(answer.error));
    return answer;
  }

  function remove(rule) {
    dialog(view, `Remove ${rule.id}?`, [element("p", {}, `${rule.condition}. Its alarms are cleared.`)], "Remove", async () => {
      const answer = await ask({ do: "remove", id: rule.id });
      if (answer.error) throw new Error(answer.error);
      said.textContent = answer.done;
    });
  }

  function edit(rule) {
    const inputs = {};
    const fields = {};
    const kind = element("div", { class: "choices", role: "group", "aria-label": "Kind of rule" },
      ...Object.entries(KINDS).map(([name, text]) => {
        const made = element("button", { type: "button", "data-kind": name }, text);
        made.addEventListener("click", () => choose(name));
        return made;
      }));
    let chosen = rule?.kind ?? "threshold";

    function field([name, label, hint]) {
      const wrong = element("span", { class: "wrong", id: `wrong-${name}` });
      const input = Array.isArray(hint)
        ? element("select", { name }, ...hint.map((one) => element("option", { value: one }, one)))
        : element("input", { name, placeholder: hint, autocomplete: "off", spellcheck: "false", "aria-describedby": wrong.id });
      input.value = rule ? String(rule[name] || (Array.isArray(hint) ? hint[0] : "")) : name === "severity" ? "warning" : Array.isArray(hint) ? hint[0] : "";
      if (rule && name === "devices" && rule.devices === "*") input.value = "";
      if (rule && name === "id") input.readOnly = true;
      input.addEventListener("input", () => mark(name, ""));
      inputs[name] = input;
      fields[name] = element("label", { class: WIDE.includes(name) ? "wide" : null }, label, input, wrong);
      return fields[name];
    }

    const group = (legend, list) => element("fieldset", {}, element("legend", {}, legend), element("div", { class: "grid" }, ...list.map(field)));
    const enabled = element("input", { type: "checkbox", name: "enabled" });
    enabled.checked = rule ? rule.enabled : true;
    const trial = element("div", { class: "trial", "aria-live": "polite" });
    const tryIt = element("button", { type: "button", class: "button" }, "Preview over the last day");
    const parts = [kind, group("What it watches", FIELDS.what), group("Raised when", FIELDS.when), group("What is said", FIELDS.said),
      element("label", { class: "check" }, enabled, "Evaluate it"), tryIt, trial];

    function choose(name) {
      chosen = name;
      for (const one of kind.children) one.setAttribute("aria-pressed", String(one.dataset.kind === name));
      for (const [field, , , kinds] of Object.values(FIELDS).flat()) fields[field].hidden = kinds !== null && !kinds.includes(name);
    }

    function mark(name, text) {
      fields[name].lastChild.textContent = text;
      inputs[name].setAttribute("aria-invalid", String(text !== ""));
    }

    function form() {
      return { kind: chosen, enabled: enabled.checked, ...Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value])) };
    }

    // What is wrong goes to its field; the first of them gets the focus. Throws what belongs to none.
    function check(answer) {
      for (const name of Object.keys(inputs)) mark(name, answer.fields?.[name] ?? "");
      const first = Object.keys(inputs).find((name) => answer.fields?.[name] && !fields[name].hidden);
      if (first) inputs[first].focus();
      if (answer.fields) {
        const rest = Object.entries(answer.fields).filter(([name]) => !inputs[name] || fields[name].hidden).map(([, text]) => text);
        throw new Error(rest.join("; ") || "Look at what is marked.");
      }
      if (answer.error) throw new Error(answer.error);
    }

    let anyway = false;
    const shown = dialog(view, rule ? `Rule ${rule.id}` : "A new rule", parts, "Save", async () => {
      const answer = await ask({ do: "save", form: form(), base: rule?.base ?? "", anyway });
      anyway = Boolean(answer.anyway);
      shown.main.textContent = anyway ? "Save anyway" : "Save";
      check(answer);
      said.textContent = answer.done;
    }, "form");
    let number = 0; // of the newest preview: an older one's answer is of no use any more
    tryIt.addEventListener("click", async () => {
      const mine = ++number;
      tryIt.disabled = true;
      trial.replaceChildren(element("p", { class: "quiet" }, "Looking at the last 24 h …"));
      const answer = await ask({ do: "preview", form: form() });
      tryIt.disabled = false;
      if (mine !== number) return;
      try {
        check(answer);
        trial.replaceChildren(...told(answer.done));
      } catch (error) {
        trial.replaceChildren(element("p", { class: "wrong" }, error.message));
        return;
      }
      trial.scrollIntoView({ block: "end" });
    });
    shown.box.addEventListener("close", () => { if (tryIt.disabled) model.send_msg({ do: "stop", n: 0 }); });
    choose(chosen);
    (rule ? inputs.name : inputs.id).focus();
  }

  function told(found) {
    const many = found.count === 1 ? "1 alarm" : `${found.count.toLocaleString()} alarms`;
    const parts = [element("p", {}, element("strong", {}, many),
      ` in the last 24 h, of ${found.readings.toLocaleString()} readings of ${found.series} series`)];
    if (found.coarsest) parts.push(element("p", { class: "quiet" }, `Older readings are kept in rows of ${span(found.coarsest / 1000)}: times are as exact as that.`));
    if (found.skipped) parts.push(element("p", { class: "quiet" }, `${found.skipped} rows are too wide to tell a silence of this length.`));
    if (found.count === 0) return parts;
    const end = now();
    const strip = element("div", { class: "strip", role: "img", "aria-label": `When they would have been raised: ${many}` });
    for (const one of found.alarms) {
      const from = Math.max(0, (Date.parse(one.raised) - end + DAY) / DAY);
      const to = one.cleared ? (Date.parse(one.cleared) - end + DAY) / DAY : 1;
      const bar = element("span", {});
      bar.style.left = `${100 * from}%`;
      bar.style.width = `max(2px, ${100 * Math.max(0, to - from)}%)`;
      strip.append(bar);
    }
    const list = element("ul", { class: "episodes", tabindex: "0", "aria-label": "Alarms that would have been raised, newest first" });
    for (const one of found.alarms.toReversed()) {
      const raised = Date.parse(one.raised);
      list.append(element("li", {}, element("time", { title: utc(raised) }, moment(raised)),
        element("span", {}, one.message),
        element("span", { class: "quiet" }, one.cleared ? `for ${span(Date.parse(one.cleared) - raised)}` : `since ${ago(raised)}`)));
    }
    parts.push(strip, element("div", { class: "ends quiet" }, element("span", {}, "24 h ago"), element("span", {}, "now")), list);
    if (found.count > found.alarms.length) parts.push(element("p", { class: "quiet" }, `The newest ${found.alarms.length} are shown.`));
    return parts;
  }

  add.addEventListener("click", () => edit(null));
  const wish = () => { if (may) edit(null); };
  addEventListener("isotherm:add-rule", wish);
  model.on("remove", () => removeEventListener("isotherm:add-rule", wish));
  model.on("msg:custom", (data) => { if (data.kind === "rules") draw(data); });
  model.send_msg("ready");
  return view;
}
