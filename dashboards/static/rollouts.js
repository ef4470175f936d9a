// Below the fleet: commands and configuration for many devices, and how far rollouts are. Asks the REST API itself.
// model.may (commands may be sent and settings changed).
const { ago, utc, moment, element, dialog, api, drawn: settled, parsed, worded } = window.isotherm;

const POLL_MS = 2_000; // while the page is in view
const SHOWN = 5;
const AT_ONCE = 16; // commands that are on their way
const MAX_DEVICES = 1_000; // that a command is sent to from here
const MEMBERS = ["applied", "failed", "drifted", "superseded", "sent", "pending", "waiting"];

export function render({ model }) {
  const said = element("p", { class: "said", role: "status" });
  const configure = button("Configure devices", () => begin());
  const command = button("Send a command", () => ask());
  const body = element("div", { class: "rollouts" });
  const none = element("p", { class: "quiet" }, "Nothing was rolled out in the last 90 days.");
  const view = element("section", { class: "part control", "aria-label": "Configuration and commands", hidden: "" },
    element("div", { class: "bar" }, element("h2", {}, "Rollouts"), element("span", { class: "quiet" }), ...(model.may ? [command, configure] : [])), said, none, body);

  function button(text, does) {
    const made = element("button", { type: "button", class: "button" }, text);
    made.addEventListener("click", does);
    return made;
  }

  const field = (label, name, placeholder, hint = "") => {
    const input = element("input", { name, placeholder, autocomplete: "off", spellcheck: "false" });
    return [element("label", {}, label, input, ...(hint ? [element("span", { class: "quiet" }, hint)] : [])), input];
  };

  const targetFields = () => {
    const [devices, names] = field("Devices", "devices", "room-*, pump-1", "Names or patterns; * is all.");
    const [label, labels] = field("Label", "label", "floor=3");
    const [type, types] = field("Type", "type", "any");
    const read = () => ({ devices: names.value.split(/[\s,]+/).filter(Boolean), label: labels.value.trim(), type: types.value.trim() });
    return [[devices, label, type], read, names];
  };

  function begin() {
    const [fields, targets, first] = targetFields();
    const [values, changes] = field("Settings", "values", "interval=5 calibration=-0.5", "name=value; name= removes it.");
    const [image, firmware] = field("Or firmware", "firmware", "thermostat/1.2.0", "An image that was uploaded: isotherm firmware.");
    const [waves, shares] = field("Waves", "waves", "1, 10", "Up to how many % each goes; empty is all at once.");
    const [rate, failing] = field("Halt above", "rate", "20", "% of failures among the answers.");
    const later = element("input", { type: "checkbox", name: "continuous" });
    const continuous = element("label", { class: "check" }, later, "Also devices that match later, until it is halted");
    dialog(view, "Configure devices", [...fields, values, image, waves, rate, continuous], "Roll out", async () => {
      const form = { targets: targets(), waves: shares.value.split(/[\s,%]+/).filter(Boolean).map((one) => Number(one) / 100) };
      if (failing.value.trim()) form.max_failure_rate = Number(failing.value) / 100;
      if (later.checked) form.continuous = true;
      if (firmware.value.trim()) form.firmware = firmware.value.trim();
      if (changes.value.trim()) form.values = parsed(changes.value, true);
      const made = await api("POST", "/rollouts", form);
      said.textContent = `Rollout to ${made.devices} devices has begun.`;
      await look();
    });
    first.focus();
  }

  function ask() {
    const [fields, targets, first] = targetFields();
    const [what, name] = field("Command", "command", "ping");
    const [how, parameters] = field("Parameters", "parameters", "times=3");
    const progress = element("p", { class: "quiet", "aria-live": "polite" });
    dialog(view, "Send a command", [...fields, what, how, progress], "Send", async () => {
      const wanted = targets();
      if (!wanted.devices.length && !wanted.label && !wanted.type) throw new Error("Name devices, a label or a type; * is all devices.");
      const asked = { name: name.value.trim(), parameters: parsed(parameters.value) };
      const devices = await found(wanted);
      if (devices.length === 0) throw new Error("There is no such device.");
      if (devices.length > MAX_DEVICES) throw new Error(`${devices.length} devices; a command goes to at most ${MAX_DEVICES} from here.`);
      let sent = 0;
      const problems = [];
      const waiting = [...devices];
      await Promise.all(Array.from({ length: AT_ONCE }, async () => {
        for (let device = waiting.pop(); device !== undefined; device = waiting.pop()) {
          try { await api("POST", `/devices/${encodeURIComponent(device)}/commands`, asked); sent += 1; } catch (error) { problems.push(`${device}: ${error.message}`); }
          progress.textContent = `${sent + problems.length} of ${devices.length}`;
        }
      }));
      if (sent === 0) throw new Error(problems[0]);
      said.textContent = `${asked.name} is sent to ${sent} devices${problems.length ? `, not to ${problems.length}: ${problems[0]}` : ""}; their pages say what came of it.`;
    });
    first.focus();
  }

  async function found(wanted) {
    const names = new Set();
    for (const pattern of wanted.devices.length ? wanted.devices : ["*"]) {
      let cursor = "";
      do {
        const query = new URLSearchParams({ name: pattern, label: wanted.label, type: wanted.type, limit: "1000", cursor });
        const page = await api("GET", `/devices?${query}`);
        for (const one of page.items) names.add(one.name);
        cursor = page.next ?? "";
      } while (cursor);
    }
    return [...names];
  }

  async function steer(rollout, action) {
    try {
      const path = `/rollouts/${rollout.id}`;
      if (action === "rollback") await api("POST", `${path}/rollback`);
      else await api("POST", `${path}/actions`, { action });
      said.textContent = "";
      said.classList.remove("wrong");
    } catch (error) {
      said.textContent = error.message;
      said.classList.add("wrong");
    }
    await look();
  }

  async function failures(rollout) {
    const list = element("ul", { class: "episodes", tabindex: "0" });
    for (const state of ["failed", "drifted"]) {
      const page = await api("GET", `/rollouts/${rollout.id}/devices?state=${state}&limit=200`);
      list.append(...page.items.map((one) => element("li", {}, element("a", { href: `/device?id=${encodeURIComponent(one.device)}` }, one.device),
        element("span", {}, state === "failed" ? one.error || "it would have too many settings" : `has another ${one.drift.join(", ")}`))));
    }
    dialog(view, "Devices that could not", [list], "Close", () => {});
  }

  function line(one) {
    const values = Object.entries(one.values).map(([key, value]) => (value === null ? `${key} removed` : key === "firmware" ? `firmware ${value.name} ${value.version}` : `${key} = ${worded(value)}`)).join(", ");
    const about = one.targets.devices.join(" ") || [one.targets.label, one.targets.type, one.targets.gateway].filter(Boolean).join(", ");
    const created = Date.parse(one.created);
    const counts = MEMBERS.filter((name) => one.progress[name]).map((name) => `${one.progress[name].toLocaleString()} ${name}`).join(", ") || "no device yet";
    const bar = element("div", { class: "progress", role: "img", "aria-label": counts },
      ...MEMBERS.filter((name) => one.progress[name]).map((name) => element("span", { class: name, style: `flex-grow: ${one.progress[name]}` })));
    const bad = one.progress.failed + one.progress.drifted;
    const acts = [];
    if (bad) acts.push(button("Show", () => failures(one)));
    if (model.may) {
      if (one.state === "running" || one.state === "watching") acts.push(button("Halt", () => steer(one, "halt")));
      if (one.state === "halted" && !one.why.startsWith("taken back")) acts.push(button("Resume", () => steer(one, "resume")));
      if (bad) acts.push(button("Retry", () => steer(one, "retry")));
      if (!one.back && !one.why.startsWith("taken back")) acts.push(button("Roll back", () => dialog(view, "Roll back?", [element("p", {}, "What was desired before is desired again, where nobody has changed it since.")], "Roll back", () => steer(one, "rollback"))));
    }
    for (const act of acts) act.setAttribute("aria-label", `${act.textContent} ${one.id}`);
    const wave = one.waves.length > 1 && one.state === "running" ? `, wave ${one.wave + 1} of ${one.waves.length}` : "";
    const state = one.state === "watching" ? "watching for devices that come" : one.state + wave + (one.continuous ? ", continuous" : "");
    return element("article", { class: "card rollout" },
      element("div", { class: "bar" }, element("strong", {}, one.back ? `Back: ${values}` : values), element("span", { class: "quiet" }, `${one.devices.toLocaleString()} devices: ${about}; `,
        element("time", { title: `${moment(created)}, ${utc(created)}` }, ago(created)), ` by ${one.by}`), ...acts),
      bar, element("p", { class: "quiet" }, element("strong", {}, state), one.why ? `: ${one.why}. ` : ": ", counts));
  }

  let drawn = "";
  async function look() {
    try {
      const { items } = await api("GET", `/rollouts?limit=${SHOWN}`);
      await settled();
      view.hidden = !model.may && items.length === 0;
      const news = JSON.stringify(items);
      if (news === drawn) return;
      drawn = news;
      none.hidden = items.length > 0;
      const focus = view.getRootNode().activeElement?.getAttribute?.("aria-label");
      body.replaceChildren(...items.map(line));
      if (focus) view.querySelector(`[aria-label="${CSS.escape(focus)}"]`)?.focus();
    } catch (error) {
      if (!drawn) { said.textContent = error.message; said.classList.add("wrong"); }
    }
  }

  const polling = setInterval(() => { if (!document.hidden) look(); }, POLL_MS);
  model.on("remove", () => clearInterval(polling));
  look();
  return view;
}
