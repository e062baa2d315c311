/** The app: one frame, one screen at a time, the state between them. */

import { browseScreen } from "./browse.js";
import { createClient } from "./client.js";
import { compareScreen } from "./compare.js";
import { createControls } from "./controls.js";
import { detailScreen } from "./detail.js";
import { button, h, name, replace, svg } from "./dom.js";
import { openExport } from "./exports.js";
import { readFrames } from "./frames.js";
import { openHelp } from "./help.js";
import { fragment, frozenHost, toFragment, widgetHost } from "./hosts.js";
import { listenToKeys } from "./keyboard.js";
import { overviewScreen } from "./overview.js";
import { createStore, defaults, fromLink, toLink } from "./store.js";
import { T } from "./strings.js";
import { followTheme } from "./theme.js";

const SCREENS = {
  browse: browseScreen,
  detail: detailScreen,
  overview: overviewScreen,
  compare: compareScreen,
};

/** What anywidget calls. @param {{model: any, el: HTMLElement, signal?: AbortSignal}} view */
export function render({ model, el, signal }) {
  const end = new AbortController();
  signal?.addEventListener("abort", () => end.abort());
  const place = h("div", {});
  // Notebook takes its shortcuts before we see a key, unless what has the focus says no.
  place.addEventListener("focusin", ({ target }) =>
    target.setAttribute("data-lm-suppress-shortcuts", "true"),
  );
  el.append(place);
  mount(place, widgetHost(model, end.signal), { signal: end.signal });
  return () => end.abort();
}

/**
 * Run the app in an element.
 * @param {HTMLElement} element
 * @param {any} host
 * @param {{signal?: AbortSignal}} [options]
 */
export async function mount(element, host, { signal = new AbortController().signal } = {}) {
  element.classList.add("ai");
  element.setAttribute("lang", "en");
  if (host.kind !== "widget") document.body.classList.add("ai-page");
  followTheme(element, signal);
  replace(
    element,
    h(
      "main",
      { class: "empty", "aria-busy": "true" },
      h("h1", {}, T.title),
      h("p", { role: "status" }, T.loading),
    ),
  );
  const frame = { bar: h("div", {}) };
  const client = createClient(host, {
    changed: (pending) => frame.pending?.(pending),
    lost: (failure) => frame.lost?.(failure),
    found: () => frame.found?.(),
  });
  try {
    const config = await client.request("init", {}, { signal });
    if (signal.aborted) return;
    run(element, {
      client,
      host,
      signal,
      frame,
      config: { ...config, report: host.kind === "report" },
    });
  } catch (failure) {
    if (signal.aborted) return;
    const words = failure.kind === "auth" ? T.noToken : failure.message;
    replace(
      element,
      h(
        "main",
        { class: "empty" },
        h("h1", {}, T.title),
        h("p", { role: "alert", class: "failure" }, words),
        button(T.again, () => mount(element, host, { signal }), { class: "primary" }),
      ),
    );
  }
}

