/** Screen 6: the keys, the colours, the methods, and what an attribution is not. */

import { MISSING } from "./colors.js";
import { button, h, name } from "./dom.js";
import { legend } from "./legend.js";
import { T } from "./strings.js";

/**
 * A dialog that gives the focus back where it was.
 * @param {any} app
 * @param {string} title
 * @param {any} content
 */
export function openDialog(app, title, content) {
  const before = document.activeElement;
  const id = "attrib-dialog";
  const el = h(
    "dialog",
    { "aria-labelledby": id },
    h(
      "header",
      {},
      h("h2", { id }, title),
      button("✕", () => el.close(), { class: "plain", "aria-label": T.close }),
    ),
    h("div", { class: "content" }, content),
  );
  el.addEventListener("close", () => {
    el.remove();
    /** @type {any} */ (before)?.focus?.();
  });
  el.addEventListener("click", (/** @type {Event} */ event) => {
    if (event.target === el) el.close();
  });
  app.element.append(el);
  el.showModal();
  return el;
}

/** @param {any} app */
export function openHelp(app) {
  const { config, store } = app;
  const { palette, sign } = store.get();
  const groups = [...new Set(config.methods.map((/** @type {any} */ method) => method.group))];
  return openDialog(app, T.help, [
    h(
      "section",
      { class: "stack" },
      h("h3", {}, T.reading),
      h("p", {}, T.readingText),
      legend({ limit: 1 }, { sign, palette, target: T.theTarget, unit: null }),
      h(
        "p",
        { class: "quiet" },
        h("b", { style: { background: MISSING, color: "#000000", padding: "0 6px" } }, "╱╱"),
        ` ${T.hatched}`,
      ),
    ),
    h(
      "section",
      { class: "stack" },
      h("h3", {}, T.limits),
      h(
        "ul",
        { class: "stack" },
        T.limitList.map((/** @type {string} */ line) => h("li", {}, line)),
      ),
    ),
    h(
      "section",
      { class: "stack" },
      h("h3", {}, T.keys),
      h(
        "dl",
        { class: "keys" },
        T.keyList.map(([keys, what]) => [
          h(
            "dt",
            {},
            keys.split(" ").map((key) => [h("kbd", {}, key), " "]),
          ),
          h("dd", {}, what),
        ]),
      ),
    ),
    h(
      "section",
      { class: "stack" },
      h("h3", {}, T.methods),
      groups.map((group) =>
        h(
          "details",
          {},
          h("summary", {}, T.group[group] ?? group),
          h(
            "dl",
            { class: "stack" },
            config.methods
              .filter((/** @type {any} */ m) => m.group === group)
              .map((/** @type {any} */ m) => [
                h("dt", {}, h("b", {}, name(m.title))),
                h("dd", { class: "quiet" }, m.summary),
              ]),
          ),
        ),
      ),
    ),
    h("p", { class: "quiet" }, `attrib ${config.version}`),
  ]);
}
