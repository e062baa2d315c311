/** One editor for each kind of input: it says what is to change and shows what has changed. */

import { button, field, h, name, replace, select } from "./dom.js";
import { exact, parse } from "./numbers.js";
import { paint } from "./paint.js";
import { T } from "./strings.js";

/**
 * @typedef {{el: any, draw: (input: any) => void}} Made
 * @typedef {(feature: any, input: any, change: (edit: any) => void, current: () => any) => Made} Editor
 */

/** @type {Record<string, Editor>} */
export const EDITORS = {
  image: imageEditor,
  text: textEditor,
  tabular: tableEditor,
  timeseries: seriesEditor,
};

/** @type {Editor} */
function imageEditor(feature, input, change, current) {
  const [full, wide] = input.size;
  const canvas = h("canvas", { role: "img", "aria-label": T.eraseLabel(feature.name) });
  const tool = select(
    [
      { value: "erase", label: T.rectangle },
      { value: "paint", label: T.brush },
    ],
    "erase",
    () => {},
  );
  const frame = h("div", { class: "cross", hidden: true });
  /** @type {number[] | null} */ let grip = null;
  const draw = (/** @type {any} */ now) =>
    paint(canvas, now.pixels, null, 0, {
      mode: "original",
      sign: "all",
      opacity: 1,
      palette: "attrib",
      quantile: 10,
    });
  const at = (/** @type {PointerEvent} */ event) => {
    const box = canvas.getBoundingClientRect();
    const inside = (/** @type {number} */ v) => Math.min(1, Math.max(0, v));
    return [
      Math.floor(inside((event.clientY - box.top) / box.height) * full),
      Math.floor(inside((event.clientX - box.left) / box.width) * wide),
    ];
  };
  const add = (/** @type {string} */ key, /** @type {any} */ item) => {
    const edit = { erase: [], paint: [], ...current() };
    change({ ...edit, [key]: [...edit[key], item] });
  };
  canvas.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
    grip = at(event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    if (!grip || tool.value !== "erase") return;
    const end = at(event);
    const [top, bottom] = [Math.min(grip[0], end[0]) / full, Math.max(grip[0], end[0]) / full];
    const [left, right] = [Math.min(grip[1], end[1]) / wide, Math.max(grip[1], end[1]) / wide];
    Object.assign(frame.style, {
      top: `${100 * top}%`,
      left: `${100 * left}%`,
      width: `${100 * (right - left)}%`,
      height: `${100 * (bottom - top)}%`,
      background: "#ffffff60",
      outline: "1px dashed #000",
    });
    frame.hidden = false;
  });
  canvas.addEventListener("pointerup", (/** @type {PointerEvent} */ event) => {
    if (!grip) return;
    const end = at(event);
    if (tool.value === "paint")
      add("paint", {
        y: end[0],
        x: end[1],
        radius: Math.max(1, Math.round(Math.min(full, wide) / 12)),
      });
    else
      add("erase", {
        y0: Math.min(grip[0], end[0]),
        x0: Math.min(grip[1], end[1]),
        y1: Math.max(grip[0], end[0]) + 1,
        x1: Math.max(grip[1], end[1]) + 1,
      });
    grip = null;
    frame.hidden = true;
  });
  const numbers = numberRow(
    [
      ["y0", 0],
      ["x0", 0],
      ["y1", Math.ceil(full / 2)],
      ["x1", Math.ceil(wide / 2)],
    ],
    T.erase,
    (values) => {
      const [y0, x0, y1, x1] = values;
      if (y1 <= y0 || x1 <= x0 || y1 > full || x1 > wide) return T.wantInside(full, wide);
      add("erase", { y0, x0, y1, x1 });
      return null;
    },
  );
  draw(input);
  return {
    el: [
      h("div", { class: "tools" }, field(T.tool, tool)),
      h("div", { class: "image" }, canvas, frame),
      numbers,
    ],
    draw,
  };
}

