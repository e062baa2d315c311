/** Images and their attributions as pixels. Nothing here touches the page but the canvas given. */

import { colormap, css, MISSING } from "./colors.js";
import { part } from "./scale.js";

/** @typedef {import("./frames.js").Tensor} Tensor */
/**
 * @typedef {import("./scale.js").Sign} Sign
 * @typedef {{mode: string, sign: Sign, opacity: number, palette: string, quantile: number}} Look
 */

const MOST_NUMBERED = 40;

/**
 * How many canvas pixels one pixel of the data gets.
 * @param {number} height
 * @param {number} width
 */
function zoomOf(height, width) {
  return Math.max(1, Math.ceil(384 / Math.max(height, width)));
}

/**
 * Draw an image under its attribution, `zoom` canvas pixels to a pixel.
 * @param {HTMLCanvasElement} canvas
 * @param {Tensor} pixels uint8 (H, W, 1 or 3)
 * @param {{values: Tensor, segments?: Tensor | null} | null} attr
 * @param {number} limit
 * @param {Look} look
 * @param {number} [wipe] the left part that shows the image alone, in [0, 1]
 */
export function paint(canvas, pixels, attr, limit, look, wipe = 0) {
  const [height, width] = pixels.shape;
  const zoom = zoomOf(height, width);
  canvas.width = width * zoom;
  canvas.height = height * zoom;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const small = new OffscreenCanvas(width, height);
  const inside = /** @type {OffscreenCanvasRenderingContext2D} */ (small.getContext("2d"));
  inside.putImageData(mixed(pixels, attr, limit, look, Math.round(wipe * width)), 0, 0);
  context.imageSmoothingEnabled = zoom < 3;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  if (!attr || look.mode === "original") return;
  context.beginPath();
  context.rect(Math.round(wipe * width) * zoom, 0, canvas.width, canvas.height);
  context.clip();
  if (look.mode === "contour") contours(context, attr.values, limit, look, zoom);
  if (look.mode === "top") outlineTop(context, attr.values, look, zoom);
  if (attr.segments) {
    outlineSegments(context, attr.segments, zoom);
    numberSegments(context, attr.segments, zoom);
  }
  hatch(context, attr.values, zoom);
}

/**
 * The part of the largest sizes that `quantile` per cent of the entries reach.
 * @param {ArrayLike<number>} values
 * @param {number} quantile
 */
function topThreshold(values, quantile) {
  const sizes = Float64Array.from(values, (v) => (Number.isFinite(v) ? Math.abs(v) : 0)).sort();
  const kept = Math.max(1, Math.round((quantile / 100) * sizes.length));
  return Math.max(sizes[sizes.length - kept], Number.MIN_VALUE);
}

/**
 * @param {Tensor} pixels
 * @param {any} attr
 * @param {number} limit
 * @param {Look} look
 * @param {number} from first column drawn over
 */
function mixed(pixels, attr, limit, look, from) {
  const [height, width, channels] = pixels.shape;
  const image = new ImageData(width, height);
  const colors = table(look.palette, look.sign === "absolute");
  const threshold = attr && look.mode === "top" ? topThreshold(attr.values.data, look.quantile) : 0;
  const [below, under, over] = [
    [0, 0, 0],
    [0, 0, 0],
    [0, 0, 0],
  ];
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 3; c++) below[c] = pixels.data[channels === 1 ? i : 3 * i + c];
    let weight = 0;
    if (attr && i % width >= from) {
      const value = attr.values.data[i];
      const size = part(value, limit, look.sign);
      for (let c = 0; c < 3; c++) over[c] = colors(size, c);
      weight = layered(below, under, over, size, Math.abs(value) >= threshold, look);
    } else for (let c = 0; c < 3; c++) under[c] = below[c];
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = under[c] + (over[c] - under[c]) * weight;
    image.data[4 * i + 3] = 255;
  }
  return image;
}

/**
 * What lies under and over at one pixel, in place; returns the weight of the upper.
 * @param {number[]} below the image @param {number[]} under @param {number[]} over the colour
 * @param {number} size @param {boolean} top @param {Look} look
 */
function layered(below, under, over, size, top, { mode, opacity }) {
  const strength = Number.isNaN(size) ? 1 : Math.abs(size);
  const grey = 0.299 * below[0] + 0.587 * below[1] + 0.114 * below[2];
  const faint = mode === "overlay" || mode === "blend";
  for (let c = 0; c < 3; c++) {
    under[c] = faint ? grey : below[c];
    if (mode === "mask") over[c] = 0;
    else if (mode === "top") over[c] = grey * 0.35;
    else if (mode === "alpha") over[c] = 247;
  }
  if (mode === "heatmap") return 1;
  if (mode === "blend") return opacity;
  if (mode === "overlay") return opacity * Math.sqrt(strength);
  if (mode === "mask" || mode === "alpha") return 1 - strength;
  return mode === "top" && !top ? 0.85 : 0;
}

/**
 * A colour map that is looked up, a channel at a time.
 * @param {string} palette
 * @param {boolean} magnitude
 */
function table(palette, magnitude) {
  const map = colormap(palette, magnitude);
  const colors = Array.from({ length: 1025 }, (_, i) => map(i / 512 - 1));
  const missing = map(Number.NaN);
  return (/** @type {number} */ value, /** @type {number} */ c) =>
    Number.isNaN(value) ? missing[c] : colors[Math.round((value + 1) * 512)][c];
}

