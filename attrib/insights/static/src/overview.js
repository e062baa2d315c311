/** Screen 3: the whole study: where the model errs, how sure it is, what it looks at on average. */

import { bars } from "./bars.js";
import { histogram, swarm } from "./charts.js";
import { colormap, css, ink } from "./colors.js";
import { button, h, name, replace } from "./dom.js";
import { numeric } from "./frames.js";
import { number, percent } from "./numbers.js";
import { paint } from "./paint.js";
import { failureBox, methodTitle } from "./captions.js";
import { EXPLAIN, modelOf } from "./store.js";
import { T } from "./strings.js";
import { drawChannels } from "./series.js";

/** @param {any} app */
export function overviewScreen(app) {
  const { store, client, config } = app;
  const status = h("p", { class: "quiet", role: "status" });
  const bar = h("progress", { max: 1, "aria-label": T.progress });
  const halt = button(T.stop, () => stop.abort());
  const progress = h("div", { class: "progress", hidden: true }, bar, halt);
  const explain = button("", () => load(true), { class: "primary" });
  const body = h("div", { class: "sections" });
  const el = h(
    "div",
    { class: "body stack" },
    h("div", { class: "pager" }, h("h2", {}, T.overview), status, explain),
    progress,
    body,
  );
  let stop = new AbortController();
  let turnOf = 0;
  let attributed = false;
  const off = store.on(EXPLAIN, (_state, changed) =>
    changed.includes("model") || attributed ? load(attributed) : label(),
  );
  label();
  load(false);
  return { el, cards: [], turn: () => {}, reload: () => load(attributed), dispose };

  function label() {
    replace(explain, T.explainAll(methodTitle(config, store.get().method)));
  }

  /** @param {boolean} withMethod */
  async function load(withMethod) {
    stop.abort();
    stop = new AbortController();
    const { signal } = stop;
    turnOf += 1;
    const mine = turnOf;
    attributed = withMethod;
    label();
    const { method, args, baseline, target } = store.get();
    progress.hidden = false;
    bar.removeAttribute("value");
    if (!body.children.length)
      replace(body, h("div", { class: "section" }, h("div", { class: "skeleton" })));
    try {
      const answer = await client.request(
        "overview",
        {
          model: modelOf(store, config),
          method: withMethod ? method : null,
          args: withMethod ? args : {},
          baseline,
          target,
          slot: "overview",
          priority: "click",
        },
        {
          signal,
          progress: (/** @type {any} */ report) => (bar.value = report.done / (report.total || 1)),
          partial: (/** @type {any} */ part) => mine === turnOf && show(part),
        },
      );
      if (mine === turnOf) show(answer);
    } catch (problem) {
      if (mine !== turnOf) return;
      if (problem.kind === "cancelled") status.textContent = `${status.textContent} ${T.stopped}`;
      else
        replace(
          body,
          failureBox(problem, () => load(withMethod)),
        );
    }
    if (mine === turnOf) progress.hidden = true;
  }

  /** @param {any} answer */
  function show(answer) {
    const explained = answer.attributed ? ` · ${T.explained(answer.attributed)}` : "";
    status.textContent = T.computed(answer.computed, answer.total) + explained;
    replace(
      body,
      answer.confusion
        ? confusion(answer, (patch) => store.set({ ...patch, screen: "browse", offset: 0 }))
        : null,
      answer.per_class?.length ? perClass(answer) : null,
      answer.confidence
        ? section(
            T.confidence,
            histogram(
              answer.confidence.counts,
              answer.confidence.edges,
              { label: T.confidenceLabel },
              answer.confidence.correct,
            ),
            T.confidenceHint,
          )
        : null,
      answer.values ? numbers(answer.values, T.predictedValues) : null,
      answer.errors ? numbers(answer.errors, T.residuals) : null,
      answer.attributed && answer.shares.length > 1
        ? section(
            T.meanShares,
            bars(
              answer.shares.map((/** @type {any} */ s) => ({
                label: s.feature,
                value: numeric(s.mean),
                detail: T.absolute(percent(numeric(s.absolute))),
                text: percent(numeric(s.mean)),
              })),
              { limit: 1, label: T.meanShares },
            ),
          )
        : null,
      answer.attributed
        ? Object.entries(answer.features).map(([key, value]) =>
            featureSummary(config, store, key, value),
          )
        : null,
      answer.notices?.map((/** @type {any} */ notice) =>
        h("p", { class: "notice" }, notice.message),
      ),
    );
    if (!body.children.length && answer.done)
      replace(body, h("p", { class: "empty" }, T.noOverview));
  }

  function dispose() {
    turnOf += 1;
    stop.abort();
    off();
  }
}

/** @param {string} title @param {any} content @param {any} [hint] */
function section(title, content, hint) {
  return h(
    "section",
    { class: "section", "aria-label": title },
    h("h3", {}, title),
    content,
    hint ? h("p", { class: "quiet" }, hint) : null,
  );
}

/** How often numbers occur. @param {{counts: number[], edges: any[]}} found @param {string} label */
function numbers({ counts, edges }, label) {
  return section(label, histogram(counts, edges.map(numeric), { label }));
}

/**
 * Counts as buttons: a cell shows its samples.
 * @param {any} answer
 * @param {(patch: any) => void} filter
 */
