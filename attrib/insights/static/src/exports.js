/** Files: pictures are drawn here, reports and numbers come from the server, their size first. */

import { button, field, h, replace, select } from "./dom.js";
import { figureOf, pngFile, svgFile } from "./figure.js";
import { openDialog } from "./help.js";
import { bytes } from "./numbers.js";
import { failureBox } from "./captions.js";
import { T } from "./strings.js";

/** @param {any} app @param {any} row @param {any[]} panels */
export function openExport(app, row, panels) {
  const { config, store, client } = app;
  const shown = panels.filter((panel) => panel.result);
  const formats = ["png", "svg", ...(config.report ? [] : ["html", "json", "npz"])];
  const stop = new AbortController();
  const format = select(
    formats.map((value) => ({ value, label: T.format[value] })),
    formats[0],
    draw,
  );
  const scope = select(
    [
      { value: "one", label: T.thisSample },
      { value: "page", label: T.allShown },
    ],
    "one",
    draw,
  );
  const classes = shown.map((panel) => panel.result.target).filter((one) => one.b === null);
  const own = [...new Set(classes.map((target) => target.a))].filter((one) => one !== null);
  const likely = shown.flatMap((panel) => panel.prediction.top.slice(0, 2));
  const among = own.every((id) => likely.some((choice) => choice.class === id));
  const targets = select(
    [...(own.length ? ["shown"] : []), "pred", "top2", "top3", "top5"].map((value) => ({
      value,
      label: T.targetsOf[value],
    })),
    among ? "top2" : "shown",
    draw,
  );
  const size = h("p", { class: "quiet", role: "status" });
  const trouble = h("div", {});
  const save = button(T.save, write, { class: "primary" });
  const scopeBox = field(T.filters, scope);
  const targetBox = field(T.targets, targets);
  const dialog = openDialog(app, T.exportOf(T.sample(row.name)), [
    field(T.formatLabel, format),
    scopeBox,
    targetBox,
    size,
    trouble,
    h("div", {}, save),
  ]);
  dialog.addEventListener("close", () => stop.abort());
  draw();

  async function draw() {
    const picture = format.value === "png" || format.value === "svg";
    scopeBox.hidden = targetBox.hidden = picture;
    replace(trouble);
    save.disabled = picture && shown.length === 0;
    size.textContent = picture ? (shown.length ? "" : T.nothingShown) : T.estimating;
    if (picture) return;
    const asked = [format.value, scope.value, targets.value].join();
    try {
      const answer = await client.request(
        "export",
        { ...request(), estimate: true },
        { signal: stop.signal },
      );
      if (asked === [format.value, scope.value, targets.value].join())
        size.textContent = T.about(bytes(answer.bytes));
    } catch (problem) {
      if (problem.kind === "cancelled") return;
      size.textContent = "";
      replace(trouble, failureBox(problem, draw));
    }
  }

  function request() {
    const { method, args, baseline, model } = store.get();
    const samples =
      scope.value === "one"
        ? [row.sample]
        : app.screen.cards.map((/** @type {any} */ card) => card.row.sample);
    return {
      format: format.value,
      samples,
      model: model === "*" ? null : model,
      methods: [{ method, args, baseline }],
      targets: targets.value === "shown" ? own : targets.value,
      slot: "export",
      priority: "click",
    };
  }

  async function write() {
    save.disabled = true;
    try {
      if (format.value === "svg" || format.value === "png") {
        for (const panel of shown) {
          const figure = figureOf(app, panel);
          const blob = format.value === "svg" ? svgFile(figure) : await pngFile(figure);
          download(blob, `${fileName(row.name)}-${fileName(panel.result.model)}.${format.value}`);
        }
      } else {
        const answer = await client.request("export", request(), {
          signal: stop.signal,
          progress: (/** @type {any} */ p) => (size.textContent = `${p.done} / ${p.total}`),
        });
        download(new Blob([answer.data.data], { type: answer.mime }), answer.name);
      }
      dialog.close();
      app.announce(T.saved);
    } catch (problem) {
      if (problem.kind !== "cancelled") replace(trouble, failureBox(problem, write));
    }
    save.disabled = false;
  }
}

/** @param {Blob} blob @param {string} file */
function download(blob, file) {
  const url = URL.createObjectURL(blob);
  const link = h("a", { href: url, download: file });
  link.click();
  // The browser reads the file after the click; an address that is gone too early is an empty file.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** @param {string} text */
function fileName(text) {
  return text.replace(/[^\p{L}\p{N}._-]+/gu, "-").slice(0, 60) || "sample";
}
