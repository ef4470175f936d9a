// Devices where they are: a plain equirectangular map with a graticule and a scale, drawn from what devices say and nothing
// else, so that it needs no outside server. Degrees of longitude are as wide as they are at the middle latitude. A pointer or
// the arrow keys choose a device, a click or Enter opens it.
const { element } = window.isotherm;
const HEIGHT = 320;
const PAD = 34;
const LEAST_DEGREES = 0.002; // some 200 m: a single device is no whole-page dot
const METRES = 111_320; // a degree of latitude
const STEPS = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30];
const NEAR = 9; // px

export function geoMap({ color, describe, open }) {
  const canvas = element("canvas", { tabindex: "0", role: "img", "aria-label": "Map of the devices that have a location. Arrow keys choose one." });
  const tip = element("div", { class: "tip", role: "status", hidden: "" });
  const view = element("div", { class: "geo" }, canvas, tip);
  let rows = [];
  let project = () => [0, 0];
  let chosen = null;

  function paint() {
    const width = view.clientWidth;
    if (!width || !rows.length) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(HEIGHT * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${HEIGHT}px`;
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.font = `11px ${getComputedStyle(view).fontFamily}`;
    const style = getComputedStyle(view);
    const [line, quiet, text] = ["--line", "--quiet", "--text"].map((name) => style.getPropertyValue(name));
    const span = (values) => [Math.min(...values), Math.max(...values)];
    const [south, north] = span(rows.map((row) => row.lat));
    const [west, east] = span(rows.map((row) => row.lon));
    const [lat0, lon0] = [(south + north) / 2, (west + east) / 2];
    const squeeze = Math.max(0.05, Math.cos((lat0 * Math.PI) / 180));
    const scale = Math.min((HEIGHT - 2 * PAD) / Math.max(north - south, LEAST_DEGREES),
      (width - 2 * PAD) / (Math.max(east - west, LEAST_DEGREES) * squeeze));
    project = (row) => [width / 2 + (row.lon - lon0) * squeeze * scale, HEIGHT / 2 - (row.lat - lat0) * scale];
    graticule(context, { width, lat0, lon0, squeeze, scale, line, quiet });
    bar(context, scale, quiet, width);
    for (const row of rows) {
      const [x, y] = project(row);
      context.globalAlpha = row.hidden ? 0.2 : 1;
      context.fillStyle = color(row);
      context.beginPath();
      context.arc(x, y, row === chosen ? 7 : 5, 0, 7);
      context.fill();
      if (row === chosen) { context.strokeStyle = text; context.lineWidth = 2; context.stroke(); }
    }
    context.globalAlpha = 1;
  }

  function graticule(context, { width, lat0, lon0, squeeze, scale, line, quiet }) {
    const step = STEPS.find((one) => one * scale >= 70) ?? 45;
    const digits = Math.max(0, Math.ceil(-Math.log10(step)));
    context.strokeStyle = line;
    context.fillStyle = quiet;
    context.lineWidth = 1;
    const named = (value, plus, minus) => `${Math.abs(value).toFixed(digits)}° ${value < 0 ? minus : plus}`;
    const tall = HEIGHT / 2 / scale;
    const wide = width / 2 / scale / squeeze;
    for (let lat = Math.ceil((lat0 - tall) / step) * step; lat <= lat0 + tall; lat += step) {
      if (Math.abs(lat) > 90) continue;
      const y = Math.round(HEIGHT / 2 - (lat - lat0) * scale) + 0.5;
      context.beginPath(); context.moveTo(0, y); context.lineTo(width, y); context.stroke();
      context.fillText(named(lat, "N", "S"), 4, y - 3);
    }
    for (let lon = Math.ceil((lon0 - wide) / step) * step; lon <= lon0 + wide; lon += step) {
      const x = Math.round(width / 2 + (lon - lon0) * squeeze * scale) + 0.5;
      context.beginPath(); context.moveTo(x, 0); context.lineTo(x, HEIGHT); context.stroke();
      context.fillText(named(lon, "E", "W"), x + 3, HEIGHT - 5);
    }
  }

  function bar(context, scale, quiet, width) {
    const most = 120 / scale * METRES;
    const power = 10 ** Math.floor(Math.log10(most));
    const metres = [5, 2, 1].map((one) => one * power).find((one) => one <= most) ?? power;
    const length = metres / METRES * scale;
    context.strokeStyle = quiet;
    context.fillStyle = quiet;
    context.lineWidth = 2;
    context.beginPath(); context.moveTo(width - 16 - length, 16); context.lineTo(width - 16, 16); context.stroke();
    context.textAlign = "right";
    context.fillText(metres >= 1000 ? `${metres / 1000} km` : `${metres} m`, width - 16, 32);
    context.textAlign = "left";
  }

  // The nearest device in a direction: what lies beside the way counts twice.
  function towards([right, down]) {
    if (chosen === null) return rows[0];
    const [x, y] = project(chosen);
    const far = (row) => {
      const [across, along] = project(row).map((at, i) => at - [x, y][i]);
      const ahead = across * right + along * down;
      return ahead > 0 ? ahead + 2 * Math.abs(across * down - along * right) : Infinity;
    };
    return rows.reduce((best, row) => (far(row) < best[1] ? [row, far(row)] : best), [chosen, Infinity])[0];
  }

  function choose(row, [x, y] = []) {
    if (row !== chosen) { chosen = row; paint(); }
    tip.hidden = row === null;
    if (row === null) return;
    tip.textContent = `${describe(row)} · ${row.lat.toFixed(5)}, ${row.lon.toFixed(5)}`;
    const right = x > view.clientWidth / 2;
    tip.style.left = right ? "" : `${x + 14}px`;
    tip.style.right = right ? `${view.clientWidth - x + 14}px` : "";
    tip.style.top = `${y + 10}px`;
  }

  canvas.addEventListener("pointermove", (event) => {
    const near = rows.map((row) => [row, Math.hypot(...project(row).map((at, i) => at - [event.offsetX, event.offsetY][i]))])
      .reduce((best, one) => (one[1] < best[1] ? one : best), [null, NEAR]);
    choose(near[0], [event.offsetX, event.offsetY]);
  });
  canvas.addEventListener("pointerleave", () => choose(null));
  canvas.addEventListener("blur", () => choose(null));
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (way && rows.length > 0) {
      const row = towards(way);
      choose(row, project(row));
      event.preventDefault();
    } else if (event.key === "Enter" && chosen) open(chosen);
  });
  canvas.addEventListener("click", () => { if (chosen) open(chosen); });
  new ResizeObserver(paint).observe(view);
  return { view, show(wanted) { rows = wanted; chosen = null; paint(); }, repaint: paint };
}
