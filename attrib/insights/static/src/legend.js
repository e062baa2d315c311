/** What the colours say: the ends of the scale as numbers, the sign in words, what is cut off. */

import { gradient } from "./colors.js";
import { h, name } from "./dom.js";
import { number, percent } from "./numbers.js";
import { T } from "./strings.js";

/**
 * @param {{limit: number, clipped?: number, shared?: boolean}} scale
 * @param {{sign: string, palette: string, target: string, unit: string | null}} options
 */
export function legend({ limit, clipped = 0, shared = false }, { sign, palette, target, unit }) {
  const absolute = sign === "absolute";
  const size = number(limit);
  return h(
    "div",
    { class: "legend" },
    h("div", { class: "ramp", style: { background: gradient(palette, absolute) } }),
    h(
      "div",
      { class: "ends" },
      h("span", { "data-limit": limit }, absolute ? "0" : `−${size} ${T.lowers}`),
      h("span", {}, absolute ? `${size} ${T.size}` : [`+${size} ${T.raises} `, name(target)]),
    ),
    h("span", {}, scaleWords({ clipped, shared }, unit)),
  );
}

/**
 * Where the ends come from, their unit, and how much lies beyond them.
 * @param {{clipped: number, shared: boolean}} scale
 * @param {string | null} unit
 */
export function scaleWords({ clipped, shared }, unit) {
  const rule = shared ? T.scaleShared : T.scaleOwn;
  return [rule, T.unit(unit), clipped > 0 ? T.clipped(percent(clipped)) : null]
    .filter(Boolean)
    .join(" · ");
}
