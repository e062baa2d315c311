/** Screen 1: the samples, a page of cards at a time. */

import { createCard } from "./card.js";
import { clearFilters } from "./filters.js";
import { button, field, h, replace, select, unique } from "./dom.js";
import { failureBox } from "./captions.js";
import { createGroup } from "./group.js";
import { QUERY } from "./store.js";
import { T } from "./strings.js";

/** @param {any} app */
export function browseScreen(app) {
  const { store, client } = app;
  const status = h("p", { class: "quiet", role: "status", id: unique("count") });
  const list = h("div", { class: "cards" });
  const notices = h("div", { class: "stack" });
  const back = button(`‹ ${T.previous}`, () => turn(-1), { "data-page": "previous" });
  const on = button(`${T.next} ›`, () => turn(1), { "data-page": "next" });
  // A link may ask for any number.
  const sizes = [...new Set([3, 6, 12, 24, 48, store.get().limit])].sort((a, b) => a - b);
  const size = select(sizes.map(String), String(store.get().limit), (limit) =>
    store.set({ limit: Number(limit), offset: 0 }),
  );
  const el = h(
    "div",
    { class: "body" },
    h("div", { class: "pager" }, back, status, on, field(T.perPage, size)),
    notices,
    list,
  );
  const group = createGroup(store);
  /** @type {any[]} */ let cards = [];
  let matched = 0;
  let turnOf = 0;
  const stops = [store.on([...QUERY, "model"], load)];
  load();
  return {
    el,
    get cards() {
      return cards;
    },
    turn,
    reload: load,
    dispose,
    group,
  };

  async function load() {
    turnOf += 1;
    const mine = turnOf;
    const state = store.get();
    clear();
    replace(
      list,
      Array.from({ length: Math.min(6, state.limit) }, () =>
        h(
          "div",
          { class: "card" },
          h(
            "div",
            { class: "panel" },
            h("div", { class: "skeleton line" }),
            h("div", { class: "skeleton" }),
          ),
        ),
      ),
    );
    list.setAttribute("aria-busy", "true");
    try {
      const query = Object.fromEntries(QUERY.map((key) => [key, state[key]]));
      const answer = await client.request(
        "query",
        { ...query, model: state.model === "*" ? null : state.model },
        {
          progress: (/** @type {any} */ report) =>
            mine === turnOf && (status.textContent = T.predicting(report.done, report.total)),
        },
      );
      if (mine === turnOf) show(answer);
    } catch (problem) {
      if (mine !== turnOf) return;
      status.textContent = "";
      replace(list, failureBox(problem, load));
    }
    list.removeAttribute("aria-busy");
  }

  /** @param {any} answer */
  function show(answer) {
    const { offset, limit } = store.get();
    matched = answer.matched;
    if (offset > 0 && answer.rows.length === 0 && matched > 0) {
      store.set({ offset: Math.floor((matched - 1) / limit) * limit });
      return;
    }
    back.disabled = offset === 0;
    on.disabled = offset + answer.rows.length >= matched;
    status.textContent = matched
      ? T.range(offset + 1, offset + answer.rows.length, matched, answer.total)
      : T.nothing;
    replace(
      notices,
      answer.notices.map((/** @type {any} */ notice) =>
        h("p", { class: "notice" }, notice.message),
      ),
    );
    if (matched === 0) {
      replace(list, emptyState(store, answer.total));
      return;
    }
    cards = answer.rows.map((/** @type {any} */ row) => createCard(app, row, { group }));
    replace(
      list,
      cards.map((card) => card.el),
    );
  }

  /** @param {number} way */
  function turn(way) {
    const { offset, limit } = store.get();
    const next = offset + way * limit;
    if (next < 0 || next >= matched) return;
    store.set({ offset: next });
  }

  function clear() {
    for (const card of cards) card.dispose();
    cards = [];
  }

  function dispose() {
    turnOf += 1;
    clear();
    for (const stop of stops) stop();
  }
}

/** @param {any} store @param {number} total */
function emptyState(store, total) {
  return h(
    "div",
    { class: "empty" },
    h("p", {}, total ? T.noMatch(total) : T.noSamples),
    total ? button(T.clearFilters, () => clearFilters(store), { class: "primary" }) : null,
  );
}
