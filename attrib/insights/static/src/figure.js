/** A card as a drawing: an SVG with everything in it, from which the PNG is made. */

import { numeric } from "./frames.js";
import { scaleWords } from "./legend.js";
import { measured, number, percent } from "./numbers.js";
import { clippedShare } from "./scale.js";
import {
  createSheet,
  drawBars,
  drawCanvas,
  drawLegend,
  drawMatrix,
  drawTokens,
  WIDTH,
} from "./sheet.js";
import { T } from "./strings.js";
import { ranked } from "./tabular.js";
import { merged, mergeOf } from "./text.js";
import { silence, troubles } from "./views.js";

/**
 * @param {any} app
 * @param {any} panel one that shows a result
 * @returns {SVGElement}
 */
export function figureOf(app, panel) {
  const { config, store } = app;
  const { row, result } = panel;
  const sheet = createSheet();
  const title = { size: 13, weight: 600 };
  sheet.text(`${T.sample(row.name)}${config.models.length > 1 ? ` · ${result.model}` : ""}`, {
    size: 17,
    weight: 650,
  });
  sheet.text(panel.el.querySelector(".caption").textContent, { color: "#454d56" });
  if (config.features.length > 1) {
    sheet.text(T.shares, title);
    drawBars(sheet, result.shares.map(shareItem), 1, { ...store.get(), sign: "all" });
  }
  for (const feature of config.features) {
    const attr = result.features[feature.name];
    if (config.features.length > 1) sheet.text(feature.name, title);
    if (attr) draw(feature, row.features[feature.name], attr);
    else sheet.text(silence(result, feature.name));
  }
  for (const attr of result.extra) {
    sheet.text(attr.name, title);
    draw({ name: attr.name, columns: [] }, {}, attr);
  }
  return sheet.done();

  /** @param {any} feature @param {any} input @param {any} attr */
  function draw(feature, input, attr) {
    const { limit, shared } = panel.limits(feature.name, attr);
    const look = attr.signed === false ? { ...store.get(), sign: "absolute" } : store.get();
    drawFeature(sheet, { feature, input, attr, limit, look, el: panel.el });
    const scale = { clipped: clippedShare(attr, limit, shared), shared };
    drawLegend(sheet, limit, look, result.target.name, scaleWords(scale, result.unit));
    for (const words of troubles(attr, result, feature.name)) sheet.text(words);
  }
}

/** @param {any} share */
function shareItem({ feature, net, share }) {
  const value = numeric(share ?? 0);
  const words = T.net(number(numeric(net), { sign: true }));
  return { label: feature, value, text: `${share === null ? "–" : percent(value)}, ${words}` };
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

/** @param {any} sheet @param {any} context */
function drawFeature(sheet, { feature, input, attr, limit, look, el }) {
  if (attr.kind === "matrix") drawMatrix(sheet, attr, limit, look);
  else if (attr.kind === "text")
    drawTokens(sheet, merged(input, attr.values.data, mergeOf(feature, attr, look)), limit, look);
  else if (attr.kind === "tabular") {
    const items = feature.columns.map((/** @type {any} */ column, /** @type {number} */ i) => ({
      label: `${column.name} = ${input.text[i]}`,
      value: attr.values.data[i],
      text: attr.errors ? measured(attr.values.data[i], attr.errors.data[i]) : undefined,
    }));
    drawBars(sheet, ranked(items, look.top), limit, look);
  } else if (attr.kind === "array") {
    const values = attr.top.values.data ?? attr.top.values;
    const items = Array.from(values, (value, i) => ({
      label: `[${attr.top.index[i].join(", ")}]`,
      value: Number(value),
    }));
    drawBars(sheet, items.slice(0, look.top), limit, look);
  } else
    for (const canvas of el.querySelectorAll(`[data-feature="${CSS.escape(feature.name)}"] canvas`))
      drawCanvas(sheet, canvas, attr.kind === "image");
}
