// The pipeline in figures. The server sends
//   {kind: "figures", now (ms), problem, and once the store has answered:
//    lines: [{name, rate, received, accepted, rejected, stored, duplicates, in_flight, lost, skewed}], total: the same,
//    verdict: [{level: good | odd | bad, text}], anew: samples begin anew, samples: [[time (ms), accepted/s, stored/s]],
//    shards: [[stored, duplicates]] of each partition, lag: [records] of each or null, kafka: what is wrong with it or null,
//    analytics: [{name, state, pid, partitions, lag, rate, us, made, events, errors, problem}]}
//   {kind: "parts", parts: [{name, state, note, seen (µs, or 0)}]}
const { clock, now, ago, utc, moment, element } = window.isotherm;

const SHOWN_MS = 600_000; // of the throughput
const WIDTH = 600;
const HEIGHT = 64;
const COLUMNS = ["received", "accepted", "rejected", "stored", "duplicates", "in flight", "lost"];
const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const rate = (value) => (value >= 100 ? whole : tenth).format(value);

export function render({ model }) {
  let samples = [];
  const problem = element("p", { class: "problem", role: "status", hidden: "" });
  const loading = element("p", { class: "quiet" }, "Loading…");
  const verdict = element("div", { class: "verdict", role: "status" });
  const tiles = element("div", { class: "tiles" });
  const stored = tile("Stored", "readings/s");
  const accepted = tile("Accepted", "readings/s");
  const flight = tile("In flight", "readings");
  const refused = tile("Rejected", "inputs, ever");
  tiles.append(stored.card, accepted.card, flight.card, refused.card);
  const spark = element("div", { class: "card spark" });
  const ledger = table("Ledger", ["Connector", ...COLUMNS.map((name) => name[0].toUpperCase() + name.slice(1)), "Readings/s"], 1);
  const shards = table("Partitions", ["Partition", "Stored", "Duplicates", "Lag, records"], 1);
  const analytics = table("Analytics", ["Analytic", "State", "Partitions", "Lag, records", "Readings/s", "µs/reading", "Made", "Events", "Errors"], 2);
  const parts = table("Parts", ["Part", "State", "What it is", "Reported"], 9);
  const kafka = element("p", { class: "quiet", hidden: "" });
  const body = element("div", { hidden: "" }, verdict, tiles, spark,
    element("h2", {}, "Ledger"), ledger.card,
    element("details", {}, element("summary", {}, "By partition"), kafka, shards.card),
    element("h2", {}, "Analytics"), analytics.card, element("h2", {}, "Parts"), parts.card);
  const view = element("div", {}, element("div", { class: "bar" }, element("h1", {}, "Pipeline")), problem, loading, body);

  function tile(name, unit) {
    const value = element("span", { class: "number" }, "–");
    const card = element("div", { class: "card tile" }, element("span", { class: "label" }, name), value,
      element("span", { class: "unit" }, ` ${unit}`));
    return { card, say: (text) => { if (value.textContent !== text) value.textContent = text; } };
  }

  // A table whose columns from `amounts` on are numbers.
  function table(name, columns, amounts) {
    const rows = element("tbody", {});
    const head = columns.map((text, at) => element("th", { scope: "col", class: at >= amounts ? "amount" : null }, text));
    const card = element("div", { class: "card scroll", tabindex: "0", role: "region", "aria-label": name }, element("table", { class: "list figures", "aria-label": name },
      element("thead", {}, element("tr", {}, ...head)), rows));
    return { card, draw: (lines) => { rows.replaceChildren(...lines.map((cells) => line(cells, amounts))); } };
  }

  function line(cells, amounts) {
    const made = cells.map((content, at) => (at === 0
      ? element("th", { scope: "row" }, content)
      : element("td", { class: at >= amounts ? "amount number" : null }, content ?? "")));
    return element("tr", { class: cells.kind }, ...made);
  }

  function figures(data) {
    clock(data.now);
    problem.hidden = data.problem == null;
    problem.textContent = "The store does not answer. What is shown is what was known; it goes on by itself.";
    loading.hidden = data.lines !== undefined || data.problem != null;
    body.hidden = data.lines === undefined;
    if (data.lines === undefined) return;
    tell(data.verdict);
    samples = (data.anew ? [] : samples).concat(data.samples).filter(([time]) => time > data.now - SHOWN_MS);
    const [, in_, out] = samples.at(-1) ?? [0, 0, 0];
    stored.say(rate(out));
    accepted.say(rate(in_));
    flight.say(whole.format(data.total.in_flight));
    refused.say(whole.format(data.total.rejected));
    draw(data.now);
    const row = (one, name, perSecond) => Object.assign(
      [name, ...COLUMNS.map((column) => whole.format(one[column.replace(" ", "_")])), rate(perSecond)],
      { kind: one.lost || one.accepted !== one.stored + one.duplicates + one.in_flight + one.lost ? "odd" : null });
    const sum = row(data.total, "All", data.lines.reduce((all, one) => all + one.rate, 0));
    ledger.draw([...data.lines.map((one) => row(one, one.name, one.rate)), Object.assign(sum, { kind: "sum" })]);
    kafka.hidden = data.kafka == null;
    kafka.textContent = `${data.kafka}; so nobody knows the lag.`;
    shards.draw(data.shards.map(([count, again], at) =>
      [String(at), whole.format(count), whole.format(again), data.lag ? whole.format(data.lag[at] ?? 0) : "–"]));
    analytics.draw(data.analytics.map(analytic));
  }

  function tell(findings) {
    const words = findings.map((one) => one.text).join("\n");
    if (verdict.dataset.words === words) return; // read out when it changes, not every two seconds
    const numbers = words.replace(/[\d,.]+/g, "#");
    verdict.setAttribute("aria-live", verdict.dataset.said === numbers ? "off" : "polite");
    verdict.dataset.words = words;
    verdict.dataset.said = numbers;
    verdict.replaceChildren(...findings.map((one) => element("p", { class: one.level }, one.text)));
  }

  function analytic(one) {
    const state = element("span", { class: `stage ${one.state.replaceAll(" ", "-")}` }, one.state);
    if (one.state === "not running" || one.state === "off") return [one.name, state, "", "", "", "", "", "", ""];
    const name = one.problem ? element("details", {}, element("summary", {}, one.name), element("pre", {}, one.problem)) : one.name;
    return [name, state, ...[one.partitions, one.lag].map((value) => whole.format(value)), rate(one.rate), tenth.format(one.us),
      ...[one.made, one.events, one.errors].map((value) => whole.format(value))];
  }

  function draw(end) {
    const start = end - SHOWN_MS;
    const top = Math.max(1, ...samples.map(([, a, b]) => Math.max(a, b)));
    const at = (time) => ((time - start) / SHOWN_MS) * WIDTH;
    const path = (which) => samples.map((one, place) =>
      `${place ? "L" : "M"}${at(one[0]).toFixed(1)} ${(HEIGHT - 2 - (one[which] / top) * (HEIGHT - 6)).toFixed(1)}`).join("");
    const svg = (tag, attributes, ...children) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
      made.append(...children);
      return made;
    };
    const label = `Throughput of the last 10 minutes, at most ${rate(top)} readings a second`;
    spark.replaceChildren(
      element("div", { class: "key quiet" }, element("strong", {}, "Throughput, last 10 min"), element("span", { class: "stored" }, "stored"),
        element("span", { class: "accepted" }, "accepted"), element("span", { class: "top" }, `most ${rate(top)}/s`)),
      samples.length > 1
        ? svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
          svg("path", { d: path(1), class: "accepted" }), svg("path", { d: path(2), class: "stored" }))
        : element("p", { class: "quiet wait" }, "The first figures come within seconds."));
  }

  function health(data) {
    parts.draw(data.parts.map((one) => {
      const seen = one.seen / 1000;
      return [one.name, element("span", { class: `stage ${one.state.replaceAll(" ", "-")}` }, one.state),
        element("span", { class: "quiet" }, one.note),
        one.seen ? element("time", { class: "quiet", title: `${moment(seen)}, ${utc(seen)}` }, `reported ${ago(seen)}`) : ""];
    }));
  }

  model.on("msg:custom", (data) => { (data.kind === "parts" ? health : figures)(data); });
  model.send_msg("ready");
  return view;
}
