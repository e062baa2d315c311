/** Numbers as words: a real minus sign, few digits, no surprise at NaN and infinity. */

/**
 * A number with three significant digits.
 * @param {number | null | undefined} value
 * @param {{sign?: boolean, digits?: number}} [options] `sign` writes the plus too
 */
export function number(value, { sign = false, digits = 3 } = {}) {
  if (value === null || value === undefined || Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? (sign ? "+∞" : "∞") : "−∞";
  const size = Math.abs(value);
  let text;
  if (size === 0) text = "0";
  else if (size >= 1e5 || size < 1e-3) text = scientific(size, digits);
  else if (size >= 1000) text = String(Math.round(size));
  else text = String(Number(size.toPrecision(digits)));
  if (value < 0) return `−${text}`;
  return sign && value > 0 ? `+${text}` : text;
}

/**
 * A signed number and, of an estimate, its standard error.
 * @param {number | null | undefined} value
 * @param {number} [error]
 */
export function measured(value, error) {
  return `${number(value, { sign: true })}${error === undefined ? "" : ` ± ${number(error)}`}`;
}

/** @param {number} value a share of one */
export function percent(value) {
  if (!Number.isFinite(value)) return "–";
  const hundred = value * 100;
  if (Math.abs(hundred) < 0.05) return "0 %";
  const digits = Math.abs(hundred) < 10 && hundred !== 0 ? 1 : 0;
  return `${hundred < 0 ? "−" : ""}${Math.abs(hundred).toFixed(digits)} %`;
}

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** @param {number} bytes */
export function bytes(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${Math.round(bytes / 1000)} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/**
 * What a typed number means, or null: a decimal comma and the minus sign we print are understood.
 * @param {string} text
 */
export function parse(text) {
  const plain = text.trim().replaceAll("−", "-").replace(",", ".");
  if (plain === "" || !/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain)) return null;
  return Number(plain);
}

/** A number with all its digits, as `parse` takes it; a word stays what it is. @param {any} value */
export function exact(value) {
  return typeof value === "number" ? String(value).replaceAll("-", "−") : String(value);
}

/** @param {number} size @param {number} digits */
function scientific(size, digits) {
  const [mantissa, exponent] = size.toExponential(digits - 1).split("e");
  return `${Number(mantissa)}e${exponent.replace("+", "").replace("-", "−")}`;
}
