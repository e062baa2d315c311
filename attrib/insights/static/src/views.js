/** All views of one attribution: the shares of the features, then each feature in its own way. */

import { bars } from "./bars.js";
import { h, name } from "./dom.js";
import { numeric } from "./frames.js";
import { imageView } from "./image.js";
import { legend } from "./legend.js";
import { matrixView } from "./matrix.js";
import { number, percent } from "./numbers.js";
import { clippedShare } from "./scale.js";
import { seriesView } from "./series.js";
import { T } from "./strings.js";
import { arrayView, tabularView } from "./tabular.js";
import { textView } from "./text.js";

const VIEWS = {
  image: imageView,
  text: textView,
  tabular: tabularView,
  timeseries: seriesView,
  array: arrayView,
  matrix: matrixView,
};

/**
 * @param {{config: any, row: any, result: any, look: any, memory: any, cursor: any,
 *   limits: (feature: string, attr: any) => {limit: number, shared: boolean}, wide?: boolean}} context
 */
export function attributionViews({
  config,
  row,
  result,
  look,
  memory,
  cursor,
  limits,
  wide = false,
}) {
  /** @type {Array<() => void>} */
  const stops = [];
  const target = result?.target.name ?? "";
  const parts = config.features.map((/** @type {any} */ feature) => {
    const attr = result?.features[feature.name] ?? null;
    return block(feature, feature.name, row.features[feature.name], attr);
  });
  const extra = (result?.extra ?? []).map((/** @type {any} */ attr) => block(...alone(attr), attr));
  const shares = result && config.features.length > 1 ? shareBars(result, look) : null;
  return {
    el: h("div", { class: "views" }, shares, parts, extra),
    stop: () => stops.forEach((stop) => stop()),
  };

  /** @param {any} feature @param {string} title @param {any} input @param {any} attr */
  function block(feature, title, input, attr) {
    const { limit, shared } = attr ? limits(title, attr) : { limit: 0, shared: false };
    memory[title] ??= {};
    const kind = attr?.kind ?? input.kind;
    const shownLook = attr && attr.signed === false ? { ...look, sign: "absolute" } : look;
    const view = (VIEWS[kind] ?? arrayView)({
      feature,
      input,
      attr,
      limit,
      look: shownLook,
      memory: memory[title],
      cursor,
      target,
      wide,
      base: result ? baseOf(result) : null,
    });
    if (view.stop) stops.push(view.stop);
    const heading =
      config.features.length > 1 || extraNamed(attr, feature)
        ? h("p", { class: "title" }, name(title))
        : null;
    const silent = result && !attr ? h("p", { class: "notice" }, silence(result, title)) : null;
    const scale =
      attr && limit > 0
        ? legend(
            { limit, clipped: clippedShare(attr, limit, shared), shared },
            { sign: shownLook.sign, palette: look.palette, target, unit: result.unit },
          )
        : null;
    return h(
      "div",
      { class: "view", role: "group", "aria-label": title },
      heading,
      silent,
      view.el,
      scale,
      attr ? troubles(attr, result, title).map((words) => h("p", { class: "notice" }, words)) : null,
    );
  }
}

/**
 * What no input goes with, such as the channels of a layer, is shown on its own.
 * @param {any} attr
 * @returns {[any, string, any]} feature, title and input
 */
function alone(attr) {
  const feature = { ...attr, merge: "none", columns: [], channels: [], dt: 1, unit: null };
  const shape = attr.values?.shape ?? [];
  if (attr.kind === "image") {
    const grey = new Uint8Array(shape[0] * shape[1]).fill(128);
    return [
      feature,
      attr.name,
      { kind: "image", pixels: { data: grey, shape: [...shape, 1] }, size: attr.size },
    ];
  }
  const entries = Array.from({ length: shape[shape.length - 1] ?? 0 }, (_, i) => String(i));
  if (attr.kind === "timeseries") {
    const channels = Array.from({ length: shape[0] }, (_, i) => T.channelOf(i));
    return [
      { ...feature, channels },
      attr.name,
      { kind: "timeseries", series: attr.values, stride: attr.stride ?? 1 },
    ];
  }
  if (attr.kind === "text")
    return [
      feature,
      attr.name,
      { tokens: entries, before: entries.map(() => " "), special: [], word: [] },
    ];
  return [
    { ...feature, columns: entries.map((name) => ({ name })) },
    attr.name,
    { text: [], shape: attr.shape },
  ];
}

/** Why nothing is shown of an input. @param {any} result @param {string} title */
export function silence(result, title) {
  return result.notices.find((/** @type {any} */ n) => n.feature === title)?.message ?? T.silent;
}

/** Where a waterfall begins: only a complete method has such a place. @param {any} result */
function baseOf(result) {
  return result.base === null || result.gap === null ? null : numeric(result.base);
}

/** @param {any} attr @param {any} feature */
function extraNamed(attr, feature) {
  return attr?.name !== undefined && attr.name === feature.name;
}

/**
 * How much of the attribution each feature has: signed, with numbers.
 * @param {any} result
 * @param {any} look
 */
function shareBars(result, look) {
  const items = result.shares.map((/** @type {any} */ item) => ({
    label: item.feature,
    detail: T.net(number(numeric(item.net), { sign: true })),
    value: item.share === null ? 0 : numeric(item.share),
    text: item.share === null ? "–" : percent(numeric(item.share)),
  }));
  return h(
    "div",
    { class: "view shares", role: "group", "aria-label": T.shares },
    h("p", { class: "title" }, T.shares),
    bars(items, { limit: 1, palette: look.palette, label: T.shares }),
  );
}

/**
 * What is wrong with the numbers, in words.
 * @param {any} attr
 * @param {any} result
 * @param {string} title
 * @returns {string[]}
 */
export function troubles(attr, result, title) {
  const own = result.notices.filter(
    (/** @type {any} */ notice) => notice.feature === title && notice.kind !== "clipped",
  );
  const said = own.map((/** @type {any} */ notice) => notice.message);
  if (attr.max === 0 && !own.some((/** @type {any} */ n) => n.kind === "zero"))
    said.push(T.allZero);
  if (
    attr.nan + attr.inf > 0 &&
    !own.some((/** @type {any} */ n) => n.kind === "nan" || n.kind === "inf")
  )
    said.push(T.notNumbers(attr.nan, attr.inf));
  return said;
}

/** Where the pointer or the arrows are, shared by all views of a sample. */
export function createCursor() {
  /** @type {Map<string, any>} */
  const places = new Map();
  /** @type {Set<(feature: string) => void>} */
  const listeners = new Set();
  return {
    get: (/** @type {string} */ feature) => places.get(feature) ?? null,
    set(/** @type {string} */ feature, /** @type {any} */ place) {
      places.set(feature, place);
      for (const listen of listeners) listen(feature);
    },
    on(/** @type {(feature: string) => void} */ listen) {
      listeners.add(listen);
      return () => listeners.delete(listen);
    },
  };
}
