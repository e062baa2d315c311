/**
 * Curves of one attribution: how the score moves as the most important entries come and go, and how
 * the numbers settle as more steps or samples are spent.
 */

import { failureBox } from "./captions.js";
import { lineChart } from "./charts.js";
import { button, h, name, replace } from "./dom.js";
import { numeric } from "./frames.js";
import { number } from "./numbers.js";
import { EXPLAIN, modelOf, targetOf } from "./store.js";
import { T } from "./strings.js";

const [WARM, COLD] = ["#c26a00", "#3b82c4"];

/** @param {any} app @param {any} row */
export function curvesTab(app, row) {
  const parts = [
    loaded(app, row, { type: "curves", title: T.curves, hint: T.curvesHint, draw: moved }),
    loaded(app, row, {
      type: "convergence",
      title: T.convergence,
      hint: T.convergenceHint,
      draw: settled,
    }),
  ];
  const off = app.store.on([...EXPLAIN, "targets"], () => parts.forEach((part) => part.load()));
  return {
    el: h(
      "div",
      { class: "sections" },
      parts.map((part) => part.el),
    ),
    dispose() {
      off();
      parts.forEach((part) => part.stop());
    },
  };
}

/**
 * A section that is computed by the server.
 * @param {any} app
 * @param {any} row
 * @param {{type: string, title: string, hint: string, draw: (answer: any) => any}} what
 */
function loaded({ client, store, config }, row, { type, title, hint, draw }) {
  const body = h("div", { class: "stack" });
  let stop = new AbortController();
  load();
  return {
    el: h(
      "section",
      { class: "section", "aria-label": title },
      h("h3", {}, title),
      h("p", { class: "quiet" }, hint),
      body,
    ),
    load,
    stop: () => stop.abort(),
  };

  async function load() {
    stop.abort();
    const mine = new AbortController();
    stop = mine;
    const { method, args, baseline } = store.get();
    const model = modelOf(store, config);
    const target = targetOf(store, row.sample, model);
    const bar = h("progress", { max: 1, "aria-label": T.progress });
    const halt = button(T.cancel, () => mine.abort());
    replace(body, h("div", { class: "progress" }, bar, halt));
    try {
      const answer = await client.request(
        type,
        {
          ...{ sample: row.sample, model, target, method, args, baseline },
          slot: type,
          priority: "click",
        },
        {
          signal: mine.signal,
          progress: (/** @type {any} */ report) => (bar.value = report.done / (report.total || 1)),
        },
      );
      const heading = h("p", {}, `${T.target} `, h("b", {}, name(answer.target)));
      if (stop === mine) replace(body, heading, draw(answer));
    } catch (problem) {
      if (stop !== mine) return;
      if (problem.kind === "cancelled")
        replace(body, h("p", { class: "quiet" }, T.cancelled), h("div", {}, button(T.again, load)));
      else if (problem.kind === "absent")
        replace(body, h("p", { class: "quiet" }, problem.message));
      else replace(body, failureBox(problem, load));
    }
  }
}

/** How the score moves. @param {any} answer */
function moved({ insertion, deletion }) {
  const x = insertion.fraction.map(numeric);
  const line = (
    /** @type {any} */ curve,
    /** @type {string} */ title,
    /** @type {string} */ color,
    /** @type {string} */ dash,
  ) => {
    const label = `${title}: ${T.area} ${number(numeric(curve.area))}`;
    return { label, x, y: curve.score.map(numeric), color, dash };
  };
  return [
    lineChart(
      [line(insertion, T.insertion, WARM, ""), line(deletion, T.deletion, COLD, "6 4")],
      { label: T.curves },
    ),
    table(T.curves, {
      [T.fraction]: x,
      [T.insertion]: insertion.score,
      [T.deletion]: deletion.score,
    }),
  ];
}

/** How the numbers settle. @param {any} answer */
function settled({ option, counts, distance, gap }) {
  const x = counts.map((/** @type {any} */ _, /** @type {number} */ i) =>
    counts.length > 1 ? i / (counts.length - 1) : 0,
  );
  const ticks = counts.map((/** @type {number} */ n, /** @type {number} */ i) => [x[i], String(n)]);
  const chart = (
    /** @type {any[]} */ values,
    /** @type {string} */ label,
    /** @type {string} */ color,
    /** @type {string} */ dash,
  ) => lineChart([{ label, x, y: values.map(numeric), color, dash }], { label }, ticks);
  const most = counts[counts.length - 1];
  return [
    chart(distance, T.distance(most, option), WARM, ""),
    gap ? chart(gap, T.gap, COLD, "6 4") : null,
    table(T.convergence, {
      [option]: counts,
      [T.distance(most, option)]: distance,
      ...(gap ? { [T.gap]: gap } : {}),
    }),
  ];
}

/** @param {string} label @param {Record<string, any[]>} columns numbers by their title */
function table(label, columns) {
  const [first] = Object.values(columns);
  const cells = (/** @type {number} */ i) =>
    Object.values(columns).map((values) =>
      h("td", { class: "figure" }, number(numeric(values[i]))),
    );
  const titles = Object.keys(columns).map((title) =>
    h("th", { scope: "col", class: "figure" }, title),
  );
  return h(
    "details",
    {},
    h("summary", {}, T.asTable),
    h(
      "div",
      { class: "scroll", tabIndex: 0, role: "group", "aria-label": label },
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, titles)),
        h(
          "tbody",
          {},
          first.map((_, i) => h("tr", {}, cells(i))),
        ),
      ),
    ),
  );
}
