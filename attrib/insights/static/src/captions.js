/** What is said about a result or a failure. */

import { button, h, name } from "./dom.js";
import { numeric } from "./frames.js";
import { exact, number } from "./numbers.js";
import { same } from "./store.js";
import { T } from "./strings.js";

/**
 * "circle · integrated gradients · steps 32 · completeness gap 1.4e-4".
 * @param {any} config
 * @param {any} result
 */
export function captionParts(config, result) {
  const method = config.methods.find((/** @type {any} */ item) => item.name === result.method);
  const told = Object.entries(result.args)
    .filter(([key, value]) => value !== null && telling(method, key, value))
    .map(([key, value]) => `${titleOf(method, key)} ${[value].flat().map(exact).join(" ")}`);
  const baselines = config.features.map((/** @type {any} */ { name: feature }) =>
    config.baselines[feature]?.findIndex(
      (/** @type {any} */ item) => item.name === result.baseline?.[feature],
    ) > 0
      ? `${T.baselineOf(feature)} ${result.baseline[feature]}`
      : null,
  );
  const gap = result.gap === null ? [] : [`${T.gap} ${number(numeric(result.gap))}`];
  const rest = [
    methodTitle(config, result.method),
    ...told,
    ...baselines,
    ...gap,
    result.change ? T.changedBy : result.edited ? T.edited : null,
  ].filter(Boolean);
  return [h("b", {}, name(result.target.name)), ` · ${rest.join(" · ")}`];
}

/**
 * Is it worth a word: what was chosen, and how much was spent.
 * @param {any} method
 * @param {string} key
 * @param {any} value
 */
function telling(method, key, value) {
  const field = method?.fields.find((/** @type {any} */ item) => item.name === key);
  return !field || !field.advanced || !same(field.default, value);
}

/** @param {any} method @param {string} key */
function titleOf(method, key) {
  return method?.fields.find((/** @type {any} */ item) => item.name === key)?.title ?? key;
}

/** @param {any} config @param {string} method */
export function methodTitle(config, method) {
  return config.methods.find((/** @type {any} */ item) => item.name === method)?.title ?? method;
}

/** @param {any} error @param {() => void} again */
export function failureBox(error, again) {
  return h(
    "div",
    { class: "failure", role: "alert", "data-kind": error.kind },
    h("b", {}, T.failure[error.kind] ?? T.failure.internal),
    h("span", {}, name(error.message)),
    error.hint ? h("span", {}, name(error.hint)) : null,
    error.details
      ? h("details", {}, h("summary", {}, T.details), h("pre", { tabIndex: 0 }, error.details))
      : null,
    h("div", { class: "tools" }, button(T.again, again)),
  );
}
