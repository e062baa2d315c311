/**
 * Elements without HTML strings: every text becomes a text node, every style goes through
 * `el.style`, so that a strict content security policy holds and nothing a sample says is markup.
 */

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set([
  "value",
  "checked",
  "disabled",
  "hidden",
  "selected",
  "open",
  "tabIndex",
]);

/**
 * An HTML element.
 * @param {string} tag
 * @param {Record<string, any>} [attributes] `on*` are listeners, `style` an object, `class` a string
 * @param {...any} children nodes, text, arrays of these; null and false are left out
 * @returns {any}
 */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/**
 * An SVG element.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...any} children
 * @returns {any}
 */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * Exchange all children of an element.
 * @param {Element} el
 * @param {...any} children
 */
export function replace(el, ...children) {
  el.replaceChildren(...flat(children));
}

// Control characters but tab and line feed, marks that turn the direction of writing, and halves of
// surrogate pairs.
const CONTROL = /[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\p{Cs}]/gu;

/** A text with signs in place of what would be obeyed and not be seen. @param {string} text */
export function visible(text) {
  return text.replace(CONTROL, sign);
}

/** @param {string} character */
function sign(character) {
  const code = character.charCodeAt(0);
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  return code === 0x7f ? "␡" : "�";
}

/**
 * The text as it is, with a sign at every control character, which stands by itself and turns
 * nothing.
 * @param {string} text
 * @returns {Node[]}
 */
function written(text) {
  const parts = [];
  let at = 0;
  for (const { 0: character, index } of text.matchAll(CONTROL)) {
    const mark = h("bdi", { class: "control", "data-sign": sign(character) });
    mark.append(document.createTextNode(character));
    parts.push(document.createTextNode(text.slice(at, index)), mark);
    at = index + 1;
  }
  return [...parts, document.createTextNode(text.slice(at))];
}

/** A name from outside: isolated, so that its writing direction stays its own. @param {any} text */
export function name(text) {
  return h("bdi", {}, String(text));
}

let serial = 0;

/** An id no other element has. @param {string} prefix */
export function unique(prefix) {
  serial += 1;
  return `attrib-${prefix}-${serial}`;
}

/**
 * A labelled field.
 * @param {string} label
 * @param {any} control gets an id where it has none
 * @param {{hint?: string, class?: string}} [options]
 */
export function field(label, control, { hint, class: extra = "" } = {}) {
  if (!control.id) control.id = unique("field");
  const error = h("span", { class: "error", id: `${control.id}-error`, hidden: true });
  const el = h(
    "div",
    { class: `field ${extra}` },
    h("label", { for: control.id }, label),
    control,
    hint ? h("span", { class: "hint" }, hint) : null,
    error,
  );
  return Object.assign(el, {
    control,
    /** @param {string | null} message */
    complain(message) {
      error.textContent = message ?? "";
      error.hidden = !message;
      control.toggleAttribute("aria-invalid", Boolean(message));
      if (message) {
        control.setAttribute("aria-invalid", "true");
        control.setAttribute("aria-describedby", error.id);
      } else control.removeAttribute("aria-describedby");
    },
  });
}

/**
 * A field that tests and keys find by a word of its own.
 * @param {any} box
 * @param {string} control
 */
export function named(box, control) {
  box.dataset.control = control;
  return box;
}

/**
 * A select with the given choices.
 * @param {Array<{value: string, label: string, group?: string} | string>} choices
 * @param {string} value
 * @param {(value: string) => void} change
 */
export function select(choices, value, change) {
  /** @type {Map<string, any>} */
  const groups = new Map();
  const el = h("select", { onchange: () => change(el.value) });
  for (const choice of choices) {
    const item = typeof choice === "string" ? { value: choice, label: choice } : choice;
    let parent = el;
    if (item.group) {
      if (!groups.has(item.group))
        groups.set(item.group, el.appendChild(h("optgroup", { label: item.group })));
      parent = groups.get(item.group);
    }
    parent.append(h("option", { value: item.value }, item.label));
  }
  el.value = value;
  return el;
}

/**
 * A button with words.
 * @param {any} label
 * @param {(event: Event) => void} press
 * @param {Record<string, any>} [attributes]
 */
export function button(label, press, attributes = {}) {
  return h("button", { type: "button", onclick: press, ...attributes }, label);
}

/** @param {any} el @param {Record<string, any>} attributes @param {any[]} children */
function fill(el, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null) continue;
    if (key.startsWith("on")) el.addEventListener(key.slice(2), value);
    else if (key === "style") {
      for (const [property, text] of Object.entries(value)) el.style.setProperty(property, text);
    } else if (PROPERTIES.has(key)) el[key] = value;
    else if (typeof value === "boolean" && !key.startsWith("aria-")) el.toggleAttribute(key, value);
    else el.setAttribute(key, key === "aria-label" ? visible(String(value)) : String(value));
  }
  // Lists of choices and drawings have no place for elements.
  const plain = el.namespaceURI === SVG || el.localName === "option";
  el.append(...flat(children, plain));
  return el;
}

/** @param {any[]} children @param {boolean} [plain] @returns {any[]} */
function flat(children, plain = false) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .flatMap((child) => {
      if (child instanceof Node) return [child];
      return plain ? [document.createTextNode(visible(String(child)))] : written(String(child));
    });
}