/** @param {HTMLElement} element @param {any} parts */
function run(element, { client, host, signal, frame, config }) {
  const link = fromLink(host.getState?.() ?? {}, config);
  const store = createStore({ ...defaults(config), ...link.state });
  const say = h("p", { class: "unseen", role: "status" });
  const banner = h("div", { role: "alert" });
  const top = h("header", { class: "top" });
  const page = host.kind === "widget" ? h("section", { "aria-label": T.title }) : h("main", {});
  /** @type {any} */ let screen = null;
  let toast = 0;

  const app = {
    element,
    client,
    config,
    store,
    get screen() {
      return screen;
    },
    controls: /** @type {any} */ (null),
    lastCard: null,
    announce,
    complain: (/** @type {any} */ failure) => app.controls.complain(failure),
    runAll: () =>
      screen.cards.forEach((/** @type {any} */ card) =>
        card.panels.forEach((/** @type {any} */ panel) => panel.run(undefined, "click")),
      ),
    cancelAll,
    open: (/** @type {number} */ sample) => store.set({ sample, screen: "detail", tab: "explain" }),
    pin,
    help: () => openHelp(app),
    export: (/** @type {any} */ row, /** @type {any[]} */ panels) => openExport(app, row, panels),
    copyLink,
    copySnippet: (/** @type {any[]} */ panels) =>
      copy(
        panels
          .map((panel) => panel.result?.snippet)
          .filter(Boolean)
          .join("\n\n"),
        T.snippetCopied,
      ),
    openFilters,
    select: (/** @type {any} */ result) =>
      host.setSelection?.({
        sample: result.sample,
        model: result.model,
        target: result.target,
        method: result.method,
      }),
  };

  app.controls = createControls(app);
  frame.pending = (/** @type {number} */ pending) => drawWork(pending);
  frame.lost = lost;
  frame.found = () => replace(banner);
  const work = h("span", { class: "work", role: "status" });
  replace(element, h("div", {}, top, banner), page, say);
  drawTop();
  show();
  if (link.ignored.length) notify(T.ignored(link.ignored.join(", ")));

  store.on(["screen"], () => {
    show();
    page.querySelector("h2")?.scrollIntoView?.({ block: "nearest" });
  });
  store.on(["screen", "pins"], drawTop);
  store.on(Object.keys(store.get()), () => host.setState?.(toLink(store.get(), config)));
  host.onState?.((/** @type {any} */ state) => {
    const asked = fromLink(state, config);
    store.set({ ...defaults(config), ...asked.state });
    if (asked.ignored.length) notify(T.ignored(asked.ignored.join(", ")));
  });
  listenToKeys(app, host.kind === "widget" ? element : document, signal);
  if (host.kind === "page") document.title = config.study.name;
  // What gets the focus is not to lie under the bar that stays at the top.
  const bar = new ResizeObserver(([{ target }]) =>
    element.style.setProperty("--bar", `${/** @type {any} */ (target).offsetHeight}px`),
  );
  bar.observe(app.controls.el);
  signal.addEventListener("abort", () => bar.disconnect());
  signal.addEventListener("abort", () => screen?.dispose());

  function show() {
    screen?.dispose();
    const { screen: which } = store.get();
    replace(page, h("h1", { class: "unseen" }, `${T.title}: ${T.screen[which]}`), app.controls.el);
    screen = SCREENS[which](app);
    page.append(screen.el);
    element.dataset.screen = which;
  }

  function drawTop() {
    const { screen: now, pins } = store.get();
    const tabs = ["browse", ...(config.report ? [] : ["overview"]), "compare"].map((which) =>
      button(
        which === "compare" ? `${T.screen.compare} (${pins.length})` : T.screen[which],
        () => store.set({ screen: which }),
        which === now || (which === "browse" && now === "detail") ? { "aria-current": "page" } : {},
      ),
    );
    replace(
      top,
      h(
        "div",
        { class: "brand" },
        mark(),
        h("strong", {}, T.title),
        h("span", { class: "quiet" }, name(config.study.name)),
      ),
      h("nav", { class: "tabs", "aria-label": T.screens }, tabs),
      h(
        "div",
        { class: "end" },
        work,
        host.link ? button(T.copyLink, () => copyLink({}), { class: "plain" }) : null,
        button([h("kbd", { "aria-hidden": "true" }, "?"), ` ${T.help}`], () => openHelp(app), {
          class: "plain",
        }),
      ),
    );
    for (const el of element.querySelectorAll("[data-pin]")) {
      el.setAttribute(
        "aria-pressed",
        String(pins.includes(Number(/** @type {any} */ (el).dataset.pin))),
      );
    }
  }

  /** @param {number} pending */
  function drawWork(pending) {
    replace(
      work,
      pending ? [T.working(pending), button(T.cancelAll, cancelAll, { class: "plain" })] : "",
    );
  }

  function cancelAll() {
    const panels = screen?.cards?.flatMap((/** @type {any} */ card) => card.panels) ?? [];
    for (const panel of panels) panel.cancel();
    if (host.kind !== "report") client.request("cancel", { job: null }).catch(() => {});
  }

  /** @param {any} failure */
  function lost(failure) {
    const gone = host.kind === "widget" ? T.kernelGone : T.connectionLost;
    replace(
      banner,
      h(
        "div",
        { class: "banner bad" },
        h("span", {}, failure.kind === "auth" ? T.noToken : gone),
        button(T.again, retry),
      ),
    );
  }

  async function retry() {
    try {
      await client.request("init");
      replace(banner);
      screen.reload();
    } catch {
      // The client has said so in the banner already.
    }
  }

  /** @param {number} sample */
  function pin(sample) {
    const { pins } = store.get();
    store.set({
      pins: pins.includes(sample)
        ? pins.filter((/** @type {number} */ one) => one !== sample)
        : [...pins, sample],
    });
  }

  function openFilters() {
    const box = page.querySelector(".filters");
    if (!box) return;
    box.open = true;
    app.controls.focus("search");
  }

  /** @param {any} patch */
  function copyLink(patch) {
    const [address] = host.link().split("#");
    copy(`${address}#${toFragment(toLink({ ...store.get(), ...patch }, config))}`, T.linkCopied);
  }

  /** @param {string} words @param {string} done */
  async function copy(words, done) {
    if (!words) {
      notify(T.nothingShown);
      return;
    }
    try {
      await navigator.clipboard.writeText(words);
      notify(done);
    } catch {
      // Where the clipboard is out of reach the words can be taken by hand.
      notify(words);
    }
  }

  /** @param {string} words */
  function notify(words) {
    clearTimeout(toast);
    element.querySelector(".toast")?.remove();
    element.append(h("div", { class: "toast", role: "status" }, words));
    toast = setTimeout(() => element.querySelector(".toast")?.remove(), 6000);
  }

  /** @param {string} words */
  function announce(words) {
    replace(say, words);
  }
}

/** Two halves: what lowers, what raises. */
function mark() {
  return svg(
    "svg",
    { class: "mark", viewBox: "0 0 22 22", "aria-hidden": "true" },
    svg("rect", { x: 1, y: 11.5, width: 5, height: 7, rx: 1.2, fill: "#62a0d8" }),
    svg("rect", { x: 8.5, y: 3, width: 5, height: 8, rx: 1.2, fill: "#f0a24d" }),
    svg("rect", { x: 16, y: 6, width: 5, height: 5, rx: 1.2, fill: "#a34a00" }),
    svg("line", { x1: 0, x2: 22, y1: 11.25, y2: 11.25, stroke: "currentColor", "stroke-width": 1 }),
  );
}

export { fragment, frozenHost, readFrames, toFragment };
