/** All numbers of an attribution as a table: what a picture says, for every reader. */

import { button, field, h, name, replace, select } from "./dom.js";
import { numeric } from "./frames.js";
import { number } from "./numbers.js";
import { captionParts, failureBox } from "./captions.js";
import { EXPLAIN, modelOf, targetOf } from "./store.js";
import { T } from "./strings.js";

const LIMIT = 50;

/** @param {any} app @param {any} row */
export function valuesTab(app, row) {
  const { config, client, store } = app;
  let feature = config.features[0].name;
  let sort = "-abs";
  let offset = 0;
  let turnOf = 0;
  let stop = new AbortController();
  const caption = h("p", { class: "caption" });
  const body = h("div", {});
  const pick = select(
    config.features.map((/** @type {any} */ f) => f.name),
    feature,
    (chosen) => ask({ feature: chosen, offset: 0 }),
  );
  const off = store.on(EXPLAIN, () => ask({ offset: 0 }));
  ask({});
  return {
    el: h(
      "div",
      { class: "section" },
      config.features.length > 1 ? field(T.feature, pick) : null,
      caption,
      body,
    ),
    dispose() {
      turnOf += 1;
      stop.abort();
      off();
    },
  };

  /** @param {{feature?: string, sort?: string, offset?: number}} change */
  async function ask(change) {
    feature = change.feature ?? feature;
    sort = change.sort ?? sort;
    offset = change.offset ?? offset;
    turnOf += 1;
    const mine = turnOf;
    stop.abort();
    stop = new AbortController();
    const { method, args, baseline } = store.get();
    const model = modelOf(store, config);
    const what = {
      sample: row.sample,
      model,
      target: targetOf(store, row.sample, model),
      method,
      args,
      baseline,
    };
    body.setAttribute("aria-busy", "true");
    try {
      const result = await client.request(
        "attribute",
        { ...what, slot: "values", priority: "click" },
        { signal: stop.signal },
      );
      const answer = await client.request(
        "values",
        { ...what, feature, table: { sort, offset, limit: LIMIT } },
        { signal: stop.signal },
      );
      if (mine !== turnOf) return;
      replace(caption, `${T.shown} `, captionParts(config, result));
      draw(answer);
    } catch (problem) {
      if (mine === turnOf && problem.kind !== "cancelled")
        replace(
          body,
          failureBox(problem, () => ask({})),
        );
    }
    body.removeAttribute("aria-busy");
  }

  /** @param {any} answer */
  function draw(answer) {
    const focus = /** @type {any} */ (document.activeElement)?.dataset?.sort;
    const head = (/** @type {string} */ title, /** @type {string} */ key) =>
      h(
        "th",
        {
          scope: "col",
          class: "figure",
          "aria-sort": sort === key ? (key.startsWith("-") ? "descending" : "ascending") : "none",
        },
        button(
          [
            title,
            h(
              "span",
              { "aria-hidden": "true" },
              sort === key ? (key.startsWith("-") ? " ▼" : " ▲") : "",
            ),
          ],
          () => ask({ sort: key, offset: 0 }),
          { "data-sort": key },
        ),
      );
    const line = (/** @type {any} */ item) =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }, name(item.name)),
        h(
          "td",
          { class: "figure" },
          typeof item.input === "string" && !isSpecial(item.input)
            ? name(item.input)
            : item.input === null
              ? ""
              : number(numeric(item.input)),
        ),
        h(
          "td",
          { class: "figure", "data-value": item.value },
          number(numeric(item.value), { sign: true, digits: 5 }),
        ),
      );
    const last = Math.min(offset + LIMIT, answer.total);
    replace(
      body,
      h(
        "div",
        { class: "scroll", tabIndex: 0, role: "group", "aria-label": T.values },
        h(
          "table",
          {},
          h("caption", { class: "unseen" }, T.valuesOf(feature)),
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              h(
                "th",
                { scope: "col" },
                button(T.place, () => ask({ sort: "index", offset: 0 }), { "data-sort": "index" }),
              ),
              h("th", { scope: "col", class: "figure" }, T.input),
              head(T.attributionSize, "-abs"),
            ),
          ),
          h("tbody", {}, answer.rows.map(line)),
        ),
      ),
      h(
        "div",
        { class: "pager" },
        button(`‹ ${T.previous}`, () => ask({ offset: offset - LIMIT }), {
          disabled: offset === 0,
        }),
        h(
          "span",
          { class: "quiet", role: "status" },
          T.range(answer.total ? offset + 1 : 0, last, answer.total, answer.total),
        ),
        button(`${T.next} ›`, () => ask({ offset: offset + LIMIT }), {
          disabled: last >= answer.total,
        }),
        button(T.mostPositive, () => ask({ sort: "-value", offset: 0 }), {
          "aria-pressed": String(sort === "-value"),
        }),
        button(T.mostNegative, () => ask({ sort: "value", offset: 0 }), {
          "aria-pressed": String(sort === "value"),
        }),
      ),
    );
    if (focus) body.querySelector(`[data-sort="${focus}"]`)?.focus();
  }
}

/** @param {string} text */
function isSpecial(text) {
  return ["NaN", "Infinity", "-Infinity"].includes(text);
}
