/** Requests: one answer each, progress on the way, a few at a time, the newest click first. */

import { decode } from "./frames.js";
import { T } from "./strings.js";

const JOBS = new Set(["attribute", "overview", "curves", "convergence", "export"]);
// Browsers open six connections to a server; two stay free for what is not a job.
const OPEN_JOBS = 4;

/** Why there is no answer. */
class Failure extends Error {
  /**
   * @param {{kind: string, message: string, field?: string | null, hint?: string | null,
   *   details?: string | null}} report
   */
  constructor({ kind, message, field = null, hint = null, details = null }) {
    super(message);
    Object.assign(this, { kind, field, hint, details });
    /** @type {string} */ this.kind = kind;
    /** @type {string | null} */ this.field = field;
  }
}

/**
 * @param {any} host
 * @param {{changed?: (pending: number) => void, lost?: (failure: Failure) => void,
 *   found?: () => void}} [watch]
 */
export function createClient(host, { changed, lost, found } = {}) {
  const client = randomName();
  /** @type {Array<{start: () => void, urgent: boolean}>} */
  const waiting = [];
  let serial = 0;
  let open = 0;
  let pending = 0;

  /**
   * @param {string} type
   * @param {Record<string, any>} [body]
   * @param {{signal?: AbortSignal, progress?: (p: any) => void, partial?: (p: any) => void}} [options]
   */
  async function request(type, body = {}, { signal, progress, partial } = {}) {
    serial += 1;
    const message = { v: 1, id: `${client}-${serial}`, client, type, ...body };
    if (!JOBS.has(type)) return exchange(message, { signal, progress, partial });
    count(1);
    try {
      await turn(body.priority === "click", signal);
      try {
        return await exchange(message, { signal, progress, partial });
      } finally {
        open -= 1;
        next();
      }
    } finally {
      count(-1);
    }
  }

  /** @param {any} message @param {any} options */
  async function exchange(message, { signal, progress, partial }) {
    try {
      for await (const { header, buffers } of host.send(message, signal)) {
        if (signal?.aborted) throw cancelled();
        found?.();
        if (header.type === "progress") progress?.(header);
        else if (header.type === "partial") partial?.(decode(header, buffers));
        else if (header.type === "cancelled") throw cancelled();
        else if (header.type === "error") throw new Failure(header);
        else return decode(header, buffers);
      }
      throw new Failure({ kind: "connection", message: T.connectionLost });
    } catch (error) {
      throw known(error, signal);
    }
  }

  /** @param {any} error @param {AbortSignal | undefined} signal */
  function known(error, signal) {
    if (signal?.aborted || error?.name === "AbortError") return cancelled();
    const failure =
      error instanceof Failure
        ? error
        : new Failure({
            kind: error?.kind ?? "connection",
            message: error?.message ?? String(error),
          });
    if (failure.kind === "connection" || failure.kind === "auth") lost?.(failure);
    return failure;
  }

  /** @param {boolean} urgent @param {AbortSignal | undefined} signal */
  function turn(urgent, signal) {
    return new Promise((resolve, reject) => {
      const entry = { urgent, start: () => resolve(undefined) };
      signal?.addEventListener("abort", () => {
        const at = waiting.indexOf(entry);
        if (at < 0) return;
        waiting.splice(at, 1);
        reject(cancelled());
      });
      waiting.push(entry);
      next();
    });
  }

  function next() {
    if (open >= OPEN_JOBS || waiting.length === 0) return;
    const newest = waiting.findLastIndex((entry) => entry.urgent);
    const [entry] = waiting.splice(Math.max(0, newest), 1);
    open += 1;
    entry.start();
  }

  /** @param {number} step */
  function count(step) {
    pending += step;
    changed?.(pending);
  }

  return { request, host };
}

function cancelled() {
  return new Failure({ kind: "cancelled", message: T.cancelled });
}

function randomName() {
  const words = crypto.getRandomValues(new Uint32Array(3));
  return Array.from(words, (word) => word.toString(36)).join("");
}
