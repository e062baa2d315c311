/** The state of the app, who listens to it, and the link that holds it. */

import { PALETTES } from "./colors.js";

export const SCREENS = ["browse", "detail", "overview", "compare"];
export const MODES = ["overlay", "blend", "heatmap", "mask", "alpha", "contour", "top", "original"];
export const SIGNS = ["all", "positive", "negative", "absolute"];
export const SORTS = ["index", "confidence", "-confidence", "loss", "-loss", "mass", "-mass"];
export const PREDICTIONS = ["all", "correct", "incorrect", "disagree"];
export const MERGES = ["none", "sum", "mean", "max"];
export const TABS = ["explain", "methods", "targets", "models", "values", "curves", "edit"];

/** What changes an attribution, and what changes the list of samples. */
export const EXPLAIN = ["model", "method", "args", "baseline", "target"];
export const FILTERS = ["classes", "label", "prediction", "min_conf", "max_conf", "text"];
export const QUERY = [...FILTERS, "sort", "offset", "limit"];
export const LOOK = ["mode", "sign", "opacity", "scale", "merge", "top", "quantile", "palette"];

/** @param {any} config */
export function defaults(config) {
  return {
    screen: "browse",
    tab: "explain",
    sample: null,
    pins: [],
    model: config.models.length > 1 ? "*" : config.models[0].name,
    method: config.default.method,
    args: config.default.args ?? {},
    baseline: config.default.baseline ?? {},
    target: "pred",
    classes: [],
    label: [],
    prediction: "all",
    min_conf: 0,
    max_conf: 1,
    text: "",
    sort: "index",
    offset: 0,
    limit: 6,
    run: config.auto ? "auto" : "demand",
    mode: "overlay",
    sign: "all",
    opacity: 0.85,
    scale: "sample",
    merge: "default",
    top: 8,
    quantile: 10,
    palette: "attrib",
  };
}

/** @param {Record<string, any>} initial */
export function createStore(initial) {
  let state = initial;
  /** @type {Array<{keys: string[], listen: (state: any, changed: string[]) => void}>} */
  const listeners = [];
  return {
    get: () => state,
    /** @param {Record<string, any>} patch */
    set(patch) {
      const changed = Object.keys(patch).filter((key) => !same(patch[key], state[key]));
      if (changed.length === 0) return;
      state = { ...state, ...patch };
      for (const entry of [...listeners]) {
        // One that an earlier listener has just sent away is not called any more.
        if (listeners.includes(entry) && entry.keys.some((key) => changed.includes(key)))
          entry.listen(state, changed);
      }
    },
    /**
     * @param {string[]} keys
     * @param {(state: any, changed: string[]) => void} listen
     * @returns {() => void} stop
     */
    on(keys, listen) {
      const entry = { keys, listen };
      listeners.push(entry);
      return () => {
        const at = listeners.indexOf(entry);
        if (at >= 0) listeners.splice(at, 1);
      };
    },
  };
}

/**
 * What a link has to say: all that is not as it would be anyway.
 * @param {any} state
 * @param {any} config
 */
export function toLink(state, config) {
  const usual = defaults(config);
  const entries = Object.entries(state).filter(([key, value]) => !same(value, usual[key]));
  const link = Object.fromEntries(
    entries.map(([key, value]) => [key === "screen" ? "view" : key, value]),
  );
  return { v: 1, ...link };
}

/**
 * The state that a link asks for. What it says wrongly is left out, and named.
 * @param {Record<string, any>} link
 * @param {any} config
 * @returns {{state: Record<string, any>, ignored: string[]}}
 */
export function fromLink(link, config) {
  const state = {};
  const ignored = [];
  for (const [key, value] of Object.entries(link)) {
    if (key === "v") {
      if (value !== 1) ignored.push("v");
      continue;
    }
    const test = Object.hasOwn(VALID, key) ? VALID[key] : null;
    if (test?.(value, config)) state[key === "view" ? "screen" : key] = value;
    else ignored.push(key);
  }
  if (state.screen === "detail" && state.sample === undefined) delete state.screen;
  if (state.method && !state.args) {
    state.args = state.method === config.default.method ? (config.default.args ?? {}) : {};
  }
  return { state, ignored };
}

/** @param {any} a @param {any} b */
export function same(a, b) {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

const within = (/** @type {number} */ low, /** @type {number} */ high) => (/** @type {any} */ x) =>
  typeof x === "number" && x >= low && x <= high;
const whole = (/** @type {any} */ x) => Number.isInteger(x) && x >= 0;
const wholes = (/** @type {any} */ x) => Array.isArray(x) && x.length <= 1000 && x.every(whole);
const plain = (/** @type {any} */ x) => x !== null && typeof x === "object" && !Array.isArray(x);
const one = (/** @type {string[]} */ choices) => (/** @type {any} */ x) => choices.includes(x);
const atom = (/** @type {any} */ x) => ["pred", "label", "second"].includes(x) || whole(x);

/** @type {Record<string, (value: any, config: any) => boolean>} */
const VALID = {
  view: one(SCREENS),
  tab: one(TABS),
  sample: whole,
  pins: wholes,
  model: (x, config) =>
    (x === "*" && config.models.length > 1) ||
    config.models.some((/** @type {any} */ m) => m.name === x),
  method: (x, config) => config.methods.some((/** @type {any} */ m) => m.name === x),
  args: plain,
  baseline: plain,
  target: (x) =>
    atom(x) ||
    (plain(x) && Array.isArray(x.contrast) && x.contrast.length === 2 && x.contrast.every(atom)),
  classes: wholes,
  label: wholes,
  prediction: one(PREDICTIONS),
  min_conf: within(0, 1),
  max_conf: within(0, 1),
  text: (x) => typeof x === "string" && x.length <= 1000,
  sort: one(SORTS),
  offset: whole,
  limit: within(1, 48),
  run: one(["auto", "demand"]),
  mode: one(MODES),
  sign: one(SIGNS),
  opacity: within(0, 1),
  scale: (x) => x === "sample" || x === "page" || (typeof x === "number" && x > 0),
  merge: one(["default", ...MERGES]),
  top: within(1, 200),
  quantile: within(1, 100),
  palette: (x) => Object.hasOwn(PALETTES, x),
};

/** The model where only one can be asked. @param {any} store @param {any} config */
export function modelOf(store, config) {
  const { model } = store.get();
  return model === "*" ? config.models[0].name : model;
}
