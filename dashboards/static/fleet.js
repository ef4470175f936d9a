// The table of all devices. The server sends columns:
//   {kind: "all", now, tcp_port, devices: [name], of: [device of each series], metrics, units, values, seen (ms)}
//   {kind: "some", places: [series], values, seen}          {kind: "store", problem: text or null}
const { clock, number, ago, live, utc, element } = window.isotherm;
const SHOWN = 6; // metrics a row has room for

export function render({ model }) {
  const problem = element("p", { class: "problem", role: "status", hidden: "" });
  const count = element("span", { class: "quiet" }, "Loading…");
  const search = element("input", { type: "search", placeholder: "Filter devices", "aria-label": "Filter devices" });
  const table = element("div", { class: "card", hidden: "" });
  const empty = element("div", { class: "card empty", hidden: "" });
  const none = element("p", { class: "quiet", hidden: "" }, "No device has this in its name or metrics.");
  const view = element("div", {},
    problem, element("div", { class: "bar" }, element("h1", {}, "Fleet"), count, search), table, none, empty);

  let rows = [];   // of devices
  let series = []; // {row, text: where its value is written, unit, seen}

  function all(data) {
    clock(data.now);
    rows = data.devices.map((name) => ({ name, series: [], seen: 0, words: name.toLowerCase() }));
    series = data.metrics.map((metric, place) => {
      const row = rows[data.of[place]];
      const one = { row, metric, unit: data.units[place], value: data.values[place], seen: data.seen[place], text: null };
      row.series.push(one);
      row.words += ` ${metric.toLowerCase()}`;
      row.seen = Math.max(row.seen, one.seen);
      return one;
    });
    rows.forEach(build);
    table.replaceChildren(...rows.map((row) => row.link));
    table.hidden = rows.length === 0;
    search.hidden = rows.length === 0;
    empty.hidden = rows.length > 0;
    if (rows.length === 0) explain(data.tcp_port);
    filter();
    tick();
  }

  function build(row) {
    row.dot = element("span", { class: "dot" });
    row.time = element("time");
    const values = element("span", { class: "values" });
    for (const one of row.series.slice(0, SHOWN)) {
      one.text = element("span", { class: "number" }, written(one));
      values.append(element("span", {}, element("span", { class: "label" }, one.metric), one.text));
    }
    if (row.series.length > SHOWN) values.append(element("span", { class: "label" }, `+ ${row.series.length - SHOWN} more`));
    row.link = element("a", { class: "row", href: `/device?id=${encodeURIComponent(row.name)}` },
      row.dot, element("span", { class: "name" }, row.name), values, row.time);
  }

  const written = (one) => (one.unit ? `${number(one.value)} ${one.unit}` : number(one.value));

  function some(data) {
    data.places.forEach((place, i) => {
      const one = series[place];
      one.value = data.values[i];
      one.seen = data.seen[i];
      one.row.seen = Math.max(one.row.seen, one.seen);
      if (one.text) one.text.textContent = written(one);
    });
    tick();
  }

  function tick() {
    let alive = 0;
    for (const row of rows) {
      const words = ago(row.seen);
      const isLive = live(row.seen);
      alive += isLive;
      if (row.said !== words) { row.time.textContent = words; row.said = words; }
      if (row.wasLive !== isLive) {
        row.dot.classList.toggle("live", isLive);
        row.dot.title = isLive ? "live: heard of within 2 minutes" : "stale: not heard of for 2 minutes";
        row.wasLive = isLive;
      }
    }
    count.textContent = `${rows.length} ${rows.length === 1 ? "device" : "devices"}, ${alive} live`;
  }

  function filter() {
    const wanted = search.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const hide = wanted !== "" && !row.words.includes(wanted);
      if (row.link.hidden !== hide) row.link.hidden = hide;
      shown += !hide;
    }
    none.hidden = shown > 0 || rows.length === 0;
    table.hidden = shown === 0;
  }

  function explain(port) {
    const host = location.hostname;
    empty.replaceChildren(
      element("h2", {}, "No device has sent a reading yet"),
      element("span", { class: "quiet" }, "This page fills by itself with the first one."),
      element("p", {}, "Let some simulated devices send:"),
      element("pre", {}, "isotherm simulate"),
      element("p", {}, "or send one reading over TCP yourself:"),
      element("pre", {}, `echo '{"n":"room-1/temperature","u":"Cel","v":21.5}' | nc -q 1 ${host} ${port}`));
  }

  // The absolute time is worked out when somebody asks for it.
  table.addEventListener("pointerover", ({ target }) => {
    const row = target.tagName === "TIME" && rows.find((one) => one.time === target);
    if (row) target.title = utc(row.seen);
  });
  search.addEventListener("input", filter);
  const ticking = setInterval(tick, 1000);
  model.on("remove", () => clearInterval(ticking));
  model.on("msg:custom", (data) => {
    if (data.kind === "all") all(data);
    else if (data.kind === "some") some(data);
    else {
      problem.hidden = data.problem == null;
      problem.textContent = "The store does not answer. What is shown is what was known; it goes on by itself.";
    }
  });
  model.send_msg("ready");
  return view;
}
