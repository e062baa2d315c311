/** A card as a drawing: an SVG with everything in it, from which the PNG is made. */

import { colormap, css, ink, MAGNITUDES, PALETTES } from "./colors.js";
import { svg } from "./dom.js";
import { numeric } from "./frames.js";
import { number, percent } from "./numbers.js";
import { part } from "./scale.js";
import { T } from "./strings.js";
import { ranked } from "./tabular.js";
import { merged } from "./text.js";

const WIDTH = 640;
const MARGIN = 20;
const INNER = WIDTH - 2 * MARGIN;

/**
 * @param {any} app
 * @param {any} panel one that shows a result
 * @returns {SVGElement}
 */
export function figureOf(app, panel) {
  const { config, store } = app;
  const { row, result } = panel;
  const look = store.get();
  const sheet = createSheet();
  sheet.text(`${T.sample(row.name)}${config.models.length > 1 ? ` · ${result.model}` : ""}`, {
    size: 17,
    weight: 650,
  });
  sheet.text(panel.el.querySelector(".caption").textContent, { size: 12, color: "#454d56" });
  if (config.features.length > 1) {
    sheet.text(T.shares, { size: 13, weight: 600 });
    drawBars(
      sheet,
      result.shares.map((/** @type {any} */ s) => ({
        label: s.feature,
        value: numeric(s.share ?? 0),
        text: percent(numeric(s.share ?? 0)),
      })),
      1,
      look,
    );
  }
  for (const feature of config.features) {
    const attr = result.features[feature.name];
    if (!attr) continue;
    if (config.features.length > 1) sheet.text(feature.name, { size: 13, weight: 600 });
    const { limit } = panel.limits(feature.name, attr);
    const own = attr.signed === false ? { ...look, sign: "absolute" } : look;
    drawFeature(sheet, {
      feature,
      input: row.features[feature.name],
      attr,
      limit,
      look: own,
      el: panel.el,
    });
    drawLegend(sheet, limit, own, result.target.name);
  }
  for (const attr of result.extra) {
    sheet.text(attr.name, { size: 13, weight: 600 });
    const { limit } = panel.limits(attr.name, attr);
    const feature = { name: attr.name, columns: [] };
    drawFeature(sheet, { feature, input: {}, attr, limit, look, el: panel.el });
    drawLegend(sheet, limit, look, result.target.name);
  }
  return sheet.done();
}

/** @param {SVGElement} figure */
export function svgFile(figure) {
  return new Blob([new XMLSerializer().serializeToString(figure)], { type: "image/svg+xml" });
}