/** @type {Editor} */
function textEditor(feature, input, change, current) {
  let at = -1;
  const list = h("div", {
    class: "outputs",
    role: "group",
    "aria-label": T.tokensOf(feature.name),
  });
  const word = h("input", { type: "text", autocomplete: "off" });
  const put = (/** @type {any} */ patch) =>
    change({ replace: {}, drop: [], ...current(), ...patch });
  const row = h(
    "div",
    { class: "run", hidden: true },
    feature.encode ? field(T.replaceBy, word) : null,
    feature.encode
      ? button(T.replace, () => put({ replace: { ...current()?.replace, [at]: word.value } }))
      : null,
    button(T.drop, () => put({ drop: [...new Set([...(current()?.drop ?? []), at])] })),
  );
  const draw = () => {
    const edit = { replace: {}, drop: [], ...current() };
    replace(
      list,
      input.tokens.map((/** @type {string} */ token, /** @type {number} */ i) => {
        const gone = edit.drop.includes(i);
        const shown = edit.replace[i] ?? token;
        const mark = gone || edit.replace[i] !== undefined ? "line" : null;
        return button(
          [name(shown), gone ? ` (${T.dropped})` : mark ? ` (${T.replaced})` : ""],
          () => choose(i),
          { "aria-pressed": String(i === at), "data-token": i },
        );
      }),
    );
  };
  const choose = (/** @type {number} */ i) => {
    at = i;
    word.value = input.tokens[i];
    row.hidden = false;
    draw();
    list.children[i].focus();
  };
  draw();
  return { el: [h("p", { class: "quiet" }, T.textEditHint), list, row], draw };
}

/** @type {Editor} */
function tableEditor(feature, input, change, current) {
  const set = (/** @type {string} */ key, /** @type {number} */ value) =>
    change({ values: { ...current()?.values, [key]: value } });
  const boxes = feature.columns.map((/** @type {any} */ column, /** @type {number} */ i) => {
    const title = column.unit ? `${column.name} (${column.unit})` : column.name;
    if (column.categories) {
      const choices = column.categories.map(
        (/** @type {string} */ label, /** @type {number} */ k) => ({ value: String(k), label }),
      );
      return field(
        title,
        select(choices, String(input.values[i]), (value) => set(column.name, Number(value))),
      );
    }
    const control = h("input", {
      type: "text",
      inputmode: "decimal",
      value: rounded(input.values[i]),
      onchange() {
        const value = parse(control.value);
        box.complain(value === null ? T.wantNumber : null);
        if (value !== null) set(column.name, value);
      },
    });
    const box = field(title, control);
    return box;
  });
  const draw = (/** @type {any} */ now) =>
    boxes.forEach(
      (/** @type {any} */ box, /** @type {number} */ i) =>
        (box.control.value = feature.columns[i].categories
          ? String(now.values[i])
          : rounded(now.values[i])),
    );
  return { el: h("div", { class: "grid" }, boxes), draw };
}

/** @type {Editor} */
function seriesEditor(feature, input, change, current) {
  const { length } = input;
  const channel = select(
    [
      { value: "", label: T.allChannels },
      ...feature.channels.map((/** @type {string} */ label, /** @type {number} */ i) => ({
        value: String(i),
        label,
      })),
    ],
    "",
    () => {},
  );
  const numbers = numberRow(
    [
      ["start", 0],
      ["stop", Math.ceil(length / 4)],
    ],
    T.erase,
    ([start, stop]) => {
      if (stop <= start || stop > length) return T.wantSteps(length);
      change({
        erase: [
          ...(current()?.erase ?? []),
          { channel: channel.value === "" ? null : Number(channel.value), start, stop },
        ],
      });
      return null;
    },
  );
  const list = h("ul", { class: "quiet" });
  const draw = () =>
    replace(
      list,
      (current()?.erase ?? []).map((/** @type {any} */ e) =>
        h("li", {}, T.erased(e.start, e.stop)),
      ),
    );
  return { el: [field(T.channel, channel), numbers, list], draw };
}

/** A number as one would type it. @param {number} value */
function rounded(value) {
  return exact(Number(value.toPrecision(7)));
}

/**
 * Numbers and a button; `act` says what is wrong with them, or null.
 * @param {Array<[string, number]>} parts
 * @param {string} label
 * @param {(values: number[]) => string | null} act
 */
function numberRow(parts, label, act) {
  const boxes = parts.map(([key, value]) =>
    field(T.edge[key], h("input", { type: "text", inputmode: "numeric", value: String(value) })),
  );
  const press = () => {
    const values = boxes.map((box) => parse(box.control.value) ?? Number.NaN);
    const whole = values.map((value) => Number.isInteger(value) && value >= 0);
    boxes.forEach((box, i) => box.complain(whole[i] ? null : T.wantInteger));
    if (whole.every(Boolean)) boxes[0].complain(act(values));
  };
  return h(
    "div",
    { class: "grid numbers" },
    boxes,
    h("div", { class: "run" }, button(label, press)),
  );
}
