/** Panels that stand together. */

import { numeric } from "./frames.js";

/**
 * Panels that stand together: with the scale of the page they share what full colour means.
 * @param {any} store
 * @param {(state: any) => any} [rule] "sample", "page" or a number
 */
export function createGroup(store, rule = (state) => state.scale) {
  /** @type {Set<any>} */
  const panels = new Set();
  return {
    panels,
    add: (/** @type {any} */ panel) => panels.add(panel),
    delete: (/** @type {any} */ panel) => panels.delete(panel),
    redraw: () => panels.forEach((panel) => panel.redraw()),
    shares: () => rule(store.get()) === "page",
    limits(/** @type {string} */ feature, /** @type {any} */ attr) {
      const scale = rule(store.get());
      if (typeof scale === "number") return { limit: scale, shared: true };
      if (scale !== "page") return { limit: numeric(attr.scale), shared: false };
      const all = [...panels].map((panel) => panel.result?.features[feature]).filter(Boolean);
      return {
        limit: Math.max(numeric(attr.scale), ...all.map((item) => numeric(item.scale))),
        shared: true,
      };
    },
  };
}
