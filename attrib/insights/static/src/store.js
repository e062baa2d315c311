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
    targets: {},
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
    if (test?.(value, config, link)) state[key === "view" ? "screen" : key] = value;
    else ignored.push(key);
  }
  if (state.screen === "detail" && state.sample === undefined) delete state.screen;
  if (state.method && !state.args) {
    state.args = state.method === config.default.method ? (config.default.args ?? {}) : {};
  }
  if (state.method && !state.run && costly(config, state.method)) state.run = "demand";
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

const classes = (/** @type {any} */ config) => config.study.outputs ?? Infinity;
const ofClass = (/** @type {any} */ x, /** @type {any} */ config) =>
  !Number.isInteger(x) || x < classes(config);
const samples = (/** @type {any} */ config) => config.study.samples ?? Infinity;
const tags = (/** @type {any} */ x, /** @type {any} */ config) =>
  wholes(x) && x.every((/** @type {number} */ id) => ofClass(id, config));

/** @type {Record<string, (value: any, config: any, link: any) => boolean>} */
const VALID = {
  view: one(SCREENS),
  tab: one(TABS),
  sample: (x, config) => whole(x) && x < samples(config),
  pins: (x, config) => wholes(x) && x.every((/** @type {number} */ i) => i < samples(config)),
  model: (x, config) =>
    (x === "*" && config.models.length > 1) ||
    config.models.some((/** @type {any} */ m) => m.name === x),
  method: (x, config) => config.methods.some((/** @type {any} */ m) => m.name === x),
  args: (x, config, { method = config.default.method }) =>
    plain(x) &&
    Object.keys(x).every((key) =>
      config.methods
        .find((/** @type {any} */ m) => m.name === method)
        ?.fields.some((/** @type {any} */ f) => f.name === key),
    ),
  baseline: (x, config) =>
    plain(x) &&
    Object.entries(x).every(([feature, choice]) =>
      config.baselines[feature]?.some((/** @type {any} */ item) => item.name === choice),
    ),
  target: (x, config) =>
    (atom(x) && ofClass(x, config)) ||
    (plain(x) &&
      Array.isArray(x.contrast) &&
      x.contrast.length === 2 &&
      x.contrast.every((/** @type {any} */ part) => atom(part) && ofClass(part, config))),
  targets: (x, config) =>
    plain(x) && Object.values(x).every((id) => whole(id) && ofClass(id, config)),
  classes: tags,
  label: tags,
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

/**
 * Is a method too much to be run before anybody asks for it?
 * @param {any} config
 * @param {string} name
 */
export function costly(config, name) {
  const { passes } = config.methods.find((/** @type {any} */ method) => method.name === name);
  return !config.report && Object.values(passes ?? {}).some((cost) => cost > config.limits.auto);
}

/**
 * What is explained of a sample: the target that was pressed on its card, else that of all.
 * @param {any} store
 * @param {number} sample
 * @param {string} model
 */
export function targetOf(store, sample, model) {
  const { target, targets } = store.get();
  return targets[cardKey(sample, model)] ?? target;
}

/** The name of a card in the targets. @param {number} sample @param {string} model */
export function cardKey(sample, model) {
  return `${sample}/${model}`;
}

/**
 * The class that a rule means for a sample, or null.
 * @param {any} target
 * @param {any} row
 * @param {string} model
 */
export function classOf(target, row, model) {
  const top = row.predictions.find((/** @type {any} */ p) => p.model === model)?.top ?? [];
  if (target === "label") return row.label?.class ?? null;
  if (target === "pred") return top[0]?.class ?? null;
  return target === "second" ? (top[1]?.class ?? null) : target;
}

/** The model where only one can be asked. @param {any} store @param {any} config */
export function modelOf(store, config) {
  const { model } = store.get();
  return model === "*" ? config.models[0].name : model;
}
