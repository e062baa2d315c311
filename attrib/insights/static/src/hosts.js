/**
 * Where the app runs. A host sends a message and yields what comes back; the page's own host, which
 * speaks HTTP, is host.js. All have `kind`, and may keep the state of the app.
 */

import { decode, numeric } from "./frames.js";
import { classOf } from "./store.js";
import { T } from "./strings.js";

const GONE = Symbol("no answer will come");

/**
 * A notebook: messages go through the widget's comm.
 * @param {any} model of anywidget
 * @param {AbortSignal} [signal] of the widget's end
 */
export function widgetHost(model, signal) {
  /** @type {Map<string, (message: any) => void>} */
  const open = new Map();
  const hear = (/** @type {any} */ header, /** @type {any[]} */ buffers) => {
    doubtful = false;
    open.get(header.id)?.({ header, buffers: buffers ?? [] });
  };
  model.on("msg:custom", hear);
  let last = { v: 1, client: "" };
  // When the way to the kernel has changed, what waits ends, and who asks again waits not for ever.
  let doubtful = false;
  const doubt = () => {
    doubtful = true;
    for (const put of open.values()) put(GONE);
  };
  model.on("comm_live_update", doubt);
  signal?.addEventListener("abort", () => {
    model.send({ ...last, id: "end", type: "cancel", job: null });
    model.off?.("msg:custom", hear);
    model.off?.("comm_live_update", doubt);
  });

  return {
    kind: "widget",
    /** @param {any} message @param {AbortSignal} [stop] */
    async *send(message, stop) {
      last = { v: message.v, client: message.client };
      const { put, take } = mailbox();
      const cancel = () => {
        model.send({ ...last, id: `${message.id}-stop`, type: "cancel", job: message.id });
        put({ header: { type: "cancelled", id: message.id }, buffers: [] });
      };
      stop?.addEventListener("abort", cancel);
      open.set(message.id, put);
      const limit = doubtful ? setTimeout(() => doubtful && put(GONE), 5000) : undefined;
      try {
        model.send(message);
        for (;;) {
          const letter = await take();
          if (letter === GONE) throw Object.assign(new Error(T.kernelGone), { kind: "connection" });
          yield letter;
        }
      } finally {
        clearTimeout(limit);
        open.delete(message.id);
        stop?.removeEventListener("abort", cancel);
      }
    },
    getState: () => model.get("state") ?? {},
    /** @param {any} state */
    setState(state) {
      model.set("state", state);
      model.save_changes();
    },
    /** @param {(state: any) => void} listen */
    onState: (listen) => model.on("change:state", () => listen(model.get("state") ?? {})),
    /** @param {any} selection */
    setSelection(selection) {
      model.set("selection", selection);
      model.save_changes();
    },
  };
}

/**
 * A report: everything it can answer is in the file.
 * @param {{config: any, rows: any[], results: any[]}} data
 */
export function frozenHost(data) {
  const open = (/** @type {any} */ record) => decode(record.header, record.buffers.map(fromBase64));
  const rows = data.rows.map((record) => open(record).rows[0]);
  return {
    kind: "report",
    /** @param {any} message */
    async *send(message) {
      yield { header: { ...answer(message), id: message.id }, buffers: [] };
    },
    getState: () => fragment(location.hash),
    /** @param {any} state */
    setState: (state) => history.replaceState(null, "", `#${toFragment(state)}`),
    link: () => location.href,
  };

  /** @param {any} message */
  function answer(message) {
    if (message.type === "init") return frozenConfig(open(data.config), data.results);
    if (message.type === "query") return frozenQuery(rows, message);
    if (message.type === "cancel") return { type: "ok" };
    if (message.type === "attribute") {
      const row = rows.find((item) => item.sample === message.sample);
      const found = row && data.results.find(({ header }) => frozenMatch(header, message, row));
      if (found) return open(found);
    }
    return { type: "error", kind: "absent", message: T.notInReport };
  }
}