function confusion({ confusion: { classes, names, matrix, left_out: leftOut }, model }, filter) {
  const most = Math.max(1, ...matrix.flat());
  const map = colormap("attrib", true);
  const cell = (/** @type {number} */ count, /** @type {number} */ i, /** @type {number} */ j) => {
    const color = map((count / most) * 0.9);
    return h(
      "td",
      {},
      button(
        String(count),
        () => filter({ label: [classes[i]], classes: [classes[j]], prediction: "all" }),
        {
          disabled: count === 0,
          "aria-label": T.confusionCell(count, names[i], names[j]),
          style: {
            "background-color": css(color),
            color: ink(color),
            outline: i === j ? "1px solid var(--edge)" : "none",
          },
        },
      ),
    );
  };
  const table = h(
    "table",
    { class: "confusion" },
    h("caption", { class: "unseen" }, `${T.confusion} ${model}`),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("td", { class: "quiet" }, T.labelDown),
        names.map((/** @type {string} */ text) => h("th", { scope: "col" }, name(text))),
      ),
    ),
    h(
      "tbody",
      {},
      matrix.map((/** @type {number[]} */ counts, /** @type {number} */ i) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, name(names[i])),
          counts.map((count, j) => cell(count, i, j)),
        ),
      ),
    ),
  );
  return section(
    T.confusion,
    h("div", { class: "scroll", tabIndex: 0, role: "group", "aria-label": T.confusion }, table),
    [T.confusionHint, leftOut ? ` ${T.leftOut(leftOut)}` : ""],
  );
}

/** @param {any} answer */
function perClass({ per_class: classes, accuracy }) {
  const items = classes.slice(0, 40).map((/** @type {any} */ one) => {
    const share = one.count ? one.correct / one.count : 0;
    return {
      label: one.name,
      detail: `${one.correct} / ${one.count}`,
      value: share,
      text: percent(share),
    };
  });
  const title = accuracy === null ? T.perClass : T.accuracy(percent(numeric(accuracy)));
  return section(title, bars(items, { limit: 1, sign: "absolute", label: T.perClass }));
}

/** @param {any} config @param {any} store @param {string} key @param {any} summary */
function featureSummary(config, store, key, summary) {
  const feature = config.features.find((/** @type {any} */ item) => item.name === key);
  const title = T.meanOf(key);
  if (summary.kind === "tabular") return tableSummary(feature, summary, title);
  if (summary.kind === "text") {
    const items = summary.tokens.slice(0, 20).map((/** @type {any} */ t) => ({
      label: t.token,
      detail: `× ${t.count}`,
      value: numeric(t.mean),
    }));
    return section(
      T.tokensTitle(key),
      bars(items, {
        limit: Math.max(...items.map((/** @type {any} */ i) => Math.abs(i.value)), 0),
        label: title,
      }),
      T.tokensHint,
    );
  }
  const canvas = h("canvas", { role: "img", "aria-label": title });
  const values = summary.mean_absolute;
  const limit = values.data.reduce(
    (/** @type {number} */ a, /** @type {number} */ b) => Math.max(a, b),
    0,
  );
  const look = { ...store.get(), mode: "heatmap", sign: "absolute" };
  if (summary.kind === "image") {
    paint(
      canvas,
      { data: new Uint8Array(values.data.length), shape: [...values.shape, 1] },
      { values },
      limit,
      look,
    );
    return section(title, h("div", { class: "image" }, canvas), T.upTo(number(limit)));
  }
  const channels = values.shape[0];
  new ResizeObserver(() =>
    drawChannels(canvas, [...Array(channels).keys()], {
      input: { series: values },
      attr: { values },
      limit,
      look,
      range: [0, values.shape[1]],
    }),
  ).observe(canvas);
  return section(title, h("div", { class: "series" }, canvas), T.upTo(number(limit)));
}

/** @param {any} feature @param {any} summary @param {string} title */
function tableSummary({ columns }, summary, title) {
  const order = columns
    .map((/** @type {any} */ _, /** @type {number} */ i) => i)
    .sort(
      (/** @type {number} */ a, /** @type {number} */ b) =>
        numeric(summary.mean_absolute[b]) - numeric(summary.mean_absolute[a]),
    )
    .slice(0, 12);
  const items = order.map((/** @type {number} */ i) => ({
    label: columns[i].name,
    value: numeric(summary.mean_absolute[i]),
  }));
  const { values, attributions } = summary.swarm;
  const [count, width] = values.shape;
  const map = colormap("attrib");
  const rows = order.map((/** @type {number} */ i) => {
    const column = (/** @type {any} */ data) =>
      Array.from({ length: count }, (_, k) => data.data[k * width + i]);
    const inputs = column(values);
    const [low, high] = [Math.min(...inputs), Math.max(...inputs)];
    return {
      name: columns[i].name,
      x: column(attributions),
      tint: inputs.map((v) => css(map(high > low ? (2 * (v - low)) / (high - low) - 1 : 0))),
    };
  });
  return [
    section(title, bars(items, { limit: items[0]?.value ?? 0, sign: "absolute", label: title })),
    section(T.swarm, swarm(rows, { label: T.swarmLabel }), T.swarmHint),
  ];
}
