// The head of a device's page. model.state:
//   {device, known: the store has answered, now (ms), shown: {metric: colour}, note, problem,
//    presence: null or {status, cadence (ms), seen (ms)}, type, gateway, labels, metrics: [{name, unit, value, seen}]}
const { clock, number, ago, live, utc, element, duration, units } = window.isotherm;
const MANY = 24; // metrics shown before one asks for all

export function render({ model }) {
  const problem = element("p", { class: "problem", role: "status", hidden: "" },
    "The store does not answer. What is shown is what was known; it goes on by itself.");
  const dot = element("span", { class: "dot" });
  const name = element("h1");
  const presence = element("span", { class: "pill" });
  const time = element("time", { class: "quiet" });
  const compare = element("a", { class: "file", href: "/compare" }, "Compare");
  const about = element("p", { class: "about" });
  const tiles = element("div", { class: "metrics", role: "group", "aria-label": "Metrics shown in the charts" });
  const all = element("button", { type: "button", class: "plain", hidden: "" });
  const note = element("p", { class: "note", role: "status" });
  const present = element("div", {}, element("div", { class: "title" }, dot, name, presence, time, compare), about, tiles, all, note);
  const absent = element("div");
  const body = element("div", {}, present);
  const view = element("div", {}, problem, element("a", { class: "trail", href: "/" }, "‹ Fleet"), body);
  let made = new Map(); // metric → {tile, value, unit, swatch}
  let everything = false;
  let seen = 0;

  function draw() {
    const state = model.state;
    const metrics = state.metrics ?? [];
    seen = Math.max(0, ...metrics.map((one) => one.seen));
    if (state.now) clock(state.now);
    if (state.device) document.title = `${state.device} · Isotherm`;
    const none = Boolean(state.known) && metrics.length === 0;
    document.body.dataset.device = none ? "absent" : "present";
    problem.hidden = !state.problem;
    if (none) unknown(state);
    if (body.firstChild !== (none ? absent : present)) body.replaceChildren(none ? absent : present);
    name.textContent = state.device;
    about.replaceChildren(...described(state));
    if (note.textContent !== (state.note ?? "")) note.textContent = state.note ?? "";
    for (const one of metrics) units[one.name] = one.unit;
    tile(state, metrics);
    remember(state);
    tick();
  }

  function described(state) {
    const parts = [];
    if (state.type) parts.push(element("span", { class: "tag" }, state.type));
    if (state.gateway) {
      parts.push(element("a", { class: "tag", href: `/device?id=${encodeURIComponent(state.gateway)}` }, `via ${state.gateway}`));
    }
    for (const label of state.labels ?? []) parts.push(element("span", { class: "tag" }, label));
    return parts;
  }

  function tile(state, metrics) {
    const shown = state.shown ?? {};
    const few = everything ? metrics : metrics.filter((one, at) => at < MANY || Object.hasOwn(shown, one.name));
    all.hidden = few.length === metrics.length;
    all.textContent = `Show all ${metrics.length} metrics`;
    const before = made;
    made = new Map(few.map((one) => [one.name, before.get(one.name) ?? build(one.name)]));
    if (made.size !== before.size || [...made.keys()].some((key) => !before.has(key))) {
      tiles.replaceChildren(...[...made.values()].map((one) => one.tile));
    }
    for (const one of few) {
      const parts = made.get(one.name);
      const value = number(one.value);
      if (parts.value.textContent !== value) parts.value.textContent = value;
      if (parts.unit.textContent !== one.unit) parts.unit.textContent = one.unit;
      parts.tile.setAttribute("aria-pressed", String(Object.hasOwn(shown, one.name)));
      parts.tile.style.setProperty("--line-color", Object.hasOwn(shown, one.name) ? shown[one.name] : "transparent");
    }
  }

  function build(metric) {
    const value = element("span", { class: "number" });
    const unit = element("span", { class: "unit" });
    const button = element("button", { type: "button", class: "card metric", title: `Show or hide ${metric} in the charts` },
      element("span", { class: "label" }, metric), value, unit);
    button.addEventListener("click", () => model.send_msg({ choose: metric }));
    return { tile: button, value, unit };
  }

  // The address says what is shown, so that it can be handed on.
  function remember(state) {
    const metrics = Object.keys(state.shown ?? {});
    if (metrics.length === 0) return;
    compare.href = `/compare?${new URLSearchParams(metrics.map((one) => ["series", `${state.device}/${one}`]))}`;
    const wanted = new URLSearchParams([["id", state.device], ...metrics.map((one) => ["metric", one])]);
    if (location.search.slice(1) !== wanted.toString()) history.replaceState(history.state, "", `?${wanted}`);
  }

  function unknown(state) {
    absent.replaceChildren(
      element("h1", {}, state.device ? `No device “${state.device}”` : "No device chosen"),
      element("p", { class: "quiet" }, "No reading of it has been stored. This page fills by itself when one is."),
      element("a", { href: "/" }, "All devices"));
  }

  function tick() {
    if (!seen) return;
    const known = model.state.presence;
    const words = `last seen ${ago(seen)}`;
    if (time.textContent !== words) time.textContent = words;
    time.title = utc(seen);
    const status = known?.status ?? (live(seen) ? "online" : "offline");
    const said = known ? status + (known.cadence ? `, usually every ${duration(known.cadence)}` : "") : status;
    if (presence.textContent !== said) presence.textContent = said;
    presence.dataset.status = status;
    dot.dataset.status = status;
  }

  all.addEventListener("click", () => { everything = true; draw(); });
  const ticking = setInterval(tick, 1000);
  model.on("remove", () => clearInterval(ticking));
  model.on("state", draw);
  draw();
  model.send_msg("ready");
  return view;
}