/**
 * Lines around what exceeds a quarter, a half, three quarters of the scale; dashed where it lowers.
 * @param {any} context
 * @param {Tensor} values
 * @param {number} limit
 * @param {Look} look
 * @param {number} zoom
 */
function contours(context, values, limit, look, zoom) {
  const map = colormap(look.palette);
  for (const way of [1, -1]) {
    for (const level of [0.25, 0.5, 0.75]) {
      const inside = (/** @type {number} */ i) =>
        way * part(values.data[i], limit, look.sign) >= level;
      stroke(
        context,
        edges(values.shape, inside),
        zoom,
        css(map(way * 0.6)),
        way < 0 ? [4, 3] : [],
      );
    }
  }
}

/** @param {any} context @param {Tensor} values @param {Look} look @param {number} zoom */
function outlineTop(context, values, look, zoom) {
  const threshold = topThreshold(values.data, look.quantile);
  const map = colormap(look.palette);
  for (const way of [1, -1]) {
    const inside = (/** @type {number} */ i) => way * values.data[i] >= threshold;
    stroke(context, edges(values.shape, inside), zoom, css(map(way * 0.6)), way < 0 ? [4, 3] : []);
  }
}

/** @param {any} context @param {Tensor} segments @param {number} zoom */
function outlineSegments(context, { data, shape: [height, width] }, zoom) {
  const path = new Path2D();
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const here = data[y * width + x];
      if (x + 1 < width && data[y * width + x + 1] !== here) segment(path, x + 1, y, x + 1, y + 1);
      if (y + 1 < height && data[(y + 1) * width + x] !== here)
        segment(path, x, y + 1, x + 1, y + 1);
    }
  }
  stroke(context, path, zoom, "#16191d", [], 1);
}

/**
 * The numbers of segments, where there are few enough to be read.
 * @param {any} context
 * @param {Tensor} segments
 * @param {number} zoom
 */
function numberSegments(context, { data, shape: [height, width] }, zoom) {
  /** @type {Map<number, [number, number, number]>} */
  const middles = new Map();
  for (let i = 0; i < height * width; i++) {
    const [x, y, count] = middles.get(data[i]) ?? [0, 0, 0];
    middles.set(data[i], [x + (i % width) + 0.5, y + Math.floor(i / width) + 0.5, count + 1]);
  }
  if (middles.size > MOST_NUMBERED) return;
  context.save();
  Object.assign(context, { font: "13px system-ui, sans-serif", textAlign: "center", lineWidth: 3 });
  Object.assign(context, { textBaseline: "middle", strokeStyle: "#ffffffc0" });
  context.fillStyle = "#16191d";
  for (const [id, [x, y, count]] of middles) {
    const place = [(x / count) * zoom, (y / count) * zoom];
    context.strokeText(id + 1, ...place);
    context.fillText(id + 1, ...place);
  }
  context.restore();
}

/**
 * Diagonal lines over what is not a number.
 * @param {any} context
 * @param {Tensor} values
 * @param {number} zoom
 */
function hatch(context, { data, shape: [height, width] }, zoom) {
  if (data.every(Number.isFinite)) return;
  context.save();
  const region = new Path2D();
  for (let i = 0; i < height * width; i++) {
    if (!Number.isFinite(data[i]))
      region.rect((i % width) * zoom, Math.floor(i / width) * zoom, zoom, zoom);
  }
  context.fillStyle = MISSING;
  context.fill(region);
  context.clip(region);
  const lines = new Path2D();
  for (let at = -height * zoom; at < width * zoom; at += 8) {
    lines.moveTo(at, height * zoom);
    lines.lineTo(at + height * zoom, 0);
  }
  context.strokeStyle = "#16191d";
  context.lineWidth = 1.5;
  context.stroke(lines);
  context.restore();
}

/**
 * The borders of a set of pixels.
 * @param {number[]} shape
 * @param {(i: number) => boolean} inside
 */
function edges([height, width], inside) {
  const at = (/** @type {number} */ y, /** @type {number} */ x) =>
    y >= 0 && x >= 0 && y < height && x < width && inside(y * width + x);
  const path = new Path2D();
  for (let y = 0; y <= height; y++) {
    for (let x = 0; x <= width; x++) {
      if (at(y, x) !== at(y - 1, x)) segment(path, x, y, x + 1, y);
      if (at(y, x) !== at(y, x - 1)) segment(path, x, y, x, y + 1);
    }
  }
  return path;
}

/**
 * @param {Path2D} path
 * @param {number} x0
 * @param {number} y0
 * @param {number} x1
 * @param {number} y1
 */
function segment(path, x0, y0, x1, y1) {
  path.moveTo(x0, y0);
  path.lineTo(x1, y1);
}

/**
 * A line with a light rim, to be seen on any picture.
 * @param {any} context
 * @param {Path2D} path
 * @param {number} zoom
 * @param {string} color
 * @param {number[]} dash
 * @param {number} [width]
 */
function stroke(context, path, zoom, color, dash, width = 2) {
  context.save();
  const scaled = new Path2D();
  scaled.addPath(path, new DOMMatrix([zoom, 0, 0, zoom, 0, 0]));
  context.strokeStyle = "#ffffffb0";
  context.lineWidth = width + 1.5;
  context.stroke(scaled);
  context.strokeStyle = color;
  context.lineWidth = width;
  context.setLineDash(dash);
  context.stroke(scaled);
  context.restore();
}
