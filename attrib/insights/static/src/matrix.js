/** The view of a matrix: what every input does to every output. */

import { colormap, css, ink } from "./colors.js";
import { button, h, name } from "./dom.js";
import { number } from "./numbers.js";
import { part } from "./scale.js";
import { T } from "./strings.js";
import { tokenBox } from "./text.js";

const MOST_CELLS = 2500;

/** @param {import("./image.js").ViewContext} context */
export function matrixView({ feature, attr, limit, look, memory }) {
  memory.row ??= 0;
  memory.grid ??= false;
  const body = h("div", { class: "view" });
  const toggle = button(T.matrix, () => {
    memory.grid = !memory.grid;
    draw();
  });
  const cells = attr.rows.length * attr.columns.length;

  function draw() {
    toggle.setAttribute("aria-pressed", String(memory.grid));
    body.replaceChildren(memory.grid ? grid(attr, limit, look) : rows(attr, limit, look, memory));
  }
  draw();
  const tools = h("div", { class: "tools" }, cells <= MOST_CELLS ? toggle : null);
  return { el: h("div", { class: "view", "data-feature": feature.name }, tools, body) };
}

/**
 * One output chosen, the inputs coloured by what they do to it.
 * @param {any} attr
 * @param {number} limit
 * @param {any} look
 * @param {any} memory
 */
function rows(attr, limit, look, memory) {
  const readout = h("div", { class: "readout", "aria-live": "polite" }, T.textHint);
  const inputs = h("div", {});
  const width = attr.columns.length;
  const show = (/** @type {number} */ row) => {
    memory.row = row;
    const pieces = attr.columns.map((/** @type {string} */ text, /** @type {number} */ i) => ({
      text: (i ? " " : "") + text,
      value: attr.values.data[row * width + i],
      indices: [i],
      special: false,
    }));
    inputs.replaceChildren(
      tokenBox(pieces, {
        limit,
        look,
        memory: { open: new Set() },
        label: T.inputsOf(attr.rows[row]),
        readout,
      }),
    );
    for (const [i, el] of [...outputs.children].entries())
      el.setAttribute("aria-pressed", String(i === row));
  };
  const outputs = h(
    "div",
    { class: "outputs", role: "group", "aria-label": T.outputs },
    attr.rows.map((/** @type {string} */ text, /** @type {number} */ i) =>
      button(name(text), () => show(i), { onpointerenter: () => show(i), onfocus: () => show(i) }),
    ),
  );
  show(Math.min(memory.row, attr.rows.length - 1));
  return h(
    "div",
    { class: "view" },
    h("span", { class: "quiet" }, T.outputHint),
    outputs,
    inputs,
    readout,
  );
}

/** @param {any} attr @param {number} limit @param {any} look */
function grid(attr, limit, look) {
  const map = colormap(look.palette, look.sign === "absolute");
  const width = attr.columns.length;
  const cell = (/** @type {number} */ value) => {
    const color = map(part(value, limit, look.sign));
    return h(
      "td",
      { class: "figure", style: { "background-color": css(color), color: ink(color) } },
      number(value, { digits: 2 }),
    );
  };
  const line = (/** @type {string} */ text, /** @type {number} */ row) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, name(text)),
      attr.columns.map((/** @type {any} */ _, /** @type {number} */ i) =>
        cell(attr.values.data[row * width + i]),
      ),
    );
  return h(
    "div",
    { class: "scroll", tabIndex: 0, role: "group", "aria-label": T.matrix },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("td", {}),
          attr.columns.map((/** @type {string} */ text) => h("th", { scope: "col" }, name(text))),
        ),
      ),
      h("tbody", {}, attr.rows.map(line)),
    ),
  );
}
