/** Signed bars with numbers: features of a table, shares of modalities, the largest entries. */

import { colormap, css } from "./colors.js";
import { h, name } from "./dom.js";
import { number } from "./numbers.js";
import { part, signed } from "./scale.js";

/** @typedef {{label: string, detail?: string, value: number, start?: number, text?: string}} Bar */

/**
 * @param {Bar[]} items `start` moves a bar's beginning away from zero, as in a waterfall
 * @param {{limit: number, sign?: import("./scale.js").Sign, palette?: string, label: string}} options
 */
export function bars(items, { limit, sign = "all", palette = "attrib", label }) {
  const map = colormap(palette, sign === "absolute");
  const [low, high] = range(items, limit, sign);
  const at = (/** @type {number} */ x) =>
    (100 * (Math.min(high, Math.max(low, x)) - low)) / (high - low || 1);
  return h("div", { class: "bars", role: "list", "aria-label": label }, items.map(line));

  /** @param {Bar} item */
  function line({ label: title, detail, value, start = 0, text }) {
    const shown = Number.isFinite(value) ? signed(value, sign) : 0;
    const [from, to] = [at(start), at(start + shown)];
    const bar = h("div", {
      class: `bar ${shown < 0 ? "lowers" : "raises"}`,
      style: {
        left: `${Math.min(from, to)}%`,
        width: `${Math.abs(to - from)}%`,
        "background-color": css(map(part(value, limit, sign) * 0.9)),
      },
    });
    return h(
      "div",
      { class: "line", role: "listitem" },
      h("span", { class: "label" }, name(title)),
      h("span", { class: "detail" }, detail === undefined ? "" : name(detail)),
      h("div", { class: "track", style: { "--zero": `${at(0)}%` } }, bar),
      h(
        "span",
        { class: "figure", "data-value": value },
        text ?? number(value, { sign: sign !== "absolute" }),
      ),
    );
  }
}

/**
 * The ends of the axis: symmetric for bars from zero.
 * @param {Bar[]} items
 * @param {number} limit
 * @param {string} sign
 */
function range(items, limit, sign) {
  if (items.some((item) => item.start)) {
    const ends = items
      .flatMap(({ start = 0, value }) => [start, start + value])
      .filter(Number.isFinite);
    return [Math.min(...ends), Math.max(...ends)];
  }
  const size = limit || 1;
  if (sign === "positive" || sign === "absolute") return [0, size];
  return sign === "negative" ? [-size, 0] : [-size, size];
}
