/**
 * Screen 2: one sample, its attributions next to each other, its numbers, its curves, its edits.
 */

import { createCard } from "./card.js";
import { curvesTab } from "./curves.js";
import { button, h, name, replace } from "./dom.js";
import { editTab } from "./edit.js";
import { numeric } from "./frames.js";
import { number } from "./numbers.js";
import { failureBox, methodTitle } from "./captions.js";
import { createGroup } from "./group.js";
import { createPanel } from "./panel.js";
import { rankCorrelation } from "./scale.js";
import { modelOf, TABS } from "./store.js";
import { T } from "./strings.js";
import { valuesTab } from "./values.js";
import { createCursor } from "./views.js";

/** @param {any} app */
export function detailScreen(app) {
  const { store, client, config } = app;
  const body = h("div", { class: "stack" });
  const el = h("div", { class: "body stack" }, h("div", { class: "skeleton" }));
  /** @type {any} */ let row = null;
  /** @type {any} */ let tab = null;
  /** @type {any[]} */ let cards = [];
  let turnOf = 0;
  const stops = [store.on(["sample", "model"], load), store.on(["tab"], () => row && show())];
  load();
  return {
    el,
    get cards() {
      return cards;
    },
    turn,
    reload: load,
    dispose,
  };

  async function load() {
    turnOf += 1;
    const mine = turnOf;
    const { sample, model } = store.get();
    try {
      const answer = await client.request("query", {
        model: model === "*" ? null : model,
        samples: [sample],
        limit: 1,
      });
      if (mine !== turnOf) return;
      [row] = answer.rows;
      if (row) show();
      else replace(el, h("p", { class: "empty" }, T.noSuchSample));
    } catch (problem) {
      if (mine === turnOf) replace(el, failureBox(problem, load));
    }
  }

  function show() {
    leave();
    const chosen = store.get().tab;
    const usable = TABS.filter(
      (key) =>
        (key !== "models" || config.models.length > 1) &&
        (key !== "targets" || config.study.task !== "value") &&
        (!config.report || key === "explain" || key === "targets"),
    );
    const tabs = usable.map((key) =>
      h(
        "button",
        {
          type: "button",
          role: "tab",
          id: `attrib-tab-${key}`,
          "aria-selected": String(key === chosen),
          "aria-controls": "attrib-tab",
          tabIndex: key === chosen ? 0 : -1,
          onclick: () => store.set({ tab: key }),
          onkeydown: arrows,
        },
        T.tab[key],
      ),
    );
    const had = el.querySelector("[role=tab]:focus");
    replace(
      el,
      h(
        "div",
        { class: "pager" },
        button(`‹ ${T.back}`, () => store.set({ screen: "browse" })),
        h("h2", {}, name(T.sample(row.name))),
      ),
      h("div", { class: "tablist", role: "tablist", "aria-label": T.ways }, tabs),
      h(
        "div",
        { id: "attrib-tab", role: "tabpanel", "aria-labelledby": `attrib-tab-${chosen}` },
        body,
      ),
    );
    if (had) tabs[usable.indexOf(chosen)]?.focus();
    tab = (MAKERS[chosen] ?? explainTab)(app, row);
    cards = tab.cards ?? [];
    replace(body, tab.el);
  }

  /** @param {KeyboardEvent} event */
  function arrows(event) {
    const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();
    const all = [...el.querySelectorAll("[role=tab]")];
    all[(all.indexOf(event.target) + way + all.length) % all.length].click();
  }

  /** @param {number} way */
  function turn(way) {
    const next = store.get().sample + way;
    if (next >= 0 && (config.study.samples === null || next < config.study.samples))
      store.set({ sample: next });
  }

  function leave() {
    tab?.dispose();
    tab = null;
  }

  function dispose() {
    turnOf += 1;
    leave();
    for (const stop of stops) stop();
  }
}

const MAKERS = {
  explain: explainTab,
  methods: methodsTab,
  targets: targetsTab,
  models: modelsTab,
  values: valuesTab,
  curves: curvesTab,
  edit: editTab,
};

/** @param {any} app @param {any} row */
function explainTab(app, row) {
  const card = createCard(app, row, { slot: "detail", group: createGroup(app.store), wide: true });
  card.el.classList.add("wide");
  return { el: card.el, cards: [card], dispose: card.dispose };
}

