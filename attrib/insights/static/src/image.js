/** The view of an image: colours over pixels, zoom, a cross and the number under it. */

import { h } from "./dom.js";
import { measured, percent } from "./numbers.js";
import { paint } from "./paint.js";
import { part, signed } from "./scale.js";
import { T } from "./strings.js";

/**
 * @typedef {object} ViewContext
 * @property {any} feature of the config
 * @property {any} input of the row
 * @property {any} attr of the result, or null
 * @property {number} limit what full colour means
 * @property {any} look
 * @property {any} memory kept from one drawing to the next
 * @property {any} cursor shared by all views of a sample
 * @property {string} target
 * @property {boolean} [wide]
 * @property {number | null} [base] where a waterfall begins
 */

/** @param {ViewContext} context */
export function imageView({ feature, input, attr, limit, look, memory, cursor, wide }) {
  const [height, width] = input.pixels.shape;
  const shown = attr && fitted(attr, input.pixels.shape);
  const canvas = h("canvas", {
    role: "img",
    tabIndex: 0,
    "aria-label": T.imageLabel(feature.name, width, height, T.mode[look.mode]),
  });
  const cross = [
    h("div", { class: "cross across", hidden: true }),
    h("div", { class: "cross down", hidden: true }),
  ];
  const box = h("div", { class: "image", "data-feature": feature.name }, canvas, cross);
  const readout = h("div", { class: "readout", "aria-live": "polite" }, T.imageHint);
  memory.view ??= { zoom: 1, x: 0, y: 0 };
  memory.wipe ??= 0;
  canvas.style.setProperty("image-rendering", height < 128 ? "pixelated" : "auto");

  const draw = () => paint(canvas, input.pixels, shown, limit, look, memory.wipe);
  const place = () => {
    const { zoom, x, y } = memory.view;
    canvas.style.transform = `translate(${-100 * x * zoom}%, ${-100 * y * zoom}%) scale(${zoom})`;
    point(cursor.get(feature.name));
  };
  const zoomBy = (/** @type {number} */ factor, fx = 0.5, fy = 0.5) => {
    const { zoom, x, y } = memory.view;
    const next = factor === 0 ? 1 : Math.min(16, Math.max(1, zoom * factor));
    memory.view = held({ zoom: next, x: x + fx / zoom - fx / next, y: y + fy / zoom - fy / next });
    place();
  };

  /** @param {[number, number] | null} at row and column */
  function point(at) {
    for (const line of cross) line.hidden = !at;
    if (!at) {
      readout.textContent = T.imageHint;
      return;
    }
    const { zoom, x, y } = memory.view;
    cross[0].style.top = `${100 * zoom * ((at[0] + 0.5) / height - y)}%`;
    cross[1].style.left = `${100 * zoom * ((at[1] + 0.5) / width - x)}%`;
    const value = shown?.values.data[at[0] * width + at[1]];
    const where = T.pixel(
      original(at[0], input.size[0], height),
      original(at[1], input.size[1], width),
    );
    const share = limit
      ? ` (${percent(part(signed(value, "all"), limit, "all"))} ${T.ofScale})`
      : "";
    readout.textContent = shown
      ? `${where}: ${measured(value, shown.errors?.data[at[0] * width + at[1]])}${share}`
      : where;
    if (value !== undefined) readout.dataset.value = String(value);
  }

  listen(canvas, {
    zoomBy,
    memory,
    place,
    width,
    height,
    move: (at) => cursor.set(feature.name, at),
    at: () => cursor.get(feature.name),
  });
  const stop = cursor.on((/** @type {string} */ name) => {
    if (name === feature.name) point(cursor.get(name));
  });
  draw();
  place();
  const wipe = wide && shown ? wipeField(memory, draw) : null;
  return { el: h("div", { class: "view" }, box, wipe, readout), stop };
}

