/** Which samples are shown, and in which order. */

import { button, field, h, named, replace, select } from "./dom.js";
import { tagField } from "./fields.js";
import { parse } from "./numbers.js";
import { FILTERS, PREDICTIONS, same, SORTS } from "./store.js";
import { T } from "./strings.js";

/** @param {any} app */
export function filterBox({ config, store }) {
  const names = config.study.classes ?? [];
  const classed = config.study.task !== "value";
  const summary = h("summary", {});
  const set = (/** @type {any} */ patch) => store.set({ ...patch, offset: 0 });
  const tags = (/** @type {string} */ label, /** @type {string} */ key) =>
    classed && names.length
      ? named(
          tagField(label, names, store.get()[key], (chosen) => set({ [key]: chosen })),
          key,
        )
      : null;
  const classes = tags(T.predictedClass, "classes");
  const label = tags(T.labelClass, "label");
  const kinds = PREDICTIONS.filter((kind) => kind !== "disagree" || config.models.length > 1);
  const prediction = select(
    kinds.map((value) => ({ value, label: T.prediction[value] })),
    store.get().prediction,
    (value) => set({ prediction: value }),
  );
  const [low, high] = ["min_conf", "max_conf"].map((key) => {
    const input = h("input", {
      type: "text",
      inputmode: "decimal",
      value: String(store.get()[key]),
      onchange() {
        const value = parse(input.value);
        const good = value !== null && value >= 0 && value <= 1;
        box.complain(good ? null : T.wantShare);
        if (good) set({ [key]: value });
      },
    });
    const box = named(field(T[key], input), key);
    return box;
  });
  const text = h("input", {
    type: "search",
    value: store.get().text,
    onchange: () => set({ text: text.value }),
  });
  const sorts = SORTS.filter((sort) => classed || !sort.includes("confidence"));
  const sort = select(
    sorts.map((value) => ({ value, label: T.sort[value] })),
    store.get().sort,
    (value) => set({ sort: value }),
  );
  const box = h(
    "details",
    { class: "filters" },
    summary,
    h(
      "div",
      { class: "row" },
      classes,
      label,
      named(field(T.shownPredictions, prediction), "prediction"),
      classed ? [low, high] : null,
      named(field(T.search, text), "search"),
      named(field(T.sortBy, sort), "sort"),
      h(
        "div",
        { class: "run" },
        button(T.clearFilters, () => clearFilters(store)),
      ),
    ),
  );
  const draw = () => {
    const state = store.get();
    const active = FILTERS.filter((key) => !same(state[key], clear()[key]));
    replace(
      summary,
      T.filters,
      ": ",
      h("b", {}, active.length ? T.activeFilters(active.length) : T.noFilter),
      " · ",
      T.sortBy,
      ": ",
      h("b", {}, T.sort[state.sort]),
    );
    classes?.draw(state.classes);
    label?.draw(state.label);
    prediction.value = state.prediction;
    sort.value = state.sort;
    text.value = state.text;
    low.control.value = String(state.min_conf);
    high.control.value = String(state.max_conf);
  };
  store.on([...FILTERS, "sort"], draw);
  draw();
  return box;
}

/** Back to all samples. @param {any} store */
export function clearFilters(store) {
  store.set({ ...clear(), offset: 0 });
}

function clear() {
  return { classes: [], label: [], prediction: "all", min_conf: 0, max_conf: 1, text: "" };
}
