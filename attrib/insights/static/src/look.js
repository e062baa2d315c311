/** How attributions are drawn: the image, the signs, the scale, the colours. */

import { PALETTES } from "./colors.js";
import { field, h, named, replace, select } from "./dom.js";
import { parse } from "./numbers.js";
import { LOOK, MERGES, MODES, SIGNS } from "./store.js";
import { T } from "./strings.js";

/** @param {any} app */
export function lookBox({ config, store }) {
  const kinds = new Set(config.features.map((/** @type {any} */ feature) => feature.kind));
  const choice = (
    /** @type {string} */ key,
    /** @type {string[]} */ values,
    /** @type {any} */ words,
  ) =>
    named(
      field(
        T.look[key],
        select(
          values.map((value) => ({ value, label: words[value] })),
          store.get()[key],
          (value) => store.set({ [key]: value }),
        ),
      ),
      key,
    );
  const slide = (
    /** @type {string} */ key,
    /** @type {number} */ min,
    /** @type {number} */ max,
    /** @type {number} */ step,
  ) => {
    const input = h("input", {
      type: "range",
      min,
      max,
      step,
      value: store.get()[key],
      oninput: () => store.set({ [key]: Number(input.value) }),
    });
    return named(field(T.look[key], input), key);
  };
  const summary = h("summary", {});
  const boxes = [
    kinds.has("image")
      ? [choice("mode", MODES, T.mode), slide("opacity", 0, 1, 0.05), slide("quantile", 1, 50, 1)]
      : null,
    choice("sign", SIGNS, T.sign),
    scaleField(store),
    kinds.has("text") ? choice("merge", ["default", ...MERGES], T.merge) : null,
    kinds.has("tabular") || kinds.has("array") ? slide("top", 3, 40, 1) : null,
    choice("palette", Object.keys(PALETTES), T.palette),
  ].flat();
  const draw = () => {
    const state = store.get();
    for (const box of boxes)
      if (box?.dataset.control in state && box.dataset.control !== "scale")
        box.control.value = String(state[box.dataset.control]);
    replace(
      summary,
      T.view,
      ": ",
      h(
        "b",
        {},
        [
          kinds.has("image") ? T.mode[state.mode] : null,
          T.sign[state.sign],
          T.scaleName(state.scale),
        ]
          .filter(Boolean)
          .join(", "),
      ),
    );
  };
  store.on(LOOK, draw);
  draw();
  return h("details", { class: "look" }, summary, h("div", { class: "row" }, boxes));
}

/** @param {any} store */
function scaleField(store) {
  const input = h("input", {
    type: "text",
    inputmode: "decimal",
    "aria-label": T.fixedScale,
    hidden: true,
    onchange() {
      const value = parse(input.value);
      box.complain(value !== null && value > 0 ? null : T.wantPositive);
      if (value !== null && value > 0) store.set({ scale: value });
    },
  });
  const { scale } = store.get();
  const control = select(
    ["sample", "page", "fixed"].map((value) => ({ value, label: T.scale[value] })),
    typeof scale === "number" ? "fixed" : scale,
    (value) => {
      input.hidden = value !== "fixed";
      if (value !== "fixed") store.set({ scale: value });
      else input.focus();
    },
  );
  if (typeof scale === "number") Object.assign(input, { hidden: false, value: String(scale) });
  const box = named(field(T.look.scale, control), "scale");
  box.append(input);
  return box;
}
