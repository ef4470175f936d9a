// One cell for each device, on a canvas: what it is coloured by says `color(row)`. A pointer or the arrow keys choose a cell,
// a click or Enter opens the device.
const { element } = window.isotherm;
const HEIGHT = 132; // what a large fleet may take
const LARGEST = 20;
const SMALLEST = 3;

export function healthMap({ color, describe, open }) {
  const canvas = element("canvas", { tabindex: "0", role: "img" });
  const tip = element("div", { class: "tip", role: "status", hidden: "" });
  const view = element("div", { class: "health" }, canvas, tip);
  let rows = [];
  let cell = LARGEST;
  let across = 1;
  let chosen = -1;
  let due = false;

  function layout() {
    const width = view.clientWidth;
    if (!width || !rows.length) return;
    cell = Math.max(SMALLEST, Math.min(LARGEST, Math.floor(Math.sqrt((width * HEIGHT) / rows.length))));
    across = Math.max(1, Math.floor(width / cell));
    const height = Math.ceil(rows.length / across) * cell;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(across * cell * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${across * cell}px`;
    canvas.style.height = `${height}px`;
    paint();
  }

  function paint() {
    due = false;
    const context = canvas.getContext("2d");
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    const gap = cell > 6 ? 2 : 1;
    rows.forEach((row, at) => {
      context.globalAlpha = row.hidden ? 0.18 : 1;
      context.fillStyle = color(row);
      context.fillRect((at % across) * cell, Math.floor(at / across) * cell, cell - gap, cell - gap);
    });
    context.globalAlpha = 1;
    if (chosen >= 0 && chosen < rows.length) {
      context.strokeStyle = getComputedStyle(view).getPropertyValue("--text");
      context.lineWidth = 2;
      context.strokeRect((chosen % across) * cell - 0.5, Math.floor(chosen / across) * cell - 0.5, cell - gap + 1, cell - gap + 1);
    }
  }

  function choose(at) {
    chosen = at >= 0 && at < rows.length ? at : -1;
    tip.hidden = chosen < 0;
    if (chosen >= 0) {
      tip.textContent = describe(rows[chosen]);
      const x = (chosen % across) * cell;
      const right = x > view.clientWidth / 2;
      tip.style.left = right ? "" : `${x + cell}px`;
      tip.style.right = right ? `${view.clientWidth - x + 4}px` : "";
      tip.style.top = `${Math.floor(chosen / across) * cell + cell + 2}px`;
    }
    paint();
  }

  const under = (event) => {
    const x = Math.floor(event.offsetX / cell);
    const at = Math.floor(event.offsetY / cell) * across + x;
    return x < across && at < rows.length ? at : -1;
  };
  canvas.addEventListener("pointermove", (event) => { const at = under(event); if (at !== chosen) choose(at); });
  canvas.addEventListener("pointerleave", () => choose(-1));
  canvas.addEventListener("blur", () => choose(-1));
  canvas.addEventListener("click", (event) => { const at = under(event); if (at >= 0) open(rows[at]); });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
    if (step !== undefined) {
      choose(Math.max(0, Math.min(rows.length - 1, chosen < 0 ? 0 : chosen + step)));
      event.preventDefault();
    } else if (event.key === "Enter" && chosen >= 0) open(rows[chosen]);
  });
  new ResizeObserver(layout).observe(view);
  return {
    view,
    show(wanted) { rows = wanted; chosen = -1; tip.hidden = true; layout(); },
    say(text) { canvas.setAttribute("aria-label", text); },
    repaint() { if (!due) { due = true; requestAnimationFrame(paint); } },
  };
}
