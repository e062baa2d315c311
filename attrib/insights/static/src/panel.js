/**
 * One attribution of one sample by one model: targets to press, what is shown, its progress, its
 * views. What is shown stays until the next result is there; a job that is stopped or fails leaves it.
 */

import { captionParts, failureBox, methodTitle } from "./captions.js";
import { button, h, name, replace } from "./dom.js";
import { numeric } from "./frames.js";
import { duration, number, percent } from "./numbers.js";
import { cardKey, classOf, EXPLAIN, LOOK, same, targetOf } from "./store.js";
import { T } from "./strings.js";
import { attributionViews } from "./views.js";

// A bar that comes and goes at once is noise.
const PATIENCE = 500;

/**
 * @param {any} app
 * @param {{row: any, model: string, slot: string, cursor: any, fixed?: Record<string, any>, edits?: any,
 *   title?: any, chips?: boolean, wide?: boolean, group: any, done?: () => void,
 *   choose?: (target: number) => void}} options
 *   `fixed` are parts of the request that the controls do not change; panels of a `group` can
 *   share a scale; `choose` is what a pressed target does, if it does not explain itself here
 */
export function createPanel(
  app,
  {
    row,
    model,
    slot,
    cursor,
    fixed = {},
    edits = {},
    title,
    chips = true,
    wide = false,
    group,
    done,
    choose,
  },
) {
  const { config, client, store } = app;
  const prediction =
    row.predictions.find((/** @type {any} */ item) => item.model === model) ?? row.predictions[0];
  const memory = {};
  /** @type {any} */ let result = null;
  /** @type {any} */ let error = null;
  /** @type {{target: any, stop: AbortController} | null} */ let job = null;
  // The target of this panel alone, once a chip was pressed; and that of what is shown.
  const key = cardKey(row.sample, model);
  const remembered = () => ("target" in fixed ? null : (store.get().targets[key] ?? null));
  /** @type {any} */ let own = remembered();
  /** @type {any} */ let kept = own;
  let views = { el: h("div", { class: "skeleton", "aria-hidden": "true" }), stop: () => {} };

  const heading = title ? h("h3", {}, title) : null;
  const chipBox = h("div", { class: "chips", role: "group", "aria-label": T.targets });
  const caption = h("p", { class: "caption" });
  const bar = h("progress", { max: 1, "aria-label": T.progress });
  const barText = h("span", {});
  const progress = h(
    "div",
    { class: "progress", hidden: true },
    bar,
    barText,
    button(T.cancel, () => cancel()),
  );
  const failure = h("div", { hidden: true });
  const place = h("div", {}, views.el);
  const el = h(
    "div",
    { class: "panel", "data-model": model },
    heading,
    chips ? chipBox : null,
    caption,
    progress,
    failure,
    place,
  );

  const panel = {
    el,
    row,
    model,
    prediction,
    get result() {
      return result;
    },
    get busy() {
      return job !== null;
    },
    run,
    cancel,
    draw,
    press,
    dispose,
    request,
    limits: group.limits,
    redraw: drawViews,
  };
  group.add(panel);
  const stops = [
    store.on(
      [...EXPLAIN, "targets"].filter((part) => part !== "model" && !(part in fixed)),
      (/** @type {any} */ state, /** @type {string[]} */ changed) => {
        const asked = changed.some((part) => EXPLAIN.includes(part));
        if (!asked && same(own, remembered())) return;
        if (changed.includes("targets")) own = kept = remembered();
        if (state.run === "auto") run();
        else draw();
      },
    ),
    store.on(LOOK, drawViews),
  ];
  drawChips();
  if (store.get().run === "auto" || fixed.now) run();
  else {
    drawViews();
    draw();
  }
  return panel;

  /** What would be asked now. */
  function request(target = wanted()) {
    const state = store.get();
    const { method, args, baseline } = {
      method: state.method,
      args: state.args,
      baseline: state.baseline,
      ...fixed,
    };
    const { change = false } = fixed;
    return { sample: row.sample, model, target, method, args, baseline, edits, change };
  }

  function wanted() {
    return own ?? fixed.target ?? targetOf(store, row.sample, model);
  }

  /** @param {any} target @param {string} [priority] */
  async function run(target = wanted(), priority = "visible") {
    job?.stop.abort();
    const mine = { target, stop: new AbortController() };
    job = mine;
    error = null;
    const shown = setTimeout(() => job === mine && (progress.hidden = false), PATIENCE);
    bar.removeAttribute("value");
    barText.textContent = T.queued(0);
    drawChips();
    el.setAttribute("aria-busy", "true");
    try {
      const answer = await client.request(
        "attribute",
        { ...request(target), slot, priority },
        { signal: mine.stop.signal, progress: advance },
      );
      if (job !== mine) return;
      result = answer;
      kept = own;
      if (own !== null) store.set({ targets: { ...store.get().targets, [key]: own } });
      if (priority === "click") app.select(result);
      app.announce(
        T.announced(T.sample(row.name), result.target.name, methodTitle(config, result.method)),
      );
    } catch (problem) {
      if (job !== mine) return;
      own = kept;
      if (problem.kind !== "cancelled") error = problem;
      else app.announce(T.cancelled);
      if (problem.kind === "field") app.complain(problem);
    } finally {
      clearTimeout(shown);
      if (job === mine) finish();
    }
  }

  function finish() {
    job = null;
    progress.hidden = true;
    el.removeAttribute("aria-busy");
    drawViews();
    draw();
    done?.();
    if (group.shares()) group.redraw();
  }

  /**
   * @param {{done: number, total: number, eta: number | null, phase: string, waiting?: number}} report
   */
  function advance({ done: made, total, eta, phase, waiting }) {
    if (phase === "queue") barText.textContent = T.queued(waiting ?? 0);
    else {
      bar.value = total ? made / total : 0;
      barText.textContent = `${made} / ${total}${eta ? ` · ${T.left(duration(eta))}` : ""}`;
    }
  }

  function cancel() {
    job?.stop.abort();
  }

  /** @param {number} i which chip */
  function press(i) {
    const target = prediction.top[i]?.class;
    if (target === undefined) return;
    if (choose) choose(target);
    else {
      own = target;
      run(own, "click");
    }
  }

  function shownTarget() {
    return result && result.target.b === null ? result.target.a : null;
  }

  function draw() {
    drawChips();
    drawCaption();
    drawFailure();
  }

  function drawChips() {
    const pressed = job && own !== null ? own : shownTarget();
    replace(
      chipBox,
      config.study.task === "value"
        ? valueChip(prediction, row)
        : prediction.top.map((/** @type {any} */ choice, /** @type {number} */ i) =>
            chip(choice, i, choice.class === pressed),
          ),
    );
  }

  /** @param {any} choice @param {number} i @param {boolean} pressed */
  function chip(choice, i, pressed) {
    const truth = row.label && row.label.class === choice.class;
    const el = button(
      [
        i < 9 ? h("span", { class: "key", "aria-hidden": "true" }, i + 1) : null,
        name(choice.name),
        h("span", {}, percent(numeric(choice.score))),
        truth ? h("span", { class: "truth" }, T.truth) : null,
        h("span", {
          class: "level",
          style: { width: `${100 * Math.max(0, Math.min(1, numeric(choice.score)))}%` },
        }),
      ],
      () => press(i),
      { class: "chip", "aria-pressed": String(pressed), "data-class": choice.class },
    );
    if (
      document.activeElement?.getAttribute("data-class") === String(choice.class) &&
      chipBox.contains(document.activeElement)
    )
      queueMicrotask(() => el.focus());
    return el;
  }

  function drawCaption() {
    if (!result) {
      replace(
        caption,
        job || error
          ? ""
          : [T.notYet, " ", button(T.run, () => run(wanted(), "click"), { class: "primary" })],
      );
      return;
    }
    const stale = !job && changedSince();
    replace(
      caption,
      `${T.shown} `,
      captionParts(config, result),
      stale ? [" · ", h("b", {}, T.stale), " ", button(T.run, () => run(wanted(), "click"))] : null,
    );
  }

  /** Would another result be shown by now? */
  function changedSince() {
    const { method, args, baseline, target } = request();
    return !(
      method === result.method &&
      asks(target) &&
      within(args, result.args) &&
      within(baseline, result.baseline)
    );
  }

  /** Is it the target of what is shown, be it by another name? @param {any} target */
  function asks(target) {
    const meant = classOf(target, row, model);
    return same(target, result.target.rule) || (meant !== null && shownTarget() === meant);
  }

  function drawFailure() {
    failure.hidden = !error;
    if (error)
      replace(
        failure,
        failureBox(error, () => run(wanted(), "click")),
      );
  }

  function drawViews() {
    if (!result && job) return;
    const focused = place.contains(document.activeElement);
    views.stop();
    views = attributionViews({
      config,
      row: shownRow(),
      result,
      look: store.get(),
      memory,
      cursor,
      limits: group.limits,
      wide,
    });
    replace(place, views.el);
    if (focused) place.querySelector("[tabindex='0']")?.focus({ preventScroll: true });
  }

  function shownRow() {
    return row.edited ? { ...row, features: row.edited } : row;
  }

  function dispose() {
    job?.stop.abort();
    job = null;
    views.stop();
    for (const stop of stops) stop();
    group.delete(panel);
  }
}

/**
 * Does the complete choice say the same as the one that was made?
 * @param {any} made
 * @param {any} complete
 */
function within(made, complete) {
  return Object.entries(made ?? {}).every(([key, value]) => same(value, complete?.[key]));
}

/** @param {any} prediction @param {any} row */
function valueChip(prediction, row) {
  const label = row.label?.value ?? null;
  return [
    h("span", { class: "badge" }, T.predicted(number(numeric(prediction.value)))),
    label === null ? null : h("span", { class: "badge" }, T.labelled(number(numeric(label)))),
  ];
}
