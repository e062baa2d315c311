/** Colour maps. The values are those of attrib/plot/colors.py; a test compares the two. */

/** @typedef {[number, number, number]} Rgb */

/** Evenly spaced from -1 (lowers the score) over 0 to +1 (raises it). */
export const PALETTES = {
  attrib: ["#14549c", "#62a0d8", "#f7f7f7", "#f0a24d", "#a34a00"],
  rdbu: [
    "#053061",
    "#2166ac",
    "#4393c3",
    "#92c5de",
    "#d1e5f0",
    "#f7f7f7",
    "#fddbc7",
    "#f4a582",
    "#d6604d",
    "#b2182b",
    "#67001f",
  ],
  coolwarm: [
    "#3b4cc0",
    "#6282ea",
    "#8db0fe",
    "#b9d0f9",
    "#dddcdc",
    "#f5c4ac",
    "#f4987a",
    "#dd5f4b",
    "#b40426",
  ],
  captum: ["#ff0000", "#ffffff", "#008000"],
};

/** Evenly spaced from 0 to 1, for numbers without a sign. */
export const MAGNITUDES = {
  attrib: ["#f7f7f7", "#a58fd0", "#4b1d91"],
  rdbu: ["#f7f7f7", "#a58fd0", "#4b1d91"],
  coolwarm: ["#dddcdc", "#a58fd0", "#4b1d91"],
  captum: ["#ffffff", "#0000ff"],
};

/** What stands for a number that is NaN or infinite, under hatching. */
export const MISSING = "#b8b8b8";

/**
 * The colour of a value in [-1, 1], or of one in [0, 1] for sizes.
 * @param {string} palette
 * @param {boolean} [magnitude]
 * @returns {(value: number) => Rgb}
 */
export function colormap(palette, magnitude = false) {
  const stops = (magnitude ? MAGNITUDES : PALETTES)[palette].map(rgb);
  const last = stops.length - 1;
  const missing = rgb(MISSING);
  return (value) => {
    if (Number.isNaN(value)) return missing;
    const place = Math.min(last, Math.max(0, (magnitude ? value : (value + 1) / 2) * last));
    const low = Math.min(last - 1, Math.floor(place));
    const part = place - low;
    return /** @type {Rgb} */ (
      stops[low].map((channel, i) => Math.round(channel + (stops[low + 1][i] - channel) * part))
    );
  };
}

/** The gradient of a palette, for legends. @param {string} palette @param {boolean} magnitude */
export function gradient(palette, magnitude) {
  return `linear-gradient(to right, ${(magnitude ? MAGNITUDES : PALETTES)[palette].join(", ")})`;
}

/** @param {Rgb} color */
export function css(color) {
  return `rgb(${color[0]}, ${color[1]}, ${color[2]})`;
}

/** Black or white, whichever is easier to read on a colour. @param {Rgb} color */
export function ink(color) {
  const light = luminance(color);
  return (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) ? "#000000" : "#ffffff";
}

/** The relative luminance of WCAG 2.1. @param {Rgb} color */
function luminance(color) {
  const [r, g, b] = color.map((channel) => {
    const s = channel / 255;
    return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** @param {string} hex @returns {Rgb} */
function rgb(hex) {
  return /** @type {Rgb} */ ([1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
}
