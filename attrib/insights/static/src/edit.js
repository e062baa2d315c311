/** Screen 5: what if the sample were a little different: edit, see the prediction move, explain. */

import { bars } from "./bars.js";
import { button, h, name, replace } from "./dom.js";
import { EDITORS } from "./editors.js";
import { numeric } from "./frames.js";
import { number, percent } from "./numbers.js";
import { failureBox } from "./captions.js";
import { createGroup } from "./group.js";
import { createPanel } from "./panel.js";
import { classOf, modelOf, targetOf } from "./store.js";
import { T } from "./strings.js";
import { createCursor } from "./views.js";

/** @param {any} app @param {any} row */
export function editTab(app, row) {
  const { config, client, store } = app;
  /** @type {any[]} every state so far; the last one counts */
  let past = [{}];
  /** @type {any[]} */ let panels = [];
  let turnOf = 0;
  const undo = button(T.undo, () => past.length > 1 && (past.pop(), changed()));
  const reset = button(T.reset, () => ((past = [{}]), changed()));
  const explain = button(T.explainEdited, attribute, { class: "primary" });
  const moved = h("div", { class: "stack", "aria-live": "polite" });
  const result = h("div", { class: "stack" });
  const editors = config.features.map((/** @type {any} */ feature) => {
    const make = feature.editable ? EDITORS[feature.kind] : null;
    const editor = make?.(
      feature,
      row.features[feature.name],
      (/** @type {any} */ edit) => push(feature.name, edit),
      () => past.at(-1)[feature.name],
    );
    return {
      el: section(feature.name, editor?.el ?? h("p", { class: "quiet" }, T.notEditable)),
      editor,
      name: feature.name,
    };
  });
  let edited = row;
  changed();
  return {
    el: h(
      "div",
      { class: "stack" },
      h(
        "div",
        { class: "sections" },
        h(
          "div",
          { class: "stack" },
          editors.map((one) => one.el),
        ),
        section(T.prediction.moves, moved, h("div", { class: "tools" }, undo, reset, explain)),
      ),
      result,
    ),
    dispose() {
      turnOf += 1;
      clear();
    },
  };

  /** @param {string} feature @param {any} edit */
  function push(feature, edit) {
    past.push({ ...past.at(-1), [feature]: edit });
    changed();
  }

  async function changed() {
    turnOf += 1;
    const mine = turnOf;
    const edits = past.at(-1);
    clear();
    undo.disabled = reset.disabled = explain.disabled = past.length < 2;
    if (past.length < 2) {
      edited = row;
      for (const { editor, name: key } of editors) editor?.draw(row.features[key]);
      replace(moved, difference(row.predictions, row.predictions, config));
      return;
    }
    try {
      const answer = await client.request("predict", { sample: row.sample, edits });
      if (mine !== turnOf) return;
      const features = { ...row.features, ...answer.features };
      edited = { ...row, predictions: answer.predictions, edited: features };
      for (const { editor, name: key } of editors) editor?.draw(edited.edited[key]);
      replace(moved, difference(answer.original, answer.predictions, config));
    } catch (problem) {
      if (mine === turnOf) replace(moved, failureBox(problem, changed));
    }
  }

  /** What explained the sample as it was before the last edit says nothing any more. */
  function clear() {
    for (const panel of panels) panel.dispose();
    panels = [];
    replace(result);
  }

  /** The same target for the sample, the edited one, and what the edits changed. */
  function attribute() {
    const model = modelOf(store, config);
    const rule = targetOf(store, row.sample, model);
    const part = (/** @type {any} */ one) => classOf(one, edited, model) ?? one;
    show(rule.contrast ? { contrast: rule.contrast.map(part) } : part(rule));

    /** @param {any} target */
    function show(target) {
      clear();
      const common = {
        model,
        cursor: createCursor(),
        group: createGroup(store, () => "page"),
        choose: show,
      };
      const fixed = { target, now: true };
      const changed = { row: edited, edits: past.at(-1) };
      panels = [
        createPanel(app, { ...common, row, fixed, slot: "edit:before", title: T.original }),
        createPanel(app, { ...common, ...changed, fixed, slot: "edit:after", title: T.edited }),
        createPanel(app, {
          ...common,
          ...changed,
          fixed: { ...fixed, change: true },
          slot: "edit:change",
          title: T.changedBy,
          chips: false,
        }),
      ];
      replace(
        result,
        h("p", { class: "quiet" }, T.sameTarget),
        h(
          "div",
          { class: "side" },
          panels.map((one) => h("article", { class: "card" }, one.el)),
        ),
      );
    }
  }
}

/** A share that was added, or taken. @param {number} share */
function change(share) {
  const words = percent(share);
  return share > 0 && words !== percent(0) ? `+${words}` : words;
}

/** How every prediction moved. @param {any[]} before @param {any[]} after @param {any} config */
function difference(before, after, config) {
  return after.map((now, i) => {
    const old = before[i];
    const title = after.length > 1 ? h("p", { class: "title" }, name(now.model)) : null;
    if (now.error || old.error) return [title, h("p", {}, name(now.error ?? old.error))];
    if (config.study.task === "value") {
      return [title, h("p", {}, `${number(numeric(old.value))} → ${number(numeric(now.value))}`)];
    }
    const best = (/** @type {any} */ p) => [
      h("b", {}, name(p.top[0].name)),
      ` ${percent(numeric(p.top[0].score))}`,
    ];
    const headline = h("p", {}, `${T.nowPredicted} `, best(old), " → ", best(now));
    const ids = [...new Set([...old.top, ...now.top].map((choice) => choice.class))].slice(0, 6);
    const score = (/** @type {any} */ p, /** @type {number} */ id) =>
      p.top.find((/** @type {any} */ c) => c.class === id);
    const items = ids.map((id) => {
      const [a, b] = [numeric(score(old, id)?.score ?? 0), numeric(score(now, id)?.score ?? 0)];
      return {
        label: (score(now, id) ?? score(old, id)).name,
        detail: `${percent(a)} → ${percent(b)}`,
        value: b - a,
        text: change(b - a),
      };
    });
    return [title, headline, bars(items, { limit: 1, label: T.prediction.moves })];
  });
}

/** @param {string} title @param {...any} content */
function section(title, ...content) {
  return h("section", { class: "section", "aria-label": title }, h("h3", {}, name(title)), content);
}