/** A fragment as flat state; values are JSON where they can be. @param {string} text */
export function fragment(text) {
  const state = {};
  for (const [key, value] of new URLSearchParams(text.replace(/^#/, ""))) {
    try {
      state[key] = JSON.parse(value);
    } catch {
      state[key] = value;
    }
  }
  return state;
}

/** @param {Record<string, any>} state */
export function toFragment(state) {
  const entries = Object.entries(state).map(([key, value]) => [
    key,
    typeof value === "string" && !looksLikeJson(value) ? value : JSON.stringify(value),
  ]);
  return new URLSearchParams(entries).toString();
}

/** @param {string} text */
function looksLikeJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** The study as far as it is in the file. @param {any} config @param {any[]} results */
function frozenConfig(config, results) {
  const kept = (/** @type {string} */ key) => (/** @type {any} */ item) =>
    results.some(({ header }) => header[key] === item.name);
  const first = results[0]?.header;
  return {
    ...config,
    auto: true,
    models: config.models.filter(kept("model")),
    methods: config.methods.filter(kept("method")),
    default: first
      ? { method: first.method, args: first.args, baseline: first.baseline }
      : config.default,
  };
}

/** @param {any} header @param {any} message @param {any} row */
function frozenMatch(header, message, row) {
  if (header.sample !== message.sample || header.method !== message.method) return false;
  if (message.model && header.model !== message.model) return false;
  const of = (/** @type {any} */ target) => classOf(target, row, header.model);
  const wanted = message.target ?? "pred";
  if (wanted.contrast)
    return header.target.a === of(wanted.contrast[0]) && header.target.b === of(wanted.contrast[1]);
  return header.target.b === null && (header.target.a === null || header.target.a === of(wanted));
}

/** @param {any[]} rows @param {any} query */
function frozenQuery(rows, query) {
  const {
    classes = [],
    label = [],
    prediction = "all",
    min_conf = 0,
    max_conf = 1,
    text = "",
  } = query;
  const { sort = "index", offset = 0, limit = 6, samples = null } = query;
  const of = (/** @type {any} */ row) =>
    row.predictions.find((/** @type {any} */ p) => p.model === query.model) ?? row.predictions[0];
  const sure = (/** @type {any} */ row) => numeric(of(row).top[0]?.score ?? 1);
  const disagree = (/** @type {any} */ row) =>
    new Set(row.predictions.map((/** @type {any} */ p) => p.top[0]?.class)).size > 1;
  const kinds = {
    all: () => true,
    correct: (/** @type {any} */ row) => of(row).correct === true,
    incorrect: (/** @type {any} */ row) => of(row).correct === false,
    disagree,
  };
  const matched = rows.filter(
    (row) =>
      (samples === null || samples.includes(row.sample)) &&
      (classes.length === 0 || classes.includes(of(row).top[0]?.class)) &&
      (label.length === 0 || label.includes(row.label?.class)) &&
      kinds[prediction](row) &&
      sure(row) >= min_conf &&
      sure(row) <= max_conf &&
      (text === "" || words(row).includes(typed(text))),
  );
  const keys = {
    index: (r) => r.sample,
    confidence: sure,
    loss: (r) => numeric(of(r).loss),
    mass: (r) => numeric(r.mass),
  };
  const key = keys[sort.replace("-", "")];
  const way = sort.startsWith("-") ? -1 : 1;
  matched.sort((a, b) => way * (key(a) - key(b)) || a.sample - b.sample);
  const count = (/** @type {(row: any) => boolean} */ test) => rows.filter(test).length;
  return {
    type: "samples",
    total: rows.length,
    matched: matched.length,
    offset,
    limit,
    notices: [],
    rows: matched.slice(offset, offset + limit),
    counts: {
      correct: count(kinds.correct),
      incorrect: count(kinds.incorrect),
      disagree: count(disagree),
      unlabelled: count((row) => row.label === null),
    },
  };
}

/** @param {any} row */
function words(row) {
  const features = Object.values(row.features);
  const parts = [
    row.name,
    row.label?.name,
    ...features.flatMap(
      (f) =>
        f.text ??
        (f.tokens
          ? [
              f.tokens
                .map((/** @type {string} */ t, /** @type {number} */ i) => f.before[i] + t)
                .join(""),
            ]
          : []),
    ),
  ];
  return typed(parts.join(" "));
}

/** A text as one would type it. @param {string} text */
function typed(text) {
  return text.toLowerCase().replaceAll("−", "-");
}

/** @param {string} text */
function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
}

function mailbox() {
  /** @type {any[]} */
  const letters = [];
  /** @type {((letter: any) => void) | null} */
  let reader = null;
  return {
    put(/** @type {any} */ letter) {
      if (reader) {
        const give = reader;
        reader = null;
        give(letter);
      } else letters.push(letter);
    },
    take: () =>
      new Promise((resolve) => (letters.length ? resolve(letters.shift()) : (reader = resolve))),
  };
}