/** The drawing as pixels, twice as dense. @param {SVGElement} figure @returns {Promise<Blob>} */
export async function pngFile(figure) {
  const url = URL.createObjectURL(svgFile(figure));
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = 2 * WIDTH;
    canvas.height = 2 * Number(figure.getAttribute("height"));
    canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((resolve, reject) =>
      canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error(T.noPicture)))),
    );
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** A page that grows downwards. */
function createSheet() {
  const root = svg("svg", {
    xmlns: "http://www.w3.org/2000/svg",
    width: WIDTH,
    "font-family": "system-ui, sans-serif",
  });
  const paper = svg("rect", { width: WIDTH, fill: "#ffffff" });
  root.append(paper);
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
    /** Text that wraps. */
    text(/** @type {string} */ words, { size = 12, weight = 400, color = "#16191d" } = {}) {
      let line = "";
      const flush = () => {
        y += size * 1.35;
        root.append(
          svg(
            "text",
            { x: MARGIN, y, "font-size": size, "font-weight": weight, fill: color },
            line.trimEnd(),
          ),
        );
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

/** @param {any} sheet @param {any} context */
function drawFeature(sheet, { feature, input, attr, limit, look, el }) {
  const canvases = [...el.querySelectorAll(`[data-feature="${CSS.escape(feature.name)}"] canvas`)];
  if (attr.kind === "text")
    drawTokens(
      sheet,
      merged(input, attr.values.data, look.merge === "default" ? feature.merge : look.merge),
      limit,
      look,
    );
  else if (attr.kind === "tabular") {
    const items = feature.columns.map((/** @type {any} */ column, /** @type {number} */ i) => ({
      label: `${column.name} = ${input.text[i]}`,
      value: attr.values.data[i],
    }));
    drawBars(sheet, ranked(items, look.top), limit, look);
  } else if (attr.kind === "array") {
    const values = attr.top.values.data ?? attr.top.values;
    drawBars(
      sheet,
      Array.from(values, (value, i) => ({
        label: `[${attr.top.index[i].join(", ")}]`,
        value: Number(value),
      })).slice(0, look.top),
      limit,
      look,
    );
  } else for (const canvas of canvases) drawCanvas(sheet, canvas, attr.kind === "image");
}

/** @param {any} sheet @param {HTMLCanvasElement} canvas @param {boolean} square */
function drawCanvas(sheet, canvas, square) {
  const width = square ? Math.min(INNER, (480 * canvas.width) / canvas.height) : INNER;
  const height = (width * canvas.height) / canvas.width;
  sheet.add(
    svg("image", {
      x: MARGIN,
      y: sheet.y,
      width,
      height,
      href: canvas.toDataURL("image/png"),
      "data-part": "picture",
    }),
  );
  sheet.skip(height + 8);
}

/** @param {any} sheet @param {any[]} pieces @param {number} limit @param {any} look */
function drawTokens(sheet, pieces, limit, look) {
  const map = colormap(look.palette, look.sign === "absolute");
  const size = 14;
  let x = MARGIN;
  for (const { text, value } of pieces) {
    const width = sheet.measure(text, size);
    if (x + width > WIDTH - MARGIN && x > MARGIN) {
      x = MARGIN;
      sheet.skip(24);
    }
    const color = map(part(value, limit, look.sign));
    sheet.add(
      svg("rect", { x, y: sheet.y, width, height: 20, fill: css(color) }),
      svg(
        "text",
        { x, y: sheet.y + 15, "font-size": size, fill: ink(color), "xml:space": "preserve" },
        text,
      ),
    );
    x += width;
  }
  sheet.skip(30);
}

/** @param {any} sheet @param {any[]} items @param {number} limit @param {any} look */
function drawBars(sheet, items, limit, look) {
  const map = colormap(look.palette, look.sign === "absolute");
  const [left, right] = [MARGIN + 200, WIDTH - MARGIN - 80];
  const middle = (left + right) / 2;
  for (const { label, value, text } of items) {
    const size = part(value, limit, look.sign);
    const reach = (Number.isNaN(size) ? 0 : size) * (right - middle);
    const short = label.length > 30 ? `${label.slice(0, 29)}…` : label;
    sheet.add(
      svg(
        "text",
        { x: left - 8, y: sheet.y + 14, "font-size": 12, "text-anchor": "end", fill: "#16191d" },
        short,
      ),
      svg("rect", {
        x: Math.min(middle, middle + reach),
        y: sheet.y + 3,
        width: Math.max(1, Math.abs(reach)),
        height: 14,
        fill: css(map(size * 0.9)),
      }),
      svg(
        "text",
        { x: right + 72, y: sheet.y + 14, "font-size": 12, "text-anchor": "end", fill: "#16191d" },
        text ?? number(value, { sign: true }),
      ),
    );
    sheet.skip(20);
  }
  sheet.add(
    svg("line", {
      x1: middle,
      x2: middle,
      y1: sheet.y - 20 * items.length,
      y2: sheet.y,
      stroke: "#545e69",
    }),
  );
  sheet.skip(8);
}

/** @param {any} sheet @param {number} limit @param {any} look @param {string} target */
function drawLegend(sheet, limit, look, target) {
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
  sheet.add(
    ramp,
    svg("rect", {
      x: MARGIN,
      y: sheet.y,
      width: INNER,
      height: 10,
      fill: `url(#${id})`,
      stroke: "#838d98",
      "data-part": "legend",
    }),
  );
  sheet.skip(10);
  const [low, high] = absolute
    ? ["0", `${number(limit)} ${T.size}`]
    : [`−${number(limit)} ${T.lowers}`, `+${number(limit)} ${T.raises} ${target}`];
  sheet.add(
    svg("text", { x: MARGIN, y: sheet.y + 15, "font-size": 11, fill: "#454d56" }, low),
    svg(
      "text",
      {
        x: WIDTH - MARGIN,
        y: sheet.y + 15,
        "font-size": 11,
        "text-anchor": "end",
        fill: "#454d56",
      },
      high,
    ),
  );
  sheet.skip(26);
}
