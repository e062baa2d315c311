/** Screen 4: the pinned samples side by side, on one scale where the same is measured. */

import { createCard } from "./card.js";
import { button, h, replace } from "./dom.js";
import { failureBox } from "./captions.js";
import { createGroup } from "./group.js";
import { T } from "./strings.js";

/** @param {any} app */
export function compareScreen(app) {
  const { store, client } = app;
  const group = createGroup(store, (state) => (state.scale === "sample" ? "page" : state.scale));
  const list = h("div", { class: "side" });
  const el = h(
    "div",
    { class: "body stack" },
    h(
      "div",
      { class: "pager" },
      h("h2", {}, T.compare),
      h("span", { class: "quiet" }, T.compareHint),
      button(T.unpinAll, () => store.set({ pins: [] })),
    ),
    list,
  );
  /** @type {any[]} */ let cards = [];
  let turnOf = 0;
  const off = store.on(["pins", "model"], load);
  load();
  return {
    el,
    get cards() {
      return cards;
    },
    turn: () => {},
    reload: load,
    dispose,
    group,
  };

  async function load() {
    turnOf += 1;
    const mine = turnOf;
    clear();
    const { pins, model } = store.get();
    list.removeAttribute("aria-busy");
    if (pins.length === 0) {
      replace(list, h("div", { class: "empty" }, h("p", {}, T.noPins)));
      return;
    }
    list.setAttribute("aria-busy", "true");
    try {
      const answer = await client.request("query", {
        model: model === "*" ? null : model,
        samples: pins,
        limit: Math.min(48, pins.length),
      });
      if (mine !== turnOf) return;
      cards = answer.rows.map((/** @type {any} */ row) =>
        createCard(app, row, { slot: "pinned", group }),
      );
      replace(
        list,
        cards.map((card) => card.el),
      );
    } catch (problem) {
      if (mine === turnOf) replace(list, failureBox(problem, load));
    }
    if (mine === turnOf) list.removeAttribute("aria-busy");
  }

  function clear() {
    for (const card of cards) card.dispose();
    cards = [];
  }

  function dispose() {
    turnOf += 1;
    clear();
    off();
  }
}