/** @param {any} app @param {any} row */
function methodsTab(app, row) {
  const { config, store } = app;
  const model = modelOf(store, config);
  const fitting = config.methods.filter((/** @type {any} */ method) => !method.models[model]);
  const affordable = fitting.filter(
    (/** @type {any} */ method) => (method.passes?.[model] ?? Infinity) <= 200,
  );
  const first = [store.get().method, ...affordable.map((/** @type {any} */ m) => m.name)];
  let chosen = [...new Set(first)].slice(0, 4);
  const grid = comparison(
    app,
    row,
    () =>
      chosen.map((method) => ({
        model,
        title: methodTitle(config, method),
        fixed: { method, args: method === store.get().method ? store.get().args : {}, now: true },
      })),
    false,
  );
  const boxes = fitting.map((/** @type {any} */ method) => {
    const box = h("input", {
      type: "checkbox",
      checked: chosen.includes(method.name),
      id: `attrib-method-${method.name}`,
      onchange: () => {
        chosen = box.checked
          ? [...chosen, method.name]
          : chosen.filter((one) => one !== method.name);
        grid.draw();
      },
    });
    return h("div", { class: "field check" }, box, h("label", { for: box.id }, method.title));
  });
  const pick = h(
    "details",
    { class: "section" },
    h("summary", {}, T.chooseMethods),
    h("div", { class: "grid" }, boxes),
  );
  return { el: h("div", { class: "stack" }, pick, grid.el), dispose: grid.dispose };
}

/** @param {any} app @param {any} row */
function targetsTab(app, row) {
  const model = modelOf(app.store, app.config);
  const { top } = row.predictions.find((/** @type {any} */ item) => item.model === model);
  return comparison(
    app,
    row,
    () =>
      top.map((/** @type {any} */ choice) => ({
        model,
        title: name(choice.name),
        fixed: { target: choice.class, now: true },
      })),
    true,
  );
}

/** @param {any} app @param {any} row */
function modelsTab(app, row) {
  return comparison(
    app,
    row,
    () =>
      app.config.models.map((/** @type {any} */ { name: model }) => ({
        model,
        title: name(model),
        fixed: { now: true },
      })),
    true,
  );
}

/**
 * Panels side by side, with how alike they rank the features.
 * @param {any} app
 * @param {any} row
 * @param {() => any[]} columns
 * @param {boolean} together is one scale for all sensible
 */
function comparison(app, row, columns, together) {
  const { store } = app;
  let shared = together;
  const group = createGroup(store, (state) =>
    typeof state.scale === "number" ? state.scale : shared ? "page" : "sample",
  );
  const cursor = createCursor();
  const grid = h("div", { class: "side" });
  const table = h("div", {});
  /** @type {any[]} */ let panels = [];
  const same = h("input", {
    type: "checkbox",
    checked: shared,
    id: "attrib-same-scale",
    onchange: () => {
      shared = same.checked;
      group.redraw();
    },
  });
  draw();
  return {
    el: h(
      "div",
      { class: "stack" },
      h("div", { class: "field check" }, same, h("label", { for: same.id }, T.sameScale)),
      grid,
      table,
    ),
    draw,
    dispose: clear,
  };

  function draw() {
    clear();
    panels = columns().map((column, i) =>
      createPanel(app, {
        row,
        cursor,
        group,
        chips: false,
        slot: `compare:${i}:${column.model}`,
        done: settled,
        ...column,
      }),
    );
    replace(
      grid,
      panels.map((panel) => h("article", { class: "card" }, panel.el)),
    );
  }

  function settled() {
    const ready = panels.filter((panel) => panel.result);
    replace(
      table,
      ready.length > 1 && !panels.some((panel) => panel.busy) ? correlations(ready) : "",
    );
  }

  function clear() {
    for (const panel of panels) panel.dispose();
    panels = [];
    replace(table);
  }
}

/** @param {any[]} panels */
function correlations(panels) {
  const vectors = panels.map((panel) => flat(panel.result));
  const titles = panels.map((panel) => panel.el.querySelector("h3").textContent);
  const value = (/** @type {number} */ i, /** @type {number} */ j) =>
    i === j
      ? "1"
      : vectors[i].length === vectors[j].length
        ? number(rankCorrelation(vectors[i], vectors[j]), { digits: 2 })
        : "–";
  return h(
    "section",
    { class: "section", "aria-label": T.correlation },
    h("h3", {}, T.correlation),
    h("p", { class: "quiet" }, T.correlationHint),
    h(
      "div",
      { class: "scroll", tabIndex: 0, role: "group", "aria-label": T.correlation },
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
            titles.map((title) => h("th", { scope: "col", class: "figure" }, name(title))),
          ),
        ),
        h(
          "tbody",
          {},
          titles.map((title, i) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, name(title)),
              titles.map((_, j) => h("td", { class: "figure" }, value(i, j))),
            ),
          ),
        ),
      ),
    ),
  );
}

/** All numbers of a result in one row. @param {any} result */
function flat(result) {
  const parts = Object.values(result.features).filter((attr) => attr?.values?.data);
  return parts.flatMap((attr) => Array.from(attr.values.data, numeric));
}
