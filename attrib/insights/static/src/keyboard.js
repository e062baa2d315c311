/** The keys. They rest while something is typed, while a modifier is held, and behind a dialog. */

import { MODES, SIGNS } from "./store.js";

/**
 * @param {any} app
 * @param {EventTarget} target the page, or the widget's own element
 * @param {AbortSignal} signal
 */
export function listenToKeys(app, target, signal) {
  target.addEventListener(
    "keydown",
    (event) => {
      const press = /** @type {KeyboardEvent} */ (event);
      if (app.client.host.kind === "widget") press.stopPropagation();
      if (press.ctrlKey || press.metaKey || press.altKey || press.defaultPrevented) return;
      if (press.key === "Escape") {
        escape(app, press);
        return;
      }
      if (typing(press.target) || app.element.querySelector("dialog[open]")) return;
      const act = actionOf(app, press);
      if (!act) return;
      press.preventDefault();
      act();
    },
    { signal },
  );
}

/** @param {any} app @param {KeyboardEvent} event */
function escape(app, event) {
  const menu = app.element.querySelector(".menu[open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  } else if (app.element.querySelector("dialog[open]")) return;
  else app.cancelAll();
  event.preventDefault();
}

/** Is this a place where letters are text? @param {any} el */
function typing(el) {
  return (
    el?.matches?.(
      "input:not([type=checkbox], [type=range]), textarea, select, [contenteditable]",
    ) ?? false
  );
}

/** @param {any} app @param {KeyboardEvent} event @returns {(() => void) | null} */
function actionOf(app, { key, target }) {
  const { store } = app;
  const cycle = (/** @type {string} */ name, /** @type {string[]} */ all) => () =>
    store.set({ [name]: all[(all.indexOf(store.get()[name]) + 1) % all.length] });
  const card = currentCard(app, target);
  if (/^[1-9]$/.test(key))
    return card
      ? () => card.panels.forEach((/** @type {any} */ panel) => panel.press(Number(key) - 1))
      : null;
  // Enter belongs to what is focused, unless that is the card itself.
  if (key === "Enter")
    return card && target === card.el && store.get().screen !== "detail"
      ? () => app.open(card.row.sample)
      : null;
  const zoom = (/** @type {number} */ factor) => () =>
    card?.el
      .querySelectorAll("canvas")
      .forEach((/** @type {any} */ el) =>
        el.dispatchEvent(new CustomEvent("attrib-zoom", { detail: factor })),
      );
  return (
    {
      j: () => step(app, card, 1),
      k: () => step(app, card, -1),
      m: () => app.controls.focus("method"),
      "/": () => app.openFilters(),
      "[": () => app.screen.turn(-1),
      "]": () => app.screen.turn(1),
      o: cycle("mode", MODES),
      s: cycle("sign", SIGNS),
      "+": zoom(1.5),
      "-": zoom(1 / 1.5),
      "−": zoom(1 / 1.5),
      0: zoom(0),
      p: () => card && app.pin(card.row.sample),
      e: () => card && app.export(card.row, card.panels),
      "?": () => app.help(),
    }[key] ?? null
  );
}

/** The card with the focus, or the first. @param {any} app @param {any} target */
function currentCard(app, target) {
  const { cards } = app.screen;
  return (
    cards.find((/** @type {any} */ card) => card.el.contains(target)) ??
    cards.find((/** @type {any} */ card) => card.el === app.lastCard) ??
    cards[0] ??
    null
  );
}

/** @param {any} app @param {any} card @param {number} way */
function step(app, card, way) {
  const { cards } = app.screen;
  if (cards.length === 0) return;
  const inside = card && card.el.contains(document.activeElement);
  const at = inside ? cards.indexOf(card) + way : cards.indexOf(card);
  const next = cards[Math.min(cards.length - 1, Math.max(0, at))];
  app.lastCard = next.el;
  next.el.focus();
  next.el.scrollIntoView({ block: "nearest" });
}
