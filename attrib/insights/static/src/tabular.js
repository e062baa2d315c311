/** The views of rows of a table and of arrays of any shape: bars with names and numbers. */

import { bars } from "./bars.js";
import { button, h } from "./dom.js";
import { measured, number } from "./numbers.js";
import { T } from "./strings.js";

/** @param {import("./image.js").ViewContext} context */
export function tabularView({ feature, input, attr, limit, look, memory, base = null }) {
  const items = feature.columns.map((/** @type {any} */ column, /** @type {number} */ i) => ({
    label: column.name,
    detail: input.text[i],
    value: attr ? attr.values.data[i] : Number.NaN,
    text: attr?.errors ? measured(attr.values.data[i], attr.errors.data[i]) : undefined,
  }));
  if (!attr) return { el: h("div", { class: "view", "data-feature": feature.name }, plain(items)) };
  memory.waterfall ??= false;
  memory.all ??= false;
  const body = h("div", { class: "view" });
  const fall = button(T.waterfall, () => {
    memory.waterfall = !memory.waterfall;
    draw();
  });
  const more = button("", () => {
    memory.all = !memory.all;
    draw();
  });

  function draw() {
    const shown = ranked(items, memory.all ? items.length : look.top);
    const list = memory.waterfall ? cascade(shown, base) : shown;
    fall.setAttribute("aria-pressed", String(memory.waterfall));
    more.textContent = memory.all ? T.fewer : T.showAll(items.length);
    body.replaceChildren(
      bars(list, { limit, sign: look.sign, palette: look.palette, label: feature.name }),
    );
  }
  draw();
  const tools = h(
    "div",
    { class: "tools" },
    base === null ? null : fall,
    items.length > look.top ? more : null,
  );
  return { el: h("div", { class: "view", "data-feature": feature.name }, body, tools) };
}

/** @param {import("./image.js").ViewContext} context */
export function arrayView({ feature, input, attr, limit, look }) {
  const shape = T.shape((attr ?? input).shape);
  if (!attr) {
    const first = Array.from(input.first.data.slice(0, 12), (value) => number(value)).join(", ");
    return {
      el: h(
        "div",
        { class: "view", "data-feature": feature.name },
        h("p", { class: "quiet" }, `${shape}: ${first} …`),
      ),
    };
  }
  const values = attr.top.values.data ?? attr.top.values;
  const items = Array.from(values, (value, i) => ({
    label: `[${attr.top.index[i].join(", ")}]`,
    value: Number(value),
  })).slice(0, look.top);
  return {
    el: h(
      "div",
      { class: "view", "data-feature": feature.name },
      h("p", { class: "quiet" }, T.largest(items.length, shape)),
      bars(items, { limit, sign: look.sign, palette: look.palette, label: feature.name }),
    ),
  };
}

/** The largest first, the rest as one line. @param {any[]} items @param {number} most */
export function ranked(items, most) {
  const size = (/** @type {any} */ item) =>
    Number.isNaN(item.value) ? Infinity : Math.abs(item.value);
  const sorted = [...items].sort((a, b) => size(b) - size(a));
  if (sorted.length <= most + 1) return sorted;
  const rest = sorted.slice(most);
  const sum = rest.reduce((total, item) => total + item.value, 0);
  return [...sorted.slice(0, most), { label: T.others(rest.length), value: sum }];
}

/** Every bar begins where the one above ends. @param {any[]} items @param {number | null} base */
function cascade(items, base) {
  let at = base ?? 0;
  const first = base === null ? [] : [{ label: T.base, value: 0, start: at, text: number(at) }];
  const steps = items.map((item) => {
    const start = at;
    if (Number.isFinite(item.value)) at += item.value;
    return { ...item, start };
  });
  return [...first, ...steps, { label: T.score, value: 0, start: at, text: number(at) }];
}

/** @param {any[]} items */
function plain(items) {
  return h(
    "dl",
    { class: "keys" },
    items.map(({ label, detail }) => [h("dt", {}, label), h("dd", {}, detail)]),
  );
}
