/** Messages as they travel: frames of a stream, and arrays among the buffers. */

/** @typedef {{data: Float32Array | Uint8Array | Int32Array, shape: number[]}} Tensor */
/** @typedef {{header: any, buffers: Array<ArrayBuffer | DataView>}} Message */

/**
 * The frames of a stream: `u32 length of the header | header | buffers`, all padded to four bytes.
 * @param {ReadableStream<Uint8Array>} stream
 * @returns {AsyncGenerator<Message>}
 */
export async function* readFrames(stream) {
  const take = taker(stream.getReader());
  for (let head = await take(4); head; head = await take(4)) {
    const text = await whole(take, new DataView(head.buffer).getUint32(0, true));
    const header = JSON.parse(new TextDecoder().decode(text));
    const buffers = [];
    for (const length of header.buffers ?? []) {
      const padded = await whole(take, length + ((4 - (length % 4)) % 4));
      buffers.push(/** @type {ArrayBuffer} */ (padded.buffer.slice(0, length)));
    }
    yield { header, buffers };
  }
}

/**
 * A header with every reference to a buffer exchanged for its array.
 * @param {any} node
 * @param {Array<ArrayBuffer | DataView>} buffers
 * @returns {any}
 */
export function decode(node, buffers) {
  if (Array.isArray(node)) return node.map((item) => decode(item, buffers));
  if (node === null || typeof node !== "object" || ArrayBuffer.isView(node)) return node;
  if (typeof node.buffer === "number" && typeof node.dtype === "string")
    return tensor(node, buffers);
  return Object.fromEntries(
    Object.entries(node).map(([key, value]) => [key, decode(value, buffers)]),
  );
}

/**
 * A number of a header: those that JSON does not know arrive as words.
 * @param {any} value
 * @returns {number}
 */
export function numeric(value) {
  return value === null || value === undefined ? Number.NaN : Number(value);
}

/** @param {any} reference @param {Array<ArrayBuffer | DataView>} buffers @returns {Tensor} */
function tensor(reference, buffers) {
  const raw = buffers[reference.buffer];
  const bytes = ArrayBuffer.isView(raw)
    ? raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.byteLength)
    : raw;
  const { dtype, shape } = reference;
  if (dtype === "uint8") return { data: new Uint8Array(bytes), shape };
  if (dtype === "int32") return { data: new Int32Array(bytes), shape };
  if (dtype === "float32") return { data: new Float32Array(bytes), shape };
  return {
    data: Float32Array.from(new Int16Array(bytes), (q) => dequantised(q, reference.scale)),
    shape,
  };
}

/** @param {number} q @param {number} scale */
function dequantised(q, scale) {
  if (q === -32768) return Number.NaN;
  if (q === 32767) return Infinity;
  if (q === -32767) return -Infinity;
  return q * scale;
}

/** @param {(n: number) => Promise<Uint8Array | null>} take @param {number} n */
async function whole(take, n) {
  const bytes = await take(n);
  if (!bytes) throw new Error("the stream ended within a frame");
  return bytes;
}

/**
 * Reads exactly n bytes, or null where the stream ends before the first of them.
 * @param {ReadableStreamDefaultReader<Uint8Array>} reader
 */
function taker(reader) {
  /** @type {Uint8Array} */
  let rest = new Uint8Array(0);
  return async (/** @type {number} */ n) => {
    const parts = [rest];
    let length = rest.length;
    while (length < n) {
      const { done, value } = await reader.read();
      if (done) {
        if (length > 0) throw new Error("the stream ended within a frame");
        return null;
      }
      parts.push(value);
      length += value.length;
    }
    const all = parts.length === 1 ? rest : joined(parts, length);
    rest = all.subarray(n);
    return all.slice(0, n);
  };
}

/** @param {Uint8Array[]} parts @param {number} length */
function joined(parts, length) {
  const all = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
