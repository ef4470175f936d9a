// The fleet: counts, health map, map, and the table of all devices. The server sends columns:
//   {kind: "all", now, tcp_port, devices: [name], of: [device of each series], metrics, units, values, seen (ms)}
//   {kind: "some", places: [series], values, seen}          {kind: "store", problem: text or null}
//   {kind: "health", status: [code], severity: [code]}      {kind: "registry", types, gateways, labels: [words]}
//   {kind: "sparks", metric, devices, ends: [place after the last point], time (ms), value}
// and is asked for {sparks: [device], metric} when rows come into view. A row is a bare link until then.
const { clock, now, number, ago, live, utc, element } = window.isotherm;
const part = (name) => import(`${location.origin}/assets/${name}.js`);
const [{ parse, toggle, chosen }, { healthMap }, { geoMap }] = await Promise.all(["filter", "healthmap", "geomap"].map(part));

const SHOWN = 6; // metrics a row has room for
const STATUSES = ["", "online", "late", "offline"];
const SEVERITIES = ["", "critical", "major", "minor", "warning", "info"];
const COUNTS = [["online", "Online"], ["late", "Late"], ["offline", "Offline"], ["alarm", "With alarms"]];
const SPARK_MS = 30 * 60_000;
const AGAIN_MS = 30_000; // sparklines in view are asked for again
const SVG = "http://www.w3.org/2000/svg";
const PLACES = [["lat", "lon"], ["latitude", "longitude"]];

