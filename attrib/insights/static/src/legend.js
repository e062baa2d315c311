/** What the colours say: the ends of the scale as numbers, the sign in words, what is cut off. */

import { gradient } from "./colors.js";
import { h, name } from "./dom.js";
import { number, percent } from "./numbers.js";
import { T } from "./strings.js";

/**
 * @param {{limit: number, clipped?: number, shared?: boolean}} scale
 * @param {{sign: string, palette: string, target: string, unit?: string}} options
 */
export function legend({ limit, clipped = 0, shared = false }, { sign, palette, target, unit }) {
  const absolute = sign === "absolute";
  const size = number(limit);
  const rule = shared ? T.scaleShared : T.scaleOwn;
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
    h(
      "span",
      {},
      [rule, unit ? T.unit(unit) : null, clipped > 0 ? T.clipped(percent(clipped)) : null]
        .filter(Boolean)
        .join(" · "),
    ),
  );
}
