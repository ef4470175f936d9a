// The head of a device's page. model.state:
//   {device, known: the store has answered, now (ms), wanted, shown: metric, problem, metrics: [{name, unit, value, seen}]}
const { clock, number, ago, live, utc, element } = window.isotherm;

export function render({ model }) {
  const view = element("div");
  let seen = 0;
  let time = null;
  let dot = null;

  function draw() {
    const state = model.state;
    const metrics = state.metrics ?? [];
    seen = Math.max(0, ...metrics.map((one) => one.seen));
    if (state.now) clock(state.now);
    if (state.device) document.title = `${state.device} · Isotherm`;
    const absent = state.known && metrics.length === 0;
    document.body.dataset.device = absent ? "absent" : "present";
    time = element("time", { class: "quiet" });
    dot = element("span", { class: "dot" });
    const parts = [element("a", { class: "trail", href: "/" }, "‹ Fleet")];
    if (state.problem) {
      parts.unshift(element("p", { class: "problem", role: "status" },
        "The store does not answer. What is shown is what was known; it goes on by itself."));
    }
    if (absent) parts.push(...unknown(state));
    else {
      parts.push(element("div", { class: "title" }, dot, element("h1", {}, state.device), time));
      if (state.wanted && state.shown && state.wanted !== state.shown) {
        parts.push(element("span", { class: "quiet" }, `No reading of “${state.wanted}” has been stored; this is ${state.shown}.`));
      }
      parts.push(element("nav", { class: "metrics", "aria-label": "Metrics" }, ...metrics.map((one) => tile(state, one))));
    }
    view.replaceChildren(...parts);
    tick();
  }

  function tile(state, one) {
    const href = `/device?id=${encodeURIComponent(state.device)}&metric=${encodeURIComponent(one.name)}`;
    return element("a", { class: "card metric", href, "aria-current": one.name === state.shown ? "page" : null },
      element("span", { class: "label" }, one.name),
      element("span", { class: "number" }, number(one.value)),
      element("span", { class: "unit" }, one.unit));
  }

  function unknown(state) {
    return [
      element("h1", {}, state.device ? `No device “${state.device}”` : "No device chosen"),
      element("p", { class: "quiet" }, "No reading of it has been stored. This page fills by itself when one is."),
      element("a", { href: "/" }, "All devices"),
    ];
  }

  function tick() {
    if (!time || !seen) return;
    const words = `last seen ${ago(seen)}`;
    if (time.textContent !== words) time.textContent = words;
    time.title = utc(seen);
    dot.classList.toggle("live", live(seen));
  }

  const ticking = setInterval(tick, 1000);
  model.on("remove", () => clearInterval(ticking));
  model.on("state", draw);
  draw();
  model.send_msg("ready");
  return view;
}
