/** The view of a time series: a line per channel over the colours of its attribution. */

import { colormap, css } from "./colors.js";
import { button, h, name, replace, select } from "./dom.js";
import { measured, number, percent } from "./numbers.js";
import { part } from "./scale.js";
import { T } from "./strings.js";

const HEIGHT = 84;
const STRIP = 14;

/** @param {import("./image.js").ViewContext} context */
export function seriesView({ feature, input, attr, limit, look, memory, cursor }) {
  const [channels, steps] = input.series.shape;
  memory.range ??= [0, steps];
  memory.layout ??= channels > 6 ? "combined" : "channels";
  const readout = h("div", { class: "readout", "aria-live": "polite" }, T.seriesHint);
  const body = h("div", { class: "series" });
  /** @type {Array<() => void>} */
  let paints = [];

  const redraw = () => paints.forEach((paint) => paint());
  const zoom = (/** @type {[number, number]} */ range) => {
    memory.range = range;
    whole.hidden = range[0] === 0 && range[1] === steps;
    redraw();
  };
  const read = (/** @type {number | null} */ step, /** @type {number} */ channel) => {
    cursor.set(feature.name, step);
    if (step === null) {
      readout.textContent = T.seriesHint;
      return;
    }
    const i = channel * steps + step;
    const time = `${number(step * input.stride * feature.dt)}${feature.unit ? ` ${feature.unit}` : ""}`;
    const value = attr ? attr.values.data[i] : null;
    const share = attr && limit ? ` (${percent(part(value, limit, "all"))} ${T.ofScale})` : "";
    const said = attr ? `, ${T.attribution} ${measured(value, attr.errors?.data[i])}${share}` : "";
    const place = [name(feature.channels[channel]), ` ${T.at} ${time}: `];
    replace(readout, place, number(input.series.data[i]), said);
    if (attr) readout.dataset.value = String(value);
  };

  function build() {
    const groups =
      memory.layout === "combined"
        ? [[...Array(channels).keys()]]
        : [...Array(channels).keys()].map((c) => [c]);
    paints = [];
    body.replaceChildren(
      ...groups.flatMap((group) => {
        const names = group.map((c) => feature.channels[c]).join(", ");
        const canvas = h("canvas", {
          role: "img",
          tabIndex: 0,
          "aria-label": T.seriesLabel(names, steps),
        });
        const paint = () =>
          drawChannels(canvas, group, {
            input,
            attr,
            limit,
            look,
            range: memory.range,
            at: cursor.get(feature.name),
          });
        paints.push(paint);
        listen(canvas, {
          steps,
          memory,
          zoom,
          read: (step) => read(step, group[0]),
          at: () => cursor.get(feature.name),
        });
        return [h("span", { class: "channel" }, name(names)), canvas];
      }),
    );
    observe(body, redraw);
  }

  const layout = select(
    [
      { value: "channels", label: T.perChannel },
      { value: "combined", label: T.combined },
    ],
    memory.layout,
    (value) => {
      memory.layout = value;
      build();
    },
  );
  layout.setAttribute("aria-label", T.layout);
  const whole = button(T.wholeSeries, () => zoom([0, steps]));
  build();
  zoom(memory.range);
  const stop = cursor.on((/** @type {string} */ name) => {
    if (name === feature.name) redraw();
  });
  const tools = h("div", { class: "tools" }, channels > 1 ? layout : null, whole);
  return {
    el: h("div", { class: "view", "data-feature": feature.name }, body, readout, tools),
    stop,
  };
}

/**
 * Draw as soon as the size is known, and whenever it changes.
 * @param {Element} el
 * @param {() => void} redraw
 */
