/** What a colour is worth: symmetric scales, signs, and what is not a number. */

/** @typedef {"all" | "positive" | "negative" | "absolute"} Sign */

/**
 * A value as its part of the scale in [-1, 1], after the choice of a sign; NaN stays NaN.
 * @param {number} value
 * @param {number} limit
 * @param {Sign} sign
 */
export function part(value, limit, sign) {
  if (!Number.isFinite(value)) return Number.NaN;
  const shown = signed(value, sign);
  if (limit === 0) return 0;
  return Math.min(1, Math.max(-1, shown / limit));
}

/** @param {number} value @param {Sign} sign */
export function signed(value, sign) {
  if (sign === "absolute") return Math.abs(value);
  if (sign === "positive") return Math.max(0, value);
  if (sign === "negative") return Math.min(0, value);
  return value;
}

/**
 * How many of the entries are larger than what full colour means; of a scale that was not made for
 * them it is counted here.
 * @param {any} attr
 * @param {number} limit
 * @param {boolean} shared
 */
export function clippedShare(attr, limit, shared) {
  const values = attr.values?.data;
  if (!shared || !values) return shared ? 0 : Number(attr.clipped ?? 0);
  const finite = Array.from(values).filter(Number.isFinite);
  // A scale that is told in fewer bits is not exceeded by its own largest entry.
  return finite.filter((v) => Math.abs(v) > limit * (1 + 1e-4)).length / (finite.length || 1);
}

/**
 * Spearman's rank correlation, ties at their mean rank; NaN where one side is constant.
 * @param {ArrayLike<number>} a
 * @param {ArrayLike<number>} b
 */
export function rankCorrelation(a, b) {
  return correlation(ranks(a), ranks(b));
}

/** @param {ArrayLike<number>} values */
function ranks(values) {
  const order = Array.from({ length: values.length }, (_, i) => i).sort(
    (i, j) => values[i] - values[j],
  );
  const result = new Float64Array(values.length);
  for (let start = 0; start < order.length;) {
    let end = start;
    while (end + 1 < order.length && values[order[end + 1]] === values[order[start]]) end += 1;
    for (let i = start; i <= end; i++) result[order[i]] = (start + end) / 2;
    start = end + 1;
  }
  return result;
}

/** @param {Float64Array} a @param {Float64Array} b */
function correlation(a, b) {
  const n = a.length;
  const meanA = a.reduce((s, v) => s + v, 0) / n;
  const meanB = b.reduce((s, v) => s + v, 0) / n;
  let ab = 0;
  let aa = 0;
  let bb = 0;
  for (let i = 0; i < n; i++) {
    ab += (a[i] - meanA) * (b[i] - meanB);
    aa += (a[i] - meanA) ** 2;
    bb += (b[i] - meanB) ** 2;
  }
  return aa === 0 || bb === 0 ? Number.NaN : ab / Math.sqrt(aa * bb);
}
