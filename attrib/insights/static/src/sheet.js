/** Paper: an SVG that grows downwards, and what is drawn on it. Signs are told without colours. */

import { colormap, css, ink, MAGNITUDES, MISSING, PALETTES } from "./colors.js";
import { svg } from "./dom.js";
import { number } from "./numbers.js";
import { part } from "./scale.js";
import { T } from "./strings.js";

export const WIDTH = 640;
const MARGIN = 20;
const INNER = WIDTH - 2 * MARGIN;
const INK = "#16191d";
const SOFT = "#454d56";

/** A page without anything on it. */
export function createSheet() {
  const root = svg("svg", {
    xmlns: "http://www.w3.org/2000/svg",
    width: WIDTH,
    "font-family": "system-ui, sans-serif",
  });
  const paper = svg("rect", { width: WIDTH, fill: "#ffffff" });
  root.append(paper, hatching("hatch", 3), hatching("missing", 6));
  const pen = /** @type {CanvasRenderingContext2D} */ (
    document.createElement("canvas").getContext("2d")
  );
  let y = MARGIN;
  const sheet = {
    get y() {
      return y;
    },
    skip: (/** @type {number} */ height) => (y += height),
    add: (/** @type {any[]} */ ...nodes) => root.append(...nodes),
    measure(/** @type {string} */ words, /** @type {number} */ size, weight = 400) {
      pen.font = `${weight} ${size}px system-ui, sans-serif`;
      return pen.measureText(words).width;
    },
    /** Words in one line. */
    write(
      /** @type {number} */ x,
      /** @type {number} */ down,
      /** @type {string} */ words,
      { size = 12, anchor = "start", fill = INK, ...more } = {},
    ) {
      const place = { x, y: y + down, "font-size": size, "text-anchor": anchor, fill };
      root.append(svg("text", { ...place, ...more }, words));
    },
    /** Text that wraps. */
    text(/** @type {string} */ words, { size = 12, weight = 400, color = INK } = {}) {
      let line = "";
      const flush = () => {
        y += size * 1.35;
        sheet.write(MARGIN, 0, line.trimEnd(), { size, fill: color, "font-weight": weight });
        line = "";
      };
      for (const word of words.split(/(?<=\s)/)) {
        if (line && sheet.measure(line + word, size, weight) > INNER) flush();
        line += word;
      }
      flush();
      y += 6;
    },
    done() {
      y += MARGIN;
      const height = Math.ceil(y);
      root.setAttribute("height", height);
      root.setAttribute("viewBox", `0 0 ${WIDTH} ${height}`);
      paper.setAttribute("height", height);
      return root;
    },
  };
  return sheet;
}

/** Diagonal lines, for what lowers and for what is no number. @param {string} id @param {number} step */
function hatching(id, step) {
  return svg(
    "pattern",
    {
      id,
      width: step,
      height: step,
      patternUnits: "userSpaceOnUse",
      patternTransform: "rotate(45)",
    },
    svg("line", { x1: 0, x2: 0, y1: 0, y2: step, stroke: INK, "stroke-width": 1 }),
  );
}

/** @param {any} sheet @param {HTMLCanvasElement} canvas @param {boolean} square */
export function drawCanvas(sheet, canvas, square) {
  const width = square ? Math.min(INNER, (480 * canvas.width) / canvas.height) : INNER;
  const height = (width * canvas.height) / canvas.width;
  const href = canvas.toDataURL("image/png");
  sheet.add(
    svg("image", { x: MARGIN, y: sheet.y, width, height, href, "data-part": "picture" }),
  );
  sheet.skip(height + 8);
}

/**
 * Tokens, underlined: solid where they raise, dashed where they lower.
 * @param {any} sheet
 * @param {any[]} pieces
 * @param {number} limit
 * @param {any} look
 */
export function drawTokens(sheet, pieces, limit, look) {
  const map = colormap(look.palette, look.sign === "absolute");
  const size = 14;
  let x = MARGIN;
  for (const { text, value } of pieces) {
    const width = sheet.measure(text, size);
    if (x + width > WIDTH - MARGIN && x > MARGIN) {
      x = MARGIN;
      sheet.skip(26);
    }
    const reach = part(value, limit, look.sign);
    const color = map(reach);
    const { y } = sheet;
    sheet.add(svg("rect", { x, y, width, height: 20, fill: css(color) }));
    if (Number.isNaN(reach)) sheet.add(svg("rect", { x, y, width, height: 20, fill: "url(#missing)" }));
    sheet.write(x, 14, text, { size, fill: ink(color), "xml:space": "preserve" });
    if (Math.abs(reach) >= 0.05) {
      const dashes = reach < 0 ? { "stroke-dasharray": "4 3" } : {};
      const line = { x1: x, x2: x + width, y1: y + 18, y2: y + 18, stroke: ink(color) };
      const way = reach < 0 ? "lowers" : "raises";
      sheet.add(svg("line", { ...line, "stroke-width": 1.6, ...dashes, "data-part": way }));
    }
    x += width;
  }
  sheet.skip(32);
}

/**
 * Bars from a line at zero, hatched where they lower.
 * @param {any} sheet
 * @param {Array<{label: string, value: number, text?: string}>} items
 * @param {number} limit
 * @param {any} look
 */