export function render({ model }) {
  const problem = element("p", { class: "problem", role: "status", hidden: "" });
  const count = element("span", { class: "quiet", role: "status" }, "Loading…");
  const search = element("input", { type: "search", placeholder: "Filter: pump is:late label:floor=3",
    "aria-label": "Filter devices", title: "Words are looked for in names and metrics. is:online, is:late, is:offline, is:alarm; "
      + "type:…, gateway:…, label:floor=3 or label:floor; a minus before it turns it around." });
  const counts = COUNTS.map(([name, text]) => {
    const figure = element("span", { class: "number" }, "–");
    const button = element("button", { type: "button", class: "card count", "data-status": name, "aria-pressed": "false" },
      figure, element("span", { class: "label" }, text));
    button.addEventListener("click", () => { search.value = toggle(search.value, name); filter(); });
    return { name, button, figure };
  });
  const group = select("Group by", [["", "no groups"]]);
  const metric = select("Sparkline", [["", "first metric"]]);
  const table = element("div", { class: "card table", hidden: "" });
  const empty = element("div", { class: "card empty", hidden: "" });
  const none = element("p", { class: "card empty quiet", hidden: "" }, "No device fits this filter.");
  const open = (row) => { location.href = row.link.href; };
  const health = healthMap({ color, describe, open });
  const geo = geoMap({ color, describe, open });
  const where = element("div", { class: "card mapped", hidden: "" }, geo.view);
  const whole = element("div", { class: "card mapped" }, health.view);
  const tools = element("div", { class: "bar" }, search, group.view, metric.view);
  const content = element("div", { hidden: "" }, element("div", { class: "counts", role: "group", "aria-label": "Show only" },
    ...counts.map((one) => one.button)), whole, where, tools);
  const view = element("div", {},
    problem, element("div", { class: "bar" }, element("h1", {}, "Fleet"), count), content, table, none, empty);

  let known = false; // what devices there are
  let rows = [];   // of devices
  let byName = new Map();
  let series = []; // {row, metric, unit, value, seen, text: where its value is written}
  let groups = []; // {title, rows, head, closed}
  const closed = new Set();
  const inView = new Set();
  const colors = {};

  function select(label, options) {
    const field = element("select", {}, ...options.map(([value, text]) => element("option", { value }, text)));
    const labelled = element("label", { class: "choice" }, element("span", { class: "quiet" }, label), field);
    return { field, view: labelled, offer(wanted) {
      const before = field.value;
      field.replaceChildren(...[...options, ...wanted].map(([value, text]) => element("option", { value }, text)));
      field.value = [...field.options].some((one) => one.value === before) ? before : "";
    } };
  }

  function readColors() {
    const style = getComputedStyle(view);
    for (const name of ["online", "late", "offline", ...SEVERITIES.slice(1)]) colors[name] = style.getPropertyValue(`--is-${name}`).trim();
  }
  function color(row) { return colors[row.severity ? SEVERITIES[row.severity] : row.status]; }
  function describe(row) {
    return `${row.name}: ${row.status}${row.severity ? `, ${SEVERITIES[row.severity]} alarm` : ""}, last seen ${ago(row.seen)}`;
  }

  function all(data) {
    clock(data.now);
    known = true;
    sight.disconnect();
    inView.clear();
    rows = data.devices.map((name) => ({ name, series: [], seen: 0, words: name.toLowerCase(), code: 0, status: "offline",
      severity: 0, type: "", gateway: "", labels: [], hidden: false }));
    byName = new Map(rows.map((row) => [row.name, row]));
    series = data.metrics.map((name, place) => {
      const row = rows[data.of[place]];
      const one = { row, metric: name, unit: data.units[place], value: data.values[place], seen: data.seen[place], text: null };
      row.series.push(one);
      row.words += ` ${name.toLowerCase()}`;
      row.seen = Math.max(row.seen, one.seen);
      return one;
    });
    for (const row of rows) {
      row.link = element("a", { class: "row bare", href: `/device?id=${encodeURIComponent(row.name)}` }, row.name);
      row.link.row = row;
    }
    const common = new Map();
    for (const one of series) common.set(one.metric, (common.get(one.metric) ?? 0) + 1);
    metric.offer([...common].sort((a, b) => b[1] - a[1]).slice(0, 50).map(([name]) => [name, name]));
    content.hidden = rows.length === 0;
    empty.hidden = rows.length > 0;
    if (rows.length === 0) explain(data.tcp_port);
    readColors();
    states();
    arrange();
    locate();
  }

  // Rows in their groups, in the table.
  function arrange() {
    const key = group.field.value;
    const of = { "": () => "", "@gateway": (row) => row.gateway || "no gateway", "@type": (row) => row.type || "no type" }[key]
      ?? ((row) => row.labels.find((label) => label.startsWith(`${key}=`)) ?? `no ${key}`);
    const found = new Map();
    for (const row of rows) {
      const title = of(row);
      if (!found.has(title)) found.set(title, []);
      found.get(title).push(row);
    }
    groups = [...found].sort((a, b) => a[0].localeCompare(b[0], undefined, { numeric: true }))
      .map(([title, members]) => ({ title, rows: members, head: key ? head(title) : null }));
    table.replaceChildren(...groups.flatMap((one) => [...(one.head ? [one.head] : []), ...one.rows.map((row) => row.link)]));
    health.show(groups.flatMap((one) => one.rows));
    for (const row of rows) sight.observe(row.link);
    filter();
  }

  function head(title) {
    const button = element("button", { type: "button", class: "group", "aria-expanded": String(!closed.has(title)) },
      element("span", { class: "name" }, title), element("span", { class: "quiet" }));
    button.addEventListener("click", () => {
      if (closed.has(title)) closed.delete(title);
      else closed.add(title);
      button.setAttribute("aria-expanded", String(!closed.has(title)));
      filter();
    });
    return button;
  }

  // What a row holds is made when it comes near to what is seen.
  const sight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const { row } = target;
      if (isIntersecting) { inView.add(row); fill(row); } else inView.delete(row);
    }
    askSoon();
  }, { rootMargin: "300px 0px" });

  function fill(row) {
    if (!row.time) {
      row.dot = element("span", { class: "dot" });
      row.badge = element("span", { class: "severity", hidden: "" });
      row.time = element("time");
      row.path = document.createElementNS(SVG, "path");
      row.spark = document.createElementNS(SVG, "svg");
      for (const [name, value] of [["class", "spark"], ["viewBox", "0 0 120 28"], ["preserveAspectRatio", "none"], ["aria-hidden", "true"]]) {
        row.spark.setAttribute(name, value);
      }
      row.spark.append(row.path);
      const values = element("span", { class: "values" });
      for (const one of row.series.slice(0, SHOWN)) {
        one.text = element("span", { class: "number" }, written(one));
        values.append(element("span", {}, element("span", { class: "label" }, one.metric), one.text));
      }
      if (row.series.length > SHOWN) values.append(element("span", { class: "label" }, `+ ${row.series.length - SHOWN} more`));
      row.link.classList.remove("bare");
      row.link.replaceChildren(row.dot, element("span", { class: "name" }, row.name, row.badge), values, row.spark, row.time);
    }
    say(row);
  }

  const written = (one) => (one.unit ? `${number(one.value)} ${one.unit}` : number(one.value));

  function say(row) {
    const words = ago(row.seen);
    if (row.said !== words) { row.time.textContent = words; row.said = words; }
    if (row.dot.dataset.status !== row.status) { row.dot.dataset.status = row.status; row.dot.title = row.status; }
    const name = SEVERITIES[row.severity];
    if (row.badge.textContent !== name) {
      row.badge.textContent = name;
      row.badge.dataset.severity = name;
      row.badge.hidden = name === "";
    }
  }

  function some(data) {
    data.places.forEach((place, i) => {
      const one = series[place];
      one.value = data.values[i];
      one.seen = data.seen[i];
      one.row.seen = Math.max(one.row.seen, one.seen);
      if (one.text) one.text.textContent = written(one);
      const { spark } = one;
      if (spark) {
        spark.push([one.seen, one.value]);
        if (inView.has(one.row)) draw(one.row, spark);
      }
    });
    tick();
  }

  // Where presence is not known, a device that was heard of within two minutes is online.
  function states() {
    let changed = false;
    for (const row of rows) {
      const status = row.code ? STATUSES[row.code] : live(row.seen) ? "online" : "offline";
      changed ||= status !== row.status;
      row.status = status;
    }
    return changed;
  }

  function tick() {
    if (rows.length === 0) { count.textContent = known ? "0 devices" : problem.hidden ? "Loading…" : ""; return; }
    if (states()) { health.repaint(); if (chosen(search.value)) filter(); }
    for (const row of inView) say(row);
    tally();
  }

  function tally() {
    const sums = { online: 0, late: 0, offline: 0, alarm: 0 };
    for (const row of rows) { sums[row.status] += 1; sums.alarm += row.severity > 0; }
    for (const { name, figure } of counts) {
      const text = sums[name].toLocaleString();
      if (figure.textContent !== text) figure.textContent = text;
    }
    const shown = rows.reduce((sum, row) => sum + !row.hidden, 0);
    const total = `${rows.length.toLocaleString()} ${rows.length === 1 ? "device" : "devices"}`;
    const text = shown < rows.length ? `${shown.toLocaleString()} of ${total}` : total;
    if (count.textContent !== text) count.textContent = text;
    health.say(`Health map of ${total}: ${COUNTS.map(([name]) => `${sums[name]} ${name}`).join(", ")}. Arrow keys choose one.`);
    for (const { title, rows: members, head: button } of groups) {
      if (!button) continue;
      const off = members.filter((row) => row.status !== "online").length;
      const alarms = members.filter((row) => row.severity > 0).length;
      const words = `${members.length} ${members.length === 1 ? "device" : "devices"}`
        + (off ? `, ${off} not online` : "") + (alarms ? `, ${alarms} with alarms` : "");
      if (button.lastChild.textContent !== words) button.lastChild.textContent = words;
      button.hidden = members.every((row) => row.hidden);
      button.dataset.title = title;
    }
  }

  function filter() {
    const fits = parse(search.value);
    const is = chosen(search.value);
    for (const { name, button } of counts) button.setAttribute("aria-pressed", String(name === is));
    let shown = 0;
    for (const one of groups) {
      const folded = one.head !== null && closed.has(one.title);
      for (const row of one.rows) {
        row.hidden = !fits(row);
        shown += !row.hidden;
        const hide = row.hidden || folded;
        if (row.link.hidden !== hide) row.link.hidden = hide;
      }
    }
    none.hidden = shown > 0 || rows.length === 0;
    table.hidden = shown === 0;
    health.repaint();
    if (!where.hidden) geo.repaint();
    tally();
  }

  function healthOf(data) {
    rows.forEach((row, at) => { row.code = data.status[at]; row.severity = data.severity[at]; });
    states();
    health.repaint();
    if (chosen(search.value)) filter();
    tick();
  }

  function registry(data) {
    const keys = new Set();
    rows.forEach((row, at) => {
      row.type = data.types[at];
      row.gateway = data.gateways[at];
      row.labels = data.labels[at] ? data.labels[at].split(" ") : [];
      for (const label of row.labels) if (label.includes("=")) keys.add(label.split("=")[0]);
    });
    for (const place of ["lat", "lon"]) keys.delete(place);
    const offered = [...keys].sort().map((key) => [key, key]);
    if (rows.some((row) => row.type)) offered.unshift(["@type", "type"]);
    if (rows.some((row) => row.gateway)) offered.unshift(["@gateway", "gateway"]);
    group.offer(offered);
    arrange();
    locate();
  }

  // Where a device is: its series lat and lon (or latitude and longitude), else its labels lat=… and lon=….
  function locate() {
    for (const row of rows) {
      const label = (name) => Number.parseFloat(row.labels.find((one) => one.startsWith(`${name}=`))?.slice(name.length + 1));
      const measured = (name) => row.series.find((one) => one.metric === name)?.value;
      const pairs = [...PLACES.map((pair) => pair.map(measured)), ["lat", "lon"].map(label)];
      const found = pairs.find(([lat, lon]) => Math.abs(lat) <= 90 && Math.abs(lon) <= 180);
      [row.lat, row.lon] = found ?? [undefined, undefined];
    }
    const placed = rows.filter((row) => row.lat !== undefined);
    where.hidden = placed.length === 0;
    geo.show(placed);
  }

  // Sparklines
  let asking = 0;
  function askSoon() {
    if (!asking) asking = setTimeout(ask, 150);
  }
  function ask() {
    asking = 0;
    const wanted = [...inView].filter((row) => !row.hidden && (row.sparked !== metric.field.value || now() - row.sparkedAt > AGAIN_MS));
    for (const row of wanted) { row.sparked = metric.field.value; row.sparkedAt = now(); }
    for (let first = 0; first < wanted.length; first += 200) {
      model.send_msg({ sparks: wanted.slice(first, first + 200).map((row) => row.name), metric: metric.field.value });
    }
  }
  function sparks(data) {
    if (data.metric !== metric.field.value) return;
    let begin = 0;
    data.devices.forEach((name, at) => {
      const end = data.ends[at];
      const row = byName.get(name);
      const one = row && (data.metric ? row.series.find((other) => other.metric === data.metric) : row.series[0]);
      if (one) {
        for (const other of row.series) other.spark = null;
        one.spark = Array.from({ length: end - begin }, (_, i) => [data.time[begin + i], data.value[begin + i]]);
        draw(row, one.spark);
      }
      begin = end;
    });
  }
  function draw(row, points) {
    const from = now() - SPARK_MS;
    while (points.length && points[0][0] < from) points.shift();
    const values = points.map((point) => point[1]).filter(Number.isFinite);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const scale = high > low ? 24 / (high - low) : 0;
    let path = "";
    let move = true;
    for (const [time, value] of points) {
      if (!Number.isFinite(value)) { move = true; continue; }
      const x = ((time - from) / SPARK_MS * 120).toFixed(1);
      const y = (scale ? 26 - (value - low) * scale : 14).toFixed(1);
      path += `${move ? "M" : "L"}${x} ${y}`;
      if (move) path += "h.1"; // a lone point is seen
      move = false;
    }
    row.path.setAttribute("d", path);
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
    tick();
  }

  // The absolute time is worked out when somebody asks for it.
  table.addEventListener("pointerover", ({ target }) => {
    const row = target.tagName === "TIME" && target.closest(".row")?.row;
    if (row) target.title = utc(row.seen);
  });
  search.addEventListener("input", filter);
  group.field.addEventListener("change", arrange);
  metric.field.addEventListener("change", () => { for (const row of rows) row.path?.removeAttribute("d"); ask(); });
  const ticking = setInterval(tick, 1000);
  const again = setInterval(askSoon, AGAIN_MS / 3);
  const painted = new MutationObserver(() => { readColors(); health.repaint(); geo.repaint(); });
  painted.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  model.on("remove", () => { clearInterval(ticking); clearInterval(again); painted.disconnect(); sight.disconnect(); });
  const take = { all, some, registry, sparks, health: healthOf, store: (data) => {
    problem.hidden = data.problem == null;
    problem.textContent = "The store does not answer. What is shown is what was known; it goes on by itself.";
  } };
  model.on("msg:custom", (data) => take[data.kind](data));
  model.send_msg("ready");
  return view;
}
