// Below the charts of a device: what it is asked to do, and how it is configured. Asks the REST API itself, as any program may.
// model.device, model.may (commands may be sent and settings changed).
const { ago, utc, moment, element, dialog, api, drawn: settled, parsed, worded } = window.isotherm;

const POLL_MS = 2_000; // while the page is in view
const SHOWN = 10;
const OPEN = ["queued", "sent", "delivered"];

export function render({ model }) {
  const base = () => `/devices/${encodeURIComponent(model.device)}`;
  const told = element("p", { class: "said", role: "status" }); // of the configuration, and why nothing is known
  const said = element("p", { class: "said", role: "status" }); // of commands
  let configuration = null;

  // Commands
  const name = element("input", { name: "command", placeholder: "ping", autocomplete: "off", spellcheck: "false", "aria-label": "Command", required: "",
    pattern: String.raw`\s*[A-Za-z][A-Za-z0-9_.\-]*\s*`, title: "A letter, then letters, digits and _ . -" });
  const parameters = element("input", { name: "parameters", placeholder: "times=3 colour=red", autocomplete: "off", spellcheck: "false", "aria-label": "Parameters" });
  const send = element("button", { type: "submit", class: "button main" }, "Send");
  const form = element("form", { class: "line", hidden: model.may ? null : "" }, name, parameters, send);
  const commands = element("tbody", { role: "rowgroup" });
  const none = element("p", { class: "quiet" }, "It was asked for nothing in the last 7 days.");
  const list = table("commands", "Commands", ["Command", "State", "Asked", "Answer", ""], commands);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    send.disabled = true;
    const typed = [name.value, parameters.value];
    await tell(said, async () => {
      await api("POST", `${base()}/commands`, { name: typed[0].trim(), parameters: parsed(typed[1]) });
      if (name.value === typed[0] && parameters.value === typed[1]) parameters.value = name.value = ""; // else the next one
      return "";
    });
    send.disabled = false;
    name.focus();
    await look();
  });

  // Configuration
  const state = element("span", { class: "stage" });
  const note = element("span", { class: "quiet" });
  const push = button("Push again", () => act(told, () => api("POST", `${base()}/configuration/push`), "It is given to the device once more."));
  const add = button("Set", () => edit("", undefined));
  const settings = element("tbody", { role: "rowgroup" });
  const grid = table("settings", "Configuration", ["Setting", "Desired", "Reported", ""], settings);
  const nothing = element("p", { class: "quiet" }, "Nothing is set. What is set here is given to the device now, or when it comes.");
  const view = element("div", { class: "control" },
    element("section", { class: "part card", "aria-label": "Configuration" },
      element("div", { class: "bar" }, element("h2", {}, "Configuration"), state, note, push, add), told, nothing, grid),
    element("section", { class: "part card", "aria-label": "Commands" }, element("div", { class: "bar" }, element("h2", {}, "Commands")), form, said, none, list));

  function table(kind, label, heads, body) {
    return element("table", { class: `list ${kind}`, role: "table", "aria-label": label, hidden: "" }, element("thead", { role: "rowgroup" },
      element("tr", { role: "row" }, ...heads.map((text) => element("th", { scope: "col", role: "columnheader" }, text || element("span", { class: "unseen" }, "Actions"))))), body);
  }

  function button(text, does) {
    const made = element("button", { type: "button", class: "button" }, text);
    made.addEventListener("click", does);
    return made;
  }

  async function tell(where, does) {
    try {
      where.textContent = await does();
      where.classList.remove("wrong");
    } catch (error) {
      where.textContent = error.message;
      where.classList.add("wrong");
    }
  }

  const act = async (where, does, done) => { await tell(where, async () => { await does(); return done; }); await look(); };

  function edit(key, value) {
    const setting = element("input", { name: "setting", autocomplete: "off", spellcheck: "false", placeholder: "interval", required: "" });
    const wanted = element("input", { name: "value", autocomplete: "off", spellcheck: "false", placeholder: "5, true, text, or JSON" });
    setting.value = key;
    setting.readOnly = key !== "";
    wanted.value = value === undefined ? "" : worded(value);
    const parts = [element("label", {}, "Setting", setting), element("label", {}, "Value", wanted)];
    dialog(view, key ? `Set ${key}` : "Set a value", parts, "Set", async () => {
      await change({ [setting.value.trim()]: parsed(`value=${wanted.value.trim()}`, true).value });
    });
    (key ? wanted : setting).focus();
  }

  function remove(key) {
    const text = element("p", {}, "The device is told its other settings, without this one.");
    dialog(view, `Remove ${key}?`, [text], "Remove", () => change({ [key]: null }));
  }

  async function change(values) {
    await api("PATCH", `${base()}/configuration`, { values });
    await look();
  }

  function drawConfiguration() {
    const found = configuration;
    const keys = [...new Set([...Object.keys(found.desired), ...Object.keys(found.reported)])].sort();
    const stage = { pending: "raised", sent: "seen", applied: "cleared", drifted: "raised", failed: "raised", none: "" }[found.state];
    state.className = `stage ${stage}`;
    state.textContent = found.state === "none" ? "" : found.state + (found.progress === null ? "" : `, ${found.progress} %`);
    state.hidden = found.state === "none";
    note.textContent = found.error || (found.version ? `version ${found.version}, set ${ago(Date.parse(found.changed))} by ${found.by}` : "");
    push.hidden = !model.may || !["drifted", "failed", "sent"].includes(found.state);
    add.hidden = !model.may;
    nothing.hidden = keys.length > 0;
    grid.hidden = keys.length === 0;
    settings.replaceChildren(...keys.map((key) => {
      const desired = found.desired[key];
      const isImage = key === "firmware";
      const acts = model.may && desired !== undefined && !isImage ? [button("Edit", () => edit(key, desired)), button("Remove", () => remove(key))] : [];
      for (const one of acts) one.setAttribute("aria-label", `${one.textContent} ${key}`);
      const reported = found.reported[key];
      return element("tr", { role: "row", class: found.drift.includes(key) ? "drift" : null },
        cell("what", element("strong", {}, key)), cell("value", desired === undefined ? "–" : isImage ? `${desired.name} ${desired.version}` : worded(desired)),
        cell("value", reported === undefined ? "–" : worded(reported), ...(found.drift.includes(key) ? [element("span", { class: "severity warning" }, "differs")] : [])),
        cell("acts", ...acts));
    }));
  }

  const cell = (kind, ...children) => element("td", { role: "cell", class: kind }, ...children);

  function drawCommands(items) {
    none.hidden = items.length > 0;
    list.hidden = items.length === 0;
    commands.replaceChildren(...items.map((one) => {
      const asked = Date.parse(one.created);
      const words = Object.keys(one.parameters).length ? ` ${JSON.stringify(one.parameters)}` : "";
      const cancel = button("Cancel", () => act(said, () => api("DELETE", `${base()}/commands/${one.id}`), "It is cancelled."));
      cancel.setAttribute("aria-label", `Cancel ${one.name}`);
      const stage = one.state === "answered" ? "cleared" : OPEN.includes(one.state) ? "seen" : "raised";
      return element("tr", { role: "row" }, cell("what", element("strong", {}, one.name), element("span", { class: "quiet" }, words)),
        cell("state", element("span", { class: `stage ${stage}` }, one.state)),
        cell("when", element("time", { title: `${moment(asked)}, ${utc(asked)}` }, ago(asked)), element("div", { class: "quiet" }, one.by)),
        cell("value", one.error || (one.state === "answered" ? worded(one.result) : "")),
        cell("acts", ...(model.may && one.state === "queued" ? [cancel] : [])));
    }));
  }

  let drawn = "";
  async function look() {
    try {
      const [found, asked] = await Promise.all([api("GET", `${base()}/configuration`), api("GET", `${base()}/commands?limit=${SHOWN}`)]);
      await settled();
      const focus = view.getRootNode().activeElement?.getAttribute?.("aria-label");
      const news = JSON.stringify([found, asked]);
      if (news === drawn) return;
      drawn = news;
      configuration = found;
      drawConfiguration();
      drawCommands(asked.items);
      view.hidden = false;
      if (focus) view.querySelector(`[aria-label="${CSS.escape(focus)}"]`)?.focus();
    } catch (error) {
      if (error.status === 404) view.hidden = true; // a device that nobody knows has no panels
      else if (!drawn) { told.textContent = error.message; told.classList.add("wrong"); }
    }
  }

  const polling = setInterval(() => { if (model.device && !document.hidden) look(); }, POLL_MS);
  model.on("device", () => { if (model.device) look(); else view.hidden = true; });
  model.on("remove", () => clearInterval(polling));
  view.hidden = true;
  if (model.device) look();
  return view;
}