/** @param {any} canvas @param {any} actions */
function listen(canvas, { zoomBy, memory, place, width, height, move, at }) {
  /** @type {{x: number, y: number} | null} */
  let grip = null;
  const fraction = (/** @type {PointerEvent | WheelEvent} */ event) => {
    const box = canvas.parentElement.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  const inside = (/** @type {number} */ i, /** @type {number} */ n) =>
    Math.min(n - 1, Math.max(0, Math.floor(i)));
  canvas.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    const [fx, fy] = fraction(event);
    const { zoom, x, y } = memory.view;
    if (grip && zoom > 1) {
      memory.view = held({ zoom, x: x - (fx - grip.x) / zoom, y: y - (fy - grip.y) / zoom });
      grip = { x: fx, y: fy };
      place();
    }
    move([
      inside((memory.view.y + fy / zoom) * height, height),
      inside((memory.view.x + fx / zoom) * width, width),
    ]);
  });
  canvas.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
    const [x, y] = fraction(event);
    grip = { x, y };
    canvas.setPointerCapture(event.pointerId);
  });
  for (const end of ["pointerup", "pointercancel"])
    canvas.addEventListener(end, () => (grip = null));
  canvas.addEventListener("pointerleave", () => move(null));
  canvas.addEventListener(
    "wheel",
    (/** @type {WheelEvent} */ event) => {
      // A wheel that scrolls the page is left alone: the image zooms where it is meant.
      if (!event.ctrlKey && document.activeElement !== canvas) return;
      event.preventDefault();
      const [fx, fy] = fraction(event);
      zoomBy(event.deltaY < 0 ? 1.25 : 0.8, fx, fy);
    },
    { passive: false },
  );
  canvas.addEventListener("attrib-zoom", (/** @type {CustomEvent} */ event) =>
    zoomBy(event.detail),
  );
  canvas.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const step = event.shiftKey ? 10 : 1;
    const moves = {
      ArrowUp: [-step, 0],
      ArrowDown: [step, 0],
      ArrowLeft: [0, -step],
      ArrowRight: [0, step],
    };
    const way = moves[event.key];
    if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    const [y, x] = at() ?? [Math.floor(height / 2) - way[0], Math.floor(width / 2) - way[1]];
    move([inside(y + way[0], height), inside(x + way[1], width)]);
  });
  canvas.addEventListener("blur", () => move(null));
}

/** @param {any} memory @param {() => void} draw */
function wipeField(memory, draw) {
  const slider = h("input", {
    type: "range",
    min: 0,
    max: 1,
    step: 0.01,
    value: memory.wipe,
    oninput: () => {
      memory.wipe = Number(slider.value);
      draw();
    },
  });
  return h("label", { class: "tools quiet" }, T.wipe, slider);
}

/** A part of the image that lies inside it. @param {{zoom: number, x: number, y: number}} view */
function held({ zoom, x, y }) {
  const most = 1 - 1 / zoom;
  return { zoom, x: Math.min(most, Math.max(0, x)), y: Math.min(most, Math.max(0, y)) };
}

/** @param {number} i @param {number} full @param {number} size */
function original(i, full, size) {
  return full === size ? i : Math.floor(((i + 0.5) * full) / size);
}

/**
 * An attribution with as many rows and columns as the picture.
 * @param {any} attr
 * @param {number[]} shape
 */
function fitted(attr, [height, width]) {
  const of = (/** @type {any} */ tensor) => {
    if (!tensor || (tensor.shape[0] === height && tensor.shape[1] === width)) return tensor;
    const [rows, columns] = tensor.shape;
    const data = new tensor.data.constructor(height * width);
    for (let i = 0; i < data.length; i++) {
      const y = Math.floor((Math.floor(i / width) * rows) / height);
      data[i] = tensor.data[y * columns + Math.floor(((i % width) * columns) / width)];
    }
    return { data, shape: [height, width] };
  };
  return { values: of(attr.values), segments: of(attr.segments), errors: of(attr.errors) };
}
