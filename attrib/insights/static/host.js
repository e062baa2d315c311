/** The page: messages go to the server by HTTP, answers come back as a stream of frames. */

import { fragment, mount, readFrames, toFragment } from "./app.js";

mount(document.getElementById("attrib"), createHost());

/** A host for the page at its own address. */
export function createHost() {
  const token = keptToken();
  return {
    kind: "page",
    /** @param {any} message @param {AbortSignal} [signal] */
    async *send(message, signal) {
      const reply = await fetch("api/message", {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-Attrib-Token": token },
        body: JSON.stringify(message),
        signal,
      }).catch((error) => {
        throw signal?.aborted ? error : failure("connection", "The server cannot be reached.");
      });
      if (!reply.ok) {
        const { error } = await reply.json().catch(() => ({ error: null }));
        throw failure(
          error?.kind ?? "connection",
          error?.message ?? `The server said ${reply.status}.`,
        );
      }
      try {
        yield* readFrames(reply.body);
      } catch (error) {
        throw signal?.aborted ? error : failure("connection", "The connection broke off.");
      }
    },
    getState: () => fragment(location.hash),
    /** @param {any} state */
    setState: (state) => history.replaceState(null, "", `#${toFragment(state)}`),
    /** @param {(state: any) => void} listen */
    onState: (listen) =>
      addEventListener("hashchange", () => {
        keptToken();
        listen(fragment(location.hash));
      }),
    link: () => location.href,
  };
}

/** The token of the link is taken out of the address at once: it must not be copied with it. */
function keptToken() {
  const keys = new URLSearchParams(location.hash.slice(1));
  const given = keys.get("token");
  if (given !== null) {
    sessionStorage.setItem("attrib-token", given);
    keys.delete("token");
    history.replaceState(null, "", `${location.pathname}${location.search}#${keys}`);
  }
  return sessionStorage.getItem("attrib-token") ?? "";
}

/** @param {string} kind @param {string} message */
function failure(kind, message) {
  return Object.assign(new Error(message), { kind });
}
