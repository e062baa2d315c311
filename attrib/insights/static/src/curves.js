/** Insertion and deletion: how the score moves as the most important entries come and go. */

import { lineChart } from "./charts.js";
import { button, h, replace } from "./dom.js";
import { numeric } from "./frames.js";
import { number } from "./numbers.js";
import { failureBox } from "./captions.js";
import { EXPLAIN, modelOf } from "./store.js";
import { T } from "./strings.js";

/** @param {any} app @param {any} row */
export function curvesTab(app, row) {
  const { client, store, config } = app;
  const body = h("div", { class: "stack" });
  let stop = new AbortController();
  const off = store.on(EXPLAIN, load);
  load();
  return {
    el: h("div", { class: "section" }, h("p", { class: "quiet" }, T.curvesHint), body),
    dispose() {
      off();
      stop.abort();
    },
  };

  async function load() {
    stop.abort();
    stop = new AbortController();
    const { signal } = stop;
    const { method, args, baseline, target } = store.get();
    const bar = h("progress", { max: 1, "aria-label": T.progress });
    replace(
      body,
      h(
        "div",
        { class: "progress" },
        bar,
        button(T.cancel, () => stop.abort()),
      ),
    );
    try {
      const answer = await client.request(
        "curves",
        {
          sample: row.sample,
          model: modelOf(store, config),
          target,
          method,
          args,
          baseline,
          steps: 20,
          slot: "curves",
          priority: "click",
        },
        {
          signal,
          progress: (/** @type {any} */ report) => (bar.value = report.done / (report.total || 1)),
        },
      );
      replace(body, drawn(answer));
    } catch (problem) {
      if (problem.kind === "cancelled")
        replace(body, h("p", { class: "quiet" }, T.cancelled), h("div", {}, button(T.again, load)));
      else replace(body, failureBox(problem, load));
    }
  }
}

/** @param {any} answer */
function drawn({ insertion, deletion }) {
  const line = (
    /** @type {any} */ curve,
    /** @type {string} */ title,
    /** @type {string} */ color,
    /** @type {string} */ dash,
  ) => ({
    label: `${title}: ${T.area} ${number(numeric(curve.area))}`,
    x: curve.fraction.map(numeric),
    y: curve.score.map(numeric),
    color,
    dash,
  });
  return [
    lineChart(
      [line(insertion, T.insertion, "#c26a00", ""), line(deletion, T.deletion, "#3b82c4", "6 4")],
      { label: T.curves },
    ),
    h(
      "details",
      {},
      h("summary", {}, T.asTable),
      h(
        "div",
        { class: "scroll", tabIndex: 0, role: "group", "aria-label": T.curves },
        h(
          "table",
          {},
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              [T.fraction, T.insertion, T.deletion].map((word) =>
                h("th", { scope: "col", class: "figure" }, word),
              ),
            ),
          ),
          h(
            "tbody",
            {},
            insertion.fraction.map((/** @type {any} */ part, /** @type {number} */ i) =>
              h(
                "tr",
                {},
                [part, insertion.score[i], deletion.score[i]].map((value) =>
                  h("td", { class: "figure" }, number(numeric(value))),
                ),
              ),
            ),
          ),
        ),
      ),
    ),
  ];
}
