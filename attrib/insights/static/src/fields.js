/** The arguments of a method as fields, from what the server says about its signature. */

import { field, h, name, select } from "./dom.js";
import { exact, parse } from "./numbers.js";
import { T } from "./strings.js";

/**
 * A field for one argument. What is typed wrongly is told at the field and goes nowhere.
 * @param {any} spec of the config
 * @param {any} value
 * @param {(value: any) => void} change gets values that are allowed
 * @param {{name: string, sites: string[]}} model
 */
export function argumentField(spec, value, change, model) {
  const choices = spec.sites
    ? model.sites.map((site) => ({ value: site, title: site }))
    : spec.choices;
  const current = value === undefined ? (spec.by_model?.[model.name] ?? spec.default) : value;
  if (spec.type === "boolean") return checkField(spec, current, change);
  if (choices) return choiceField(spec, choices, current, change);
  const input = h("input", {
    type: "text",
    value: written(current),
    placeholder: spec.optional ? (spec.empty ?? "") : "",
    spellcheck: "false",
    autocomplete: "off",
    inputmode: spec.type === "text" ? "text" : "decimal",
    onchange() {
      const { value: typed, problem } = understood(input.value, spec);
      box.complain(problem);
      if (!problem) change(typed);
    },
  });
  const box = field(spec.title, input, { hint: spec.hint ?? undefined });
  box.dataset.argument = spec.name;
  return box;
}

/**
 * What a typed text means for an argument, or what is wrong with it.
 * @param {string} text
 * @param {any} spec
 * @returns {{value?: any, problem: string | null}}
 */
export function understood(text, spec) {
  const plain = text.trim();
  if (plain === "" && spec.type !== "text") {
    return spec.optional ? { value: null, problem: null } : { problem: T.needed };
  }
  if (spec.type === "text") return { value: text, problem: null };
  if (spec.type === "integers") {
    const numbers = plain.split(/[\s,;×x]+/).map(parse);
    return numbers.every(Number.isInteger)
      ? { value: numbers, problem: null }
      : { problem: T.wantIntegers };
  }
  const value = parse(plain);
  if (value === null) return { problem: T.wantNumber };
  if (spec.type === "integer" && !Number.isInteger(value)) return { problem: T.wantInteger };
  if (typeof spec.min === "number" && value < spec.min) return { problem: T.atLeast(spec.min) };
  if (typeof spec.max === "number" && value > spec.max) return { problem: T.atMost(spec.max) };
  return { value, problem: null };
}

/** @param {any} spec @param {any} current @param {(value: any) => void} change */
function checkField(spec, current, change) {
  const input = h("input", {
    type: "checkbox",
    checked: Boolean(current),
    onchange: () => change(input.checked),
  });
  const box = field(spec.title, input, { hint: spec.hint ?? undefined, class: "check" });
  box.dataset.argument = spec.name;
  return box;
}

/**
 * @param {any} spec
 * @param {any[]} choices
 * @param {any} current
 * @param {(value: any) => void} change
 */
function choiceField(spec, choices, current, change) {
  // A choice may be a number or null; the select knows words, so it gets the places.
  const items = [
    ...(spec.optional ? [{ value: null, title: spec.empty ?? T.none }] : []),
    ...choices,
  ];
  const at = items.findIndex((item) => JSON.stringify(item.value) === JSON.stringify(current));
  const control = select(
    items.map((item, i) => ({ value: String(i), label: item.title ?? String(item.value) })),
    String(Math.max(0, at)),
    (i) => change(items[Number(i)].value),
  );
  const box = field(spec.title, control, { hint: spec.hint ?? undefined });
  box.dataset.argument = spec.name;
  return box;
}

/** @param {any} value */
function written(value) {
  if (value === null || value === undefined) return "";
  return [value].flat().map(exact).join(" ");
}

/**
 * A field that gathers classes as tags.
 * @param {string} label
 * @param {string[]} names of all classes
 * @param {number[]} chosen
 * @param {(chosen: number[]) => void} change
 */
export function tagField(label, names, chosen, change) {
  const { input, list, index } = classInput(names);
  const tags = h("div", { class: "outputs" });
  const box = field(label, input);
  const draw = (/** @type {number[]} */ classes) => {
    tags.replaceChildren(
      ...classes.map((id) =>
        h(
          "button",
          {
            type: "button",
            "aria-label": T.remove(names[id]),
            onclick: () => change(classes.filter((other) => other !== id)),
          },
          name(names[id] ?? id),
          " ×",
        ),
      ),
    );
    tags.hidden = classes.length === 0;
    chosen = classes;
  };
  input.addEventListener("change", () => {
    const found = index();
    box.complain(found < 0 && input.value ? T.noClass : null);
    if (found < 0) return;
    input.value = "";
    if (!chosen.includes(found)) change([...chosen, found]);
  });
  box.append(list, tags);
  draw(chosen);
  return Object.assign(box, { draw });
}

/**
 * An input that knows all classes and offers those that fit.
 * @param {string[]} names
 * @param {string} [value]
 */
export function classInput(names, value = "") {
  const list = h(
    "datalist",
    { id: `attrib-classes-${Math.random().toString(36).slice(2)}` },
    names.map((text) => h("option", { value: text })),
  );
  const input = h("input", {
    type: "text",
    list: list.id,
    value,
    autocomplete: "off",
    placeholder: T.classHint,
  });
  const index = () => {
    const typed = input.value.trim();
    const exact = names.indexOf(typed);
    if (exact >= 0) return exact;
    const number = parse(typed);
    return number !== null && Number.isInteger(number) && number >= 0 && number < names.length
      ? number
      : -1;
  };
  return { input, list, index };
}