function observe(el, redraw) {
  new ResizeObserver(redraw).observe(el);
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {number[]} group the channels that share this canvas
 * @param {{input: any, attr: any, limit: number, look: any,
 *   range: [number, number], at?: number | null}} options
 */
export function drawChannels(canvas, group, { input, attr, limit, look, range, at = null }) {
  const dots = globalThis.devicePixelRatio || 1;
  const width = canvas.clientWidth || 600;
  canvas.width = Math.round(width * dots);
  canvas.height = Math.round(HEIGHT * dots);
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.scale(dots, dots);
  const style = getComputedStyle(canvas);
  const steps = input.series.shape[1];
  const [from, to] = range;
  const map = colormap(look.palette, look.sign === "absolute");
  if (attr) drawStrip(context, group, { attr, steps, limit, look, from, to, width, map });
  const ends = extent(group, input.series.data, steps, from, to);
  const inks = ["currentcolor", "#7a7f87", "#8f5fbf", "#2f8f6b", "#b0568a", "#8a7a22"];
  group.forEach((channel, k) => {
    context.strokeStyle = k === 0 ? style.color : inks[k % inks.length];
    drawLine(
      context,
      input.series.data.subarray(channel * steps, (channel + 1) * steps),
      ends,
      from,
      to,
      width,
    );
  });
  if (at !== null && at !== undefined && at >= from && at < to) {
    context.fillStyle = style.color;
    context.fillRect(((at + 0.5 - from) / (to - from)) * width, 0, 1, HEIGHT);
  }
}

/**
 * The colours, a column of the canvas at a time: of the steps in it, the largest.
 * @param {any} context
 * @param {number[]} group
 * @param {any} options
 */
function drawStrip(context, group, { attr, steps, limit, look, from, to, width, map }) {
  for (let column = 0; column < width; column++) {
    const first = from + Math.floor((column / width) * (to - from));
    const last = Math.max(first + 1, from + Math.floor(((column + 1) / width) * (to - from)));
    const value = strongest(group, attr.values.data, steps, first, Math.min(last, to));
    const size = part(value, limit, look.sign);
    context.fillStyle = css(map(size));
    // What lowers is dashed, as an underline is.
    if (!(size < -0.05 && column % 6 > 3)) context.fillRect(column, HEIGHT - STRIP, 1.5, STRIP);
    context.globalAlpha = 0.3 * (Number.isNaN(size) ? 1 : Math.abs(size));
    context.fillRect(column, 0, 1.5, HEIGHT - STRIP);
    context.globalAlpha = 1;
    if (Number.isNaN(size) && column % 4 < 2) {
      context.fillStyle = "#16191d";
      context.fillRect(column, HEIGHT - STRIP, 1, STRIP);
    }
  }
}

/**
 * @param {number[]} group
 * @param {Float32Array} data
 * @param {number} steps
 * @param {number} first
 * @param {number} last
 */
function strongest(group, data, steps, first, last) {
  let best = 0;
  for (const channel of group) {
    for (let i = channel * steps + first; i < channel * steps + last; i++) {
      if (!Number.isFinite(data[i])) return Number.NaN;
      if (Math.abs(data[i]) > Math.abs(best)) best = data[i];
    }
  }
  return best;
}

/**
 * @param {any} context
 * @param {Float32Array} line
 * @param {[number, number]} ends
 * @param {number} from
 * @param {number} to
 * @param {number} width
 */
function drawLine(context, line, [low, high], from, to, width) {
  const y = (/** @type {number} */ v) =>
    4 + (1 - (v - low) / (high - low || 1)) * (HEIGHT - STRIP - 10);
  context.beginPath();
  context.lineWidth = 1.3;
  const columns = Math.min(to - from, Math.ceil(width * 2));
  for (let column = 0; column < columns; column++) {
    const first = from + Math.floor((column * (to - from)) / columns);
    const last = Math.max(first + 1, from + Math.floor(((column + 1) * (to - from)) / columns));
    const x = ((column + 0.5) / columns) * width;
    const [least, most] = endsOf(line, first, last);
    context.lineTo(x, y(least));
    if (most !== least) context.lineTo(x, y(most));
  }
  context.stroke();
}

/**
 * @param {number[]} group
 * @param {Float32Array} data
 * @param {number} steps
 * @param {number} from
 * @param {number} to
 * @returns {[number, number]}
 */
function extent(group, data, steps, from, to) {
  const ends = group.map((channel) => endsOf(data, channel * steps + from, channel * steps + to));
  return [Math.min(...ends.map(([low]) => low)), Math.max(...ends.map(([, high]) => high))];
}

/** @param {Float32Array} data @param {number} from @param {number} to */
function endsOf(data, from, to) {
  let low = Infinity;
  let high = -Infinity;
  for (let i = from; i < to; i++) {
    if (data[i] < low) low = data[i];
    if (data[i] > high) high = data[i];
  }
  return [low, high];
}

/** @param {any} canvas @param {any} actions */
function listen(canvas, { steps, memory, zoom, read, at }) {
  let grip = -1;
  const step = (/** @type {PointerEvent} */ event) => {
    const box = canvas.getBoundingClientRect();
    const [from, to] = memory.range;
    const place = from + Math.floor(((event.clientX - box.left) / box.width) * (to - from));
    return Math.min(to - 1, Math.max(from, place));
  };
  canvas.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => read(step(event)));
  canvas.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
    grip = step(event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointerup", (/** @type {PointerEvent} */ event) => {
    const end = step(event);
    const [low, high] = [Math.min(grip, end), Math.max(grip, end) + 1];
    if (grip >= 0 && high - low > 3) zoom([low, high]);
    grip = -1;
  });
  canvas.addEventListener("dblclick", () => zoom([0, steps]));
  canvas.addEventListener("pointerleave", () => read(null));
  canvas.addEventListener("blur", () => read(null));
  canvas.addEventListener("attrib-zoom", (/** @type {CustomEvent} */ event) => {
    const [from, to] = memory.range;
    const middle = at() ?? (from + to) / 2;
    const half = (to - from) / 2 / (event.detail || 1);
    if (event.detail === 0) zoom([0, steps]);
    else
      zoom([
        Math.max(0, Math.floor(middle - half)),
        Math.min(steps, Math.max(Math.ceil(middle + half), Math.floor(middle - half) + 4)),
      ]);
  });
  canvas.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    const [from, to] = memory.range;
    const now = at() ?? Math.floor((from + to) / 2) - way;
    read(Math.min(to - 1, Math.max(from, now + way * (event.shiftKey ? 10 : 1))));
  });
}
