/** The view of a text: tokens in their exact whitespace, coloured, folded where nothing happens. */

import { colormap, css, ink } from "./colors.js";
import { h, name, replace } from "./dom.js";
import { measured, number, percent } from "./numbers.js";
import { part, signed } from "./scale.js";
import { T } from "./strings.js";

/** @typedef {{text: string, value: number, indices: number[], special: boolean}} Piece */

// A fold hides only what is long and faint, and only where the whole text is long.
const FOLD = { tokens: 300, run: 40, faint: 0.05 };

/** @param {import("./image.js").ViewContext} context */
export function textView({ feature, input, attr, limit, look, memory }) {
  const pieces = merged(input, attr?.values.data ?? null, mergeOf(feature, attr, look));
  memory.open ??= new Set();
  const readout = h("div", { class: "readout", "aria-live": "polite" }, T.textHint);
  const box = tokenBox(pieces, {
    errors: attr?.errors,
    limit,
    look,
    memory,
    label: T.textLabel(feature.name, pieces.length),
    readout,
  });
  return { el: h("div", { class: "view", "data-feature": feature.name }, box, readout) };
}

/**
 * A box of coloured tokens, read with the pointer or the arrows.
 * @param {Piece[]} pieces
 * @param {{limit: number, look: any, memory: any, label: string, readout: HTMLElement,
 *   errors?: any}} options
 */
export function tokenBox(pieces, { limit, look, memory, label, readout, errors }) {
  const box = h("div", {
    class: "tokens",
    dir: "auto",
    tabIndex: 0,
    role: "group",
    "aria-label": label,
  });
  const map = colormap(look.palette, look.sign === "absolute");
  let at = -1;
  let locked = false;

  // The errors of the tokens of a word do not add up to that of the word.
  const single = (/** @type {Piece} */ { indices }) =>
    indices.length === 1 ? errors?.data[indices[0]] : undefined;
  const read = (/** @type {number} */ i) => {
    box.querySelector(".at")?.classList.remove("at");
    at = i;
    const piece = pieces[i];
    const el = box.querySelector(`[data-i="${i}"]`);
    if (!piece || !el) {
      readout.textContent = T.textHint;
      return;
    }
    el.classList.add("at");
    const share = limit ? ` (${percent(part(piece.value, limit, "all"))} ${T.ofScale})` : "";
    replace(
      readout,
      [T.token(piece.indices), " “", name(piece.text.trim()), "”: "],
      [measured(piece.value, single(piece)), share],
    );
    readout.dataset.value = String(piece.value);
  };
  const fill = () => replace(box, spans(pieces, map, limit, look, memory.open, fill));
  fill();
  const indexOf = (/** @type {any} */ event) => event.target.closest?.(".token")?.dataset.i;
  box.addEventListener("pointerover", (/** @type {Event} */ event) => {
    const i = indexOf(event);
    if (i !== undefined && !locked) read(Number(i));
  });
  box.addEventListener("pointerleave", () => {
    if (!locked) read(-1);
  });
  box.addEventListener("click", (/** @type {Event} */ event) => {
    const i = indexOf(event);
    if (i === undefined) return;
    locked = !(locked && Number(i) === at);
    read(Number(i));
  });
  box.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const way = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 }[event.key];
    if (!way || event.target !== box || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    const shown = Array.from(box.querySelectorAll(".token"), (el) =>
      Number(/** @type {any} */ (el).dataset.i),
    );
    const place = shown.indexOf(at) + way * (event.shiftKey ? 10 : 1);
    read(shown[Math.min(shown.length - 1, Math.max(0, place))]);
    box.querySelector(".at")?.scrollIntoView({ block: "nearest" });
  });
  return box;
}

/** How tokens become words. @param {any} feature @param {any} attr @param {any} look */
export function mergeOf(feature, attr, look) {
  const merge = look.merge === "default" ? feature.merge : look.merge;
  // What is the same for a whole region is not summed over it.
  return attr?.grouped && merge === "sum" ? "mean" : merge;
}

/**
 * Tokens that belong to one word as one piece.
 * @param {any} input
 * @param {ArrayLike<number> | null} values
 * @param {string} merge
 * @returns {Piece[]}
 */
export function merged(input, values, merge) {
  /** @type {Piece[]} */
  const pieces = [];
  let word = -1;
  input.tokens.forEach((/** @type {string} */ token, /** @type {number} */ i) => {
    const value = values ? values[i] : 0;
    const same = merge !== "none" && input.word[i] >= 0 && input.word[i] === word;
    word = input.word[i];
    if (same) {
      const last = pieces[pieces.length - 1];
      last.text += input.before[i] + token;
      last.indices.push(i);
    } else
      pieces.push({
        text: input.before[i] + token,
        value,
        indices: [i],
        special: Boolean(input.special[i]),
      });
  });
  if (merge === "none" || !values) return pieces;
  return pieces.map((piece) => ({
    ...piece,
    value: together(
      piece.indices.map((i) => values[i]),
      merge,
    ),
  }));
}

/** @param {number[]} values @param {string} merge */
function together(values, merge) {
  const sum = values.reduce((a, b) => a + b, 0);
  if (merge === "mean") return sum / values.length;
  if (merge === "max") return values.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
  return sum;
}

/**
 * @param {Piece[]} pieces
 * @param {any} map
 * @param {number} limit
 * @param {any} look
 * @param {Set<number>} open
 * @param {() => void} again
 */
function spans(pieces, map, limit, look, open, again) {
  const nodes = [];
  for (let i = 0; i < pieces.length;) {
    const end = foldEnd(pieces, i, limit);
    if (end - i >= FOLD.run && pieces.length > FOLD.tokens && !open.has(i)) {
      nodes.push(fold(pieces.slice(i, end), i, open, again));
      i = end;
    } else {
      // An opened run is written out as a whole: its tail is no fold of its own.
      const until = open.has(i) ? end : i + 1;
      for (; i < until; i++) nodes.push(...span(pieces[i], i, map, limit, look));
    }
  }
  return nodes;
}

/** @param {Piece[]} pieces @param {number} start @param {number} limit */
function foldEnd(pieces, start, limit) {
  let end = start;
  while (end < pieces.length && Math.abs(pieces[end].value) < FOLD.faint * limit) end += 1;
  return Math.max(end, start + 1);
}

/**
 * @param {Piece[]} hidden
 * @param {number} at
 * @param {Set<number>} open
 * @param {() => void} again
 */
function fold(hidden, at, open, again) {
  const total = hidden.reduce((sum, piece) => sum + piece.value, 0);
  return h(
    "button",
    {
      type: "button",
      class: "fold",
      onclick: () => {
        open.add(at);
        again();
      },
    },
    T.folded(hidden.length, number(total, { sign: true })),
  );
}

/**
 * @param {Piece} piece
 * @param {number} i
 * @param {any} map
 * @param {number} limit
 * @param {any} look
 */
function span({ text, value, special }, i, map, limit, look) {
  const size = part(value, limit, look.sign);
  const color = map(size);
  const faint = Math.abs(size) < 0.05;
  const way = Number.isNaN(size) ? "bad" : faint ? "" : size > 0 ? "raises" : "lowers";
  const lead = /^\s*/.exec(text)?.[0] ?? "";
  return [
    lead,
    h(
      "span",
      {
        class: `token ${way}${special ? " special" : ""}`,
        "data-i": i,
        "data-value": signed(value, "all"),
        style: { "background-color": css(color), color: ink(color) },
      },
      text.slice(lead.length),
    ),
  ];
}
