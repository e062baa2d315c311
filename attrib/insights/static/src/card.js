/** The card of a sample: what it is, what each model says of it, why. */

import { button, h, name, unique } from "./dom.js";
import { numeric } from "./frames.js";
import { number } from "./numbers.js";
import { createPanel } from "./panel.js";
import { cardKey } from "./store.js";
import { T } from "./strings.js";
import { createCursor } from "./views.js";

/**
 * @param {any} app
 * @param {any} row
 * @param {{slot?: string, group: any, wide?: boolean, fixed?: any}} options
 */
export function createCard(app, row, { slot = "card", group, wide = false, fixed }) {
  const { config, store } = app;
  const cursor = createCursor();
  const title = unique("card");
  const { model } = store.get();
  const models = row.error
    ? []
    : model === "*"
      ? config.models.map((/** @type {any} */ item) => item.name)
      : [model];
  const panels = models.map((/** @type {string} */ one) =>
    createPanel(app, {
      row,
      model: one,
      cursor,
      group,
      wide,
      fixed,
      slot: `${slot}:${row.sample}:${one}`,
      title: models.length > 1 ? [name(one), badge(row, one)] : undefined,
    }),
  );
  const el = h(
    "article",
    { class: "card", tabIndex: -1, "aria-labelledby": title, "data-sample": row.sample },
    h(
      "header",
      {},
      h("h2", { id: title }, name(T.sample(row.name))),
      models.length === 1 ? badge(row, models[0]) : null,
      row.label ? null : h("span", { class: "quiet" }, T.unlabelled),
      h("div", { class: "end" }, pinButton(app, row), menu(app, row, panels)),
    ),
    row.error
      ? h(
          "div",
          { class: "panel" },
          h("div", { class: "failure" }, h("b", {}, T.unreadable), name(row.error)),
        )
      : null,
    panels.map((/** @type {any} */ panel) => panel.el),
  );
  return {
    el,
    row,
    panels,
    dispose: () => panels.forEach((/** @type {any} */ panel) => panel.dispose()),
  };
}

/** What a link to one card says of its own: of the targets only those of this sample.
 * @param {any} app @param {any} row
 */
function linkOf({ config, store }, row) {
  const { targets } = store.get();
  const keys = config.models.map((/** @type {any} */ model) => cardKey(row.sample, model.name));
  const own = Object.entries(targets).filter(([key]) => keys.includes(key));
  return { screen: "detail", sample: row.sample, targets: Object.fromEntries(own) };
}

/** Right or wrong, as a sign and a word. @param {any} row @param {string} model */
function badge(row, model) {
  const prediction = row.predictions.find((/** @type {any} */ item) => item.model === model);
  if (!prediction) return null;
  if (prediction.error)
    return [
      h("span", { class: "badge warn" }, `⚠ ${T.noPrediction}`),
      h("span", { class: "error" }, name(prediction.error)),
    ];
  const loss =
    prediction.loss === null
      ? null
      : h("span", { class: "quiet" }, T.loss(number(numeric(prediction.loss))));
  if (prediction.correct === null) return loss;
  const right = prediction.correct;
  return [
    h(
      "span",
      { class: `badge ${right ? "good" : "bad"}` },
      right ? `✓ ${T.correct}` : `✗ ${T.incorrect}`,
    ),
    loss,
  ];
}

/** @param {any} app @param {any} row */
function pinButton(app, row) {
  const pinned = () => app.store.get().pins.includes(row.sample);
  const el = button(T.pin, () => app.pin(row.sample), {
    class: "plain",
    "aria-pressed": String(pinned()),
    "data-pin": row.sample,
    "aria-label": T.pinName(T.sample(row.name)),
  });
  return el;
}

/** @param {any} app @param {any} row @param {any[]} panels */
function menu(app, row, panels) {
  const act = (/** @type {string} */ label, /** @type {() => void} */ run) =>
    button(label, () => {
      box.open = false;
      run();
    });
  const box = h(
    "details",
    { class: "menu" },
    h("summary", { "aria-label": T.menuOf(T.sample(row.name)) }, "⋯"),
    h(
      "div",
      {},
      act(T.open, () => app.open(row.sample)),
      app.client.host.link
        ? act(T.copyLink, () => app.copyLink(linkOf(app, row)))
        : null,
      act(T.export, () => app.export(row, panels)),
      act(T.copySnippet, () => app.copySnippet(panels)),
    ),
  );
  box.addEventListener("focusout", (/** @type {FocusEvent} */ event) => {
    if (!box.contains(/** @type {Node} */ (event.relatedTarget))) box.open = false;
  });
  return box;
}
