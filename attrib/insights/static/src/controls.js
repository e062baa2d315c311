/** The bar of controls: what to explain and how, which samples, how they look. */

import { button, field, h, named, replace, select, visible } from "./dom.js";
import { argumentField, classInput } from "./fields.js";
import { filterBox } from "./filters.js";
import { lookBox } from "./look.js";
import { costly, modelOf } from "./store.js";
import { T } from "./strings.js";

/** @param {any} app */
export function createControls(app) {
  const { config, store } = app;
  const explain = h("div", { class: "row" });
  const advanced = h("details", {}, h("summary", {}, T.moreOptions), h("div", { class: "row" }));
  const help = h("p", { class: "help-line" });
  /** @type {Map<string, any>} */
  let fields = new Map();

  const filters = config.report ? null : filterBox(app);
  const el = h(
    "section",
    { class: "controls", "aria-label": T.controls },
    explain,
    help,
    h("div", { class: "more" }, advanced, filters, lookBox(app)),
  );
  store.on(["model", "method", "run"], draw);
  store.on(["args", "baseline", "target"], () =>
    el.contains(document.activeElement) ? drawHelp() : draw(),
  );
  draw();

  return {
    el,
    /** Show what the server says about an argument at its field. @param {any} failure */
    complain(failure) {
      const box = fields.get(failure.field);
      if (!box) return false;
      box.complain(failure.message);
      const details = box.closest("details");
      if (details) details.open = true;
      return true;
    },
    focus: (/** @type {string} */ what) =>
      el.querySelector(`[data-control="${what}"] select, [data-control="${what}"] input`)?.focus(),
  };

  function draw() {
    const state = store.get();
    const method = config.methods.find((/** @type {any} */ item) => item.name === state.method);
    const model = modelOf(store, config);
    const site = config.models.find((/** @type {any} */ item) => item.name === model);
    const focused = el.contains(document.activeElement) ? placeOf(document.activeElement) : null;
    fields = new Map(
      method.fields.map((/** @type {any} */ spec) => [
        spec.name,
        argumentField(
          spec,
          state.args[spec.name],
          (value) => store.set({ args: { ...store.get().args, [spec.name]: value } }),
          site,
        ),
      ]),
    );
    const shown = (/** @type {boolean} */ wanted) =>
      method.fields
        .filter((/** @type {any} */ f) => Boolean(f.advanced) === wanted)
        .map((/** @type {any} */ f) => fields.get(f.name));
    replace(
      explain,
      modelField(app),
      methodField(app, model),
      config.report ? null : [shown(false), method.baseline ? baselineFields(app) : null],
      targetField(app),
      runBox(app),
    );
    replace(advanced.lastElementChild, shown(true));
    advanced.hidden = config.report || shown(true).length === 0;
    drawHelp();
    if (focused) el.querySelector(focused)?.focus();
  }

  /** What the method is, and what it costs as it is asked for. */
  async function drawHelp() {
    const { method: name, args } = store.get();
    const method = config.methods.find((/** @type {any} */ item) => item.name === name);
    const model = modelOf(store, config);
    replace(help, method.summary, passesText(method.passes[model]));
    if (config.report || Object.keys(args).length === 0) return;
    try {
      const { passes } = await app.client.request("cost", { model, method: name, args });
      if (store.get().args === args) replace(help, method.summary, passesText(passes));
    } catch {
      // What is wrong with the arguments is told where they are used.
    }
  }
}

/** @param {number | null} passes */
function passesText(passes) {
  return passes ? ` ${T.passes(passes)}` : "";
}

/** How to find a field again after all were made anew. @param {any} element */
function placeOf(element) {
  const { control, argument } = element.closest("[data-control], [data-argument]")?.dataset ?? {};
  const [key, value] = control ? ["control", control] : ["argument", argument];
  return value ? `[data-${key}="${CSS.escape(value)}"] :is(select, input)` : null;
}

/** @param {any} app */
function modelField({ config, store }) {
  if (config.models.length < 2) return null;
  const choices = [
    { value: "*", label: T.allModels },
    ...config.models.map((/** @type {any} */ m) => ({ value: m.name, label: m.name })),
  ];
  return named(
    field(
      T.model,
      select(choices, store.get().model, (model) => store.set({ model })),
    ),
    "model",
  );
}

