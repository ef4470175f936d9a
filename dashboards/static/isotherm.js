// What every page needs before anything is drawn: light or dark, times in words, and a way back when the server was lost.
window.isotherm = (() => {
  const LIVE_MS = 120_000; // heard of within it: live
  const POLL_MS = 1_000;
  const START_MS = 15_000;

  const isPlain = "plain" in document.currentScript.dataset; // HTML without a websocket

  // Light or dark: the cookie, else what the system prefers.
  const root = document.documentElement;
  const remembered = document.cookie.match(/(?:^|; )theme=(dark|light)/)?.[1];
  const theme = (name) => {
    root.dataset.theme = name;
    document.getElementById("light")?.setAttribute("aria-pressed", String(name === "dark"));
  };
  theme(remembered ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  const toggle = () => {
    const name = root.dataset.theme === "dark" ? "light" : "dark";
    document.cookie = `theme=${name}; path=/; max-age=31536000; samesite=strict`;
    theme(name);
    for (const view of Object.values(window.Bokeh?.index ?? {})) repaint(view); // figures read colours when they paint
  };
  const repaint = (view) => {
    for (const child of view.child_views ?? []) repaint(child);
    view.request_paint?.();
    view.request_repaint?.();
  };

  // Numbers and times. The server's clock is the one that counts: pages tell what it said when they were drawn.
  let skew = 0;
  const clock = (now) => { skew = now - Date.now(); };
  const now = () => Date.now() + skew;
  const number = (value) => {
    const size = Math.abs(value);
    if (value !== 0 && (size >= 1e9 || size < 1e-4)) return value.toExponential(3);
    if (value === 0) return "0";
    return String(Number(value.toFixed(Math.max(1, 4 - Math.floor(Math.log10(size)))))); // five digits, all before the point
  };
  const ago = (time) => {
    const s = Math.max(0, Math.round((now() - time) / 1000));
    if (s < 2) return "now";
    if (s < 60) return `${s} s ago`;
    if (s < 3600) return `${Math.floor(s / 60)} min ago`;
    if (s < 172800) return `${Math.floor(s / 3600)} h ago`;
    return `${Math.floor(s / 86400)} d ago`;
  };
  const duration = (ms) => {
    const s = Math.max(0, ms) / 1000;
    if (s < 10) return `${Number(s.toFixed(1))} s`;
    if (s < 120) return `${Math.round(s)} s`;
    if (s < 7200) return `${Math.round(s / 60)} min`;
    if (s < 172800) return `${Math.round(s / 3600)} h`;
    return `${Math.round(s / 86400)} d`;
  };
  const units = Object.create(null); // metric or series → unit, for the charts of this page
  const withUnit = (value, unit) => (!Number.isFinite(value) ? "–" : unit ? `${number(value)} ${unit}` : number(value));
  const measured = (value, name) => withUnit(value, units[name]);
  const span = (ms) => { // two units of it: 1 min 30 s, 2 h 5 min
    const s = Math.max(0, Math.round(ms / 1000));
    const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
    const first = Math.max(0, units.findIndex(([, size]) => s >= size));
    if (s === 0) return "0 s";
    const [name, size] = units[first];
    const [smaller, part] = units[first + 1] ?? ["", 0];
    const rest = part ? Math.floor((s % size) / part) : 0;
    return `${Math.floor(s / size)} ${name}${rest ? ` ${rest} ${smaller}` : ""}`;
  };
  const live = (time) => now() - time < LIVE_MS;
  const utc = (time) => new Date(time).toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC");
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "local time";
  const two = (n) => String(n).padStart(2, "0");
  const day = (t) => t.toLocaleDateString(undefined, { day: "numeric", month: "short" });
  const minute = (t) => `${two(t.getHours())}:${two(t.getMinutes())}`;
  const second = (t) => `${minute(t)}:${two(t.getSeconds())}`;
  const moment = (ms) => `${day(new Date(ms))} ${second(new Date(ms))}`;
  const tick = (value, index, ticks) => {
    const t = new Date(value);
    const step = ticks.length > 1 ? ticks[1] - ticks[0] : 60_000;
    if (step >= 82_800_000) return day(t);
    const text = step < 1000 ? `${second(t)}.${String(t.getMilliseconds()).padStart(3, "0")}` : step < 60_000 ? second(t) : minute(t);
    const first = index === 0 || day(new Date(ticks[index - 1])) !== day(t);
    return first ? `${text}\n${day(t)}` : text;
  };

  // An element with text in it. Text of devices never becomes HTML.
  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value != null) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };

  // Requests of a component, each answered by a message {kind: "answer", n, …} with its number.
  const asker = (model) => {
    const waiting = new Map();
    let asked = 0;
    model.on("msg:custom", (data) => {
      if (data.kind !== "answer") return;
      waiting.get(data.n)?.(data);
      waiting.delete(data.n);
    });
    return (request) => new Promise((resolve) => {
      waiting.set(++asked, resolve);
      model.send_msg({ ...request, n: asked });
    });
  };

  // A dialog over the page. What `act` throws is shown in it; else it closes. Focus goes back to where it came from.
  const dialog = (host, title, parts, label, act, kind = null) => {
    const wrong = element("span", { class: "wrong", role: "alert" });
    const cancel = element("button", { type: "button", class: "button" }, "Cancel");
    const main = element("button", { type: "submit", class: "button main" }, label);
    const heading = element("h2", { id: "dialog-title" }, title);
    const form = element("form", { method: "dialog" }, heading, element("div", { class: "inside" }, ...parts),
      element("div", { class: "feet" }, wrong, cancel, main));
    const box = element("dialog", { class: kind, "aria-labelledby": heading.id }, form);
    cancel.addEventListener("click", () => box.close());
    box.addEventListener("close", () => box.remove());
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      main.disabled = true;
      wrong.textContent = "";
      try {
        await act();
        box.close();
      } catch (error) {
        wrong.textContent = error.message;
      }
      main.disabled = false;
    });
    host.append(box);
    box.showModal();
    return { box, main };
  };

  // When the page is drawn: what comes later than that below it moves nothing.
  const drawn = async () => {
    while (!(window.Bokeh?.documents?.[0]?.is_idle)) await new Promise((done) => requestAnimationFrame(done));
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  };

  // A request to the REST API, with the session of this page; a refusal is thrown, with its status and what is wrong.
  const api = async (method, path, body) => {
    const headers = body === undefined ? {} : { "content-type": "application/json" };
    if (method === "POST") headers["idempotency-key"] = crypto.randomUUID?.() ?? String(Math.random());
    const answer = await fetch(`/api/v1${path}`, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal: AbortSignal.timeout(20_000) });
    if (answer.ok) return answer.status === 204 ? null : answer.json();
    const problem = await answer.json().catch(() => ({}));
    const said = problem.detail ?? answer.statusText;
    const wrong = (problem.errors ?? []).filter((one) => one.rule && !said.includes(one.rule)).map((one) => `${one.field}: ${one.rule}`);
    throw Object.assign(new Error([said, ...wrong].join("; ")), { status: answer.status });
  };
  // What a person types, `times=3 colour=red`: values are JSON, or else text; nothing is null, where that is `allowed`.
  const parsed = (text, allowed = false) => {
    const found = {};
    for (const part of text.match(/[^\s=]+=(?:"(?:[^"\\]|\\.)*"|\{.*?\}(?=\s|$)|\[.*?\](?=\s|$)|[^\s]*)|\S+/g) ?? []) {
      const [, name, value] = part.match(/^([^=]+)=(.*)$/s) ?? [];
      if (!name || (value === "" && !allowed)) throw new Error(`“${part}”, expected name=value`);
      try { found[name] = value === "" ? null : JSON.parse(value); } catch { found[name] = value; }
    }
    return found;
  };
  const worded = (value) => (typeof value === "string" ? value : JSON.stringify(value));

  // A websocket that is lost is not taken up again: its session is gone with it. The page comes back as a new one.
  let lost = false;
  const recover = async () => {
    if (lost) return;
    lost = true;
    document.getElementById("connection").hidden = false;
    for (;;) {
      try {
        if ((await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(5000) })).ok) break;
      } catch (error) {
        console.debug("isotherm: the server does not answer yet", error);
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    location.reload();
  };
  let leaving = false;
  addEventListener("pagehide", () => { leaving = true; });
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  const watch = (started) => {
    const [page] = window.Bokeh?.documents ?? [];
    if (page) page.on_event("connection_lost", () => { if (!leaving) recover(); });
    else if (Date.now() - started > START_MS) recover();
    else setTimeout(watch, 50, started);
  };

  addEventListener("DOMContentLoaded", () => {
    theme(root.dataset.theme);
    document.getElementById("light").addEventListener("click", toggle);
    if (!isPlain) watch(Date.now());
    for (const one of document.querySelectorAll("time[datetime]")) {
      const time = Date.parse(one.dateTime);
      one.title = utc(time);
      one.textContent = moment(time);
    }
  });
  return { clock, now, number, ago, span, duration, units, withUnit, measured, live, utc, zone, moment, tick, element, asker, dialog, api, drawn, parsed, worded };
})();