export function drawBars(sheet, items, limit, look) {
  const map = colormap(look.palette, look.sign === "absolute");
  const [left, right] = [MARGIN + 200, WIDTH - MARGIN - 140];
  const middle = (left + right) / 2;
  const top = sheet.y;
  for (const { label, value, text } of items) {
    const size = part(value, limit, look.sign);
    const reach = (Number.isNaN(size) ? 0 : size) * (right - middle);
    const short = label.length > 30 ? `${label.slice(0, 29)}…` : label;
    const bar = {
      x: Math.min(middle, middle + reach),
      y: sheet.y + 3,
      width: Math.max(1, Math.abs(reach)),
      height: 14,
    };
    sheet.write(left - 8, 14, short, { anchor: "end" });
    sheet.add(svg("rect", { ...bar, fill: css(map(size * 0.9)), stroke: "#16191d66" }));
    if (reach < 0)
      sheet.add(svg("rect", { ...bar, fill: "url(#hatch)", opacity: 0.45, "data-part": "lowers" }));
    const words = text ?? number(value, { sign: look.sign !== "absolute" });
    sheet.write(WIDTH - MARGIN, 14, words, { anchor: "end" });
    sheet.skip(20);
  }
  sheet.add(svg("line", { x1: middle, x2: middle, y1: top, y2: sheet.y, stroke: "#545e69" }));
  sheet.skip(8);
}

/**
 * A matrix: its cells as a picture, a stroke in those that lower; names and numbers where they fit.
 * @param {any} sheet
 * @param {any} attr
 * @param {number} limit
 * @param {any} look
 */
export function drawMatrix(sheet, { rows, columns, values }, limit, look) {
  const map = colormap(look.palette, look.sign === "absolute");
  const side = Math.min(40, (INNER - 110) / columns.length, 900 / rows.length);
  const left = MARGIN + 110;
  const named = side >= 9;
  const short = (/** @type {string} */ text) => (text.length > 14 ? `${text.slice(0, 13)}…` : text);
  const canvas = document.createElement("canvas");
  const dots = Math.max(1, Math.round(2 * side));
  canvas.width = columns.length * dots;
  canvas.height = rows.length * dots;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  if (named) {
    sheet.skip(78);
    columns.forEach((/** @type {string} */ text, /** @type {number} */ j) => {
      const x = left + (j + 0.65) * side;
      const turned = { transform: `rotate(-60 ${x} ${sheet.y - 4})` };
      sheet.write(x, -4, short(text), { size: 10, ...turned });
    });
  }
  const top = sheet.y;
  rows.forEach((/** @type {string} */ text, /** @type {number} */ i) => {
    if (named) sheet.write(left - 6, (i + 0.5) * side + 4, short(text), { size: 10, anchor: "end" });
    for (let j = 0; j < columns.length; j++) {
      const reach = part(values.data[i * columns.length + j], limit, look.sign);
      context.fillStyle = Number.isNaN(reach) ? MISSING : css(map(reach));
      context.fillRect(j * dots, i * dots, dots, dots);
      if (reach < -0.05 && dots > 5) stroke(context, j * dots, i * dots, dots, ink(map(reach)));
    }
  });
  const size = { width: columns.length * side, height: rows.length * side };
  const href = canvas.toDataURL("image/png");
  sheet.add(svg("image", { x: left, y: top, ...size, href, "data-part": "matrix" }));
  if (side >= 30)
    values.data.forEach((/** @type {number} */ value, /** @type {number} */ at) => {
      const [i, j] = [Math.floor(at / columns.length), at % columns.length];
      const fill = ink(map(part(value, limit, look.sign)));
      const words = number(value, { digits: 2 });
      sheet.write(left + (j + 0.5) * side, (i + 0.5) * side + 3, words, {
        size: 9,
        anchor: "middle",
        fill,
      });
    });
  sheet.skip(size.height + 10);
}

/** A stroke in the corner of a cell. @param {any} context @param {number} x @param {number} y
 * @param {number} size @param {string} color */
function stroke(context, x, y, size, color) {
  context.strokeStyle = color;
  context.beginPath();
  context.moveTo(x + 1, y + 0.3 * size);
  context.lineTo(x + 0.3 * size, y + 1);
  context.stroke();
}

/**
 * What the colours say, as under a view.
 * @param {any} sheet
 * @param {number} limit
 * @param {any} look
 * @param {string} target
 * @param {string} words
 */
export function drawLegend(sheet, limit, look, target, words) {
  const absolute = look.sign === "absolute";
  const stops = (absolute ? MAGNITUDES : PALETTES)[look.palette];
  const id = `ramp-${Math.round(sheet.y)}`;
  const ramp = svg(
    "linearGradient",
    { id },
    stops.map((/** @type {string} */ color, /** @type {number} */ i) =>
      svg("stop", { offset: i / (stops.length - 1), "stop-color": color }),
    ),
  );
  const bar = { x: MARGIN, y: sheet.y, width: INNER, height: 10 };
  sheet.add(
    ramp,
    svg("rect", { ...bar, fill: `url(#${id})`, stroke: "#838d98", "data-part": "legend" }),
  );
  sheet.skip(10);
  const [low, high] = absolute
    ? ["0", `${number(limit)} ${T.size}`]
    : [`−${number(limit)} ${T.lowers}`, `+${number(limit)} ${T.raises} ${target}`];
  sheet.write(MARGIN, 15, low, { size: 11, fill: SOFT });
  sheet.write(WIDTH - MARGIN, 15, high, { size: 11, fill: SOFT, anchor: "end" });
  sheet.write(MARGIN, 30, words, { size: 11, fill: SOFT });
  sheet.skip(42);
}