/** @param {any} app @param {string} model */
function methodField({ config, store }, model) {
  const choices = config.methods.map((/** @type {any} */ method) => {
    const why = method.models[model] ?? null;
    return {
      value: method.name,
      label: method.title,
      group: why ? T.notHere : (T.group[method.group] ?? method.group),
      why,
    };
  });
  choices.sort(
    (/** @type {any} */ a, /** @type {any} */ b) => Number(Boolean(a.why)) - Number(Boolean(b.why)),
  );
  const control = select(choices, store.get().method, (method) =>
    store.set({ method, args: {}, ...(costly(config, method) ? { run: "demand" } : {}) }),
  );
  for (const option of control.options) {
    const choice = choices.find((/** @type {any} */ item) => item.value === option.value);
    if (!choice?.why) continue;
    option.disabled = true;
    replace(option, visible(`${choice.label}: ${choice.why}`));
  }
  return named(field(T.method, control), "method");
}

/** @param {any} app */
function baselineFields({ config, store }) {
  const several = config.features.length > 1;
  return config.features
    .filter((/** @type {any} */ feature) => (config.baselines[feature.name] ?? []).length > 1)
    .map((/** @type {any} */ feature) => {
      const choices = config.baselines[feature.name].map((/** @type {any} */ item) => ({
        value: item.name,
        label: item.title,
      }));
      const value = store.get().baseline[feature.name] ?? choices[0].value;
      const control = select(choices, value, (choice) =>
        store.set({ baseline: { ...store.get().baseline, [feature.name]: choice } }),
      );
      return named(
        field(several ? T.baselineOf(feature.name) : T.baseline, control),
        `baseline-${feature.name}`,
      );
    });
}

/** @param {any} app */
function targetField({ config, store }) {
  if (config.study.task === "value") return null;
  const names =
    config.study.classes ?? Array.from({ length: config.study.outputs }, (_, i) => String(i));
  const { target } = store.get();
  const rule = target.contrast ? "contrast" : typeof target === "number" ? "class" : target;
  const inputs = h("div", {});
  const control = select(
    ["pred", "label", "class", "contrast"].map((value) => ({ value, label: T.rule[value] })),
    rule,
    (chosen) => {
      if (chosen === "pred" || chosen === "label") {
        inputs.replaceChildren();
        store.set({ target: chosen, targets: {} });
      } else offer(chosen);
    },
  );
  const box = named(field(T.target, control), "target");
  box.append(inputs);
  if (rule === "class" || rule === "contrast") offer(rule);
  return box;

  /** @param {string} chosen */
  function offer(chosen) {
    const parts = target.contrast ?? [typeof target === "number" ? target : "pred", "second"];
    const places = chosen === "class" ? [0] : [0, 1];
    const made = places.map((i) => {
      const written =
        typeof parts[i] === "number" ? names[parts[i]] : chosen === "class" ? "" : T.rule[parts[i]];
      const one = classInput(names, written);
      one.input.setAttribute("aria-label", T.targetPart[chosen === "class" ? "only" : i]);
      const meant = () =>
        ["pred", "second", "label"].find((key) => T.rule[key] === one.input.value.trim()) ??
        one.index();
      return { ...one, meant };
    });
    const apply = () => {
      const meant = made.map((one) => one.meant());
      const bad = meant.some((value) => value === -1);
      box.complain(bad && made.every((one) => one.input.value) ? T.noClass : null);
      if (bad) return;
      store.set({ target: chosen === "class" ? meant[0] : { contrast: meant }, targets: {} });
    };
    for (const one of made) one.input.addEventListener("change", apply);
    inputs.replaceChildren(...made.flatMap((one) => [one.input, one.list]));
  }
}

/** @param {any} app */
function runBox(app) {
  const { store, config } = app;
  if (config.report) return null;
  const auto = h("input", {
    type: "checkbox",
    checked: store.get().run === "auto",
    onchange: () => store.set({ run: auto.checked ? "auto" : "demand" }),
  });
  return h(
    "div",
    { class: "run" },
    named(field(T.auto, auto, { class: "check" }), "auto"),
    store.get().run === "demand" ? button(T.run, () => app.runAll(), { class: "primary" }) : null,
  );
}
