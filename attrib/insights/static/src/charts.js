/** Small charts as SVG: curves and histograms, with their numbers in words. */

import { h, svg } from "./dom.js";
import { number } from "./numbers.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM] = [440, 200, 52, 24, 26];
const LETTER = 7.5; // how wide a figure is, about

/** @type {Array<[number, string]>} */
const PERCENT = [0, 0.5, 1].map((v) => [v, `${v * 100} %`]);

/**
 * Lines over a shared axis.
 * @param {Array<{label: string, x: number[], y: number[], dash?: string, color: string}>} lines
 * @param {{label: string}} words
 * @param {Array<[number, string]>} [ticks] what is said at some places of the axis, from 0 to 1
 */
export function lineChart(lines, words, ticks = PERCENT) {
  const all = lines.flatMap((line) => line.y).filter(Number.isFinite);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const ends = [low, high].map((v) => number(v));
  const left = Math.max(LEFT, 10 + LETTER * Math.max(...ends.map((words) => words.length)));
  const px = (/** @type {number} */ v) => left + v * (WIDTH - left - RIGHT);
  const py = (/** @type {number} */ v) =>
    8 + (1 - (v - low) / (high - low || 1)) * (HEIGHT - BOTTOM - 12);
  return h(
    "figure",
    {},
    frame(words, [
      ...[low, high].map((v, i) => text(left - 6, py(v) + 4, ends[i], "end")),
      ...ticks.map(([v, label]) => text(px(v), HEIGHT - 8, label, "middle")),
      svg("path", {
        d: `M${left} 8V${HEIGHT - BOTTOM}H${WIDTH - RIGHT}`,
        fill: "none",
        stroke: "currentColor",
        "stroke-opacity": 0.4,
      }),
      ...lines.map((line) =>
        svg("polyline", {
          points: line.x.map((v, i) => `${px(v)},${py(line.y[i])}`).join(" "),
          fill: "none",
          stroke: line.color,
          "stroke-width": 2.2,
          "stroke-dasharray": line.dash ?? "",
        }),
      ),
    ]),
    h(
      "figcaption",
      { class: "tools quiet" },
      lines.map((line) =>
        h(
          "span",
          {},
          h("b", { style: { color: line.color } }, line.dash ? "╌╌ " : "── "),
          line.label,
        ),
      ),
    ),
  );
}

/**
 * Bars over intervals; the darker part of each is the part that `inner` counts.
 * @param {number[]} counts
 * @param {number[]} edges
 * @param {{label: string}} words
 * @param {number[]} [inner]
 */
export function histogram(counts, edges, words, inner) {
  const most = Math.max(1, ...counts);
  const step = (WIDTH - LEFT - RIGHT) / counts.length;
  const tall = (/** @type {number} */ v) => (v / most) * (HEIGHT - BOTTOM - 14);
  const bar = (/** @type {number} */ v, /** @type {number} */ i, /** @type {number} */ opacity) =>
    svg("rect", {
      x: LEFT + i * step + 1,
      y: HEIGHT - BOTTOM - tall(v),
      width: step - 2,
      height: tall(v),
      fill: "var(--accent)",
      "fill-opacity": opacity,
    });
  return frame(words, [
    ...counts.map((v, i) => bar(v, i, inner ? 0.35 : 0.8)),
    ...(inner ?? []).map((v, i) => bar(v, i, 1)),
    ...counts.map((v, i) =>
      v ? text(LEFT + (i + 0.5) * step, HEIGHT - BOTTOM - tall(v) - 3, String(v), "middle") : null,
    ),
    svg("path", {
      d: `M${LEFT} ${HEIGHT - BOTTOM}H${WIDTH - RIGHT}`,
      stroke: "currentColor",
      "stroke-opacity": 0.4,
    }),
    ...[0, Math.floor(counts.length / 2), counts.length].map((i) =>
      text(LEFT + i * step, HEIGHT - 8, number(edges[i]), "middle"),
    ),
  ]);
}

/**
 * One row of dots per feature: where an attribution lies, the colour says how large the input was.
 * @param {Array<{name: string, x: number[], tint: string[]}>} rows
 * @param {{label: string}} words
 */
export function swarm(rows, words) {
  const limit = Math.max(
    ...rows.flatMap((row) => row.x.filter(Number.isFinite).map(Math.abs)),
    1e-30,
  );
  const [left, row] = [120, 26];
  const tall = rows.length * row + 24;
  const px = (/** @type {number} */ v) =>
    left + ((v / limit + 1) / 2) * (WIDTH + 60 - left - 14) + 4;
  return svg(
    "svg",
    {
      viewBox: `0 0 ${WIDTH + 60} ${tall}`,
      role: "img",
      "aria-label": words.label,
      class: "chart",
      width: "100%",
    },
    svg("line", {
      x1: px(0),
      x2: px(0),
      y1: 0,
      y2: tall - 20,
      stroke: "currentColor",
      "stroke-opacity": 0.5,
    }),
    rows.map(({ name, x, tint }, k) => [
      text(left - 8, k * row + 17, name.length > 17 ? `${name.slice(0, 16)}…` : name, "end"),
      x.map((v, i) =>
        Number.isFinite(v)
          ? svg("circle", {
              cx: px(v),
              cy: k * row + 13 + 7 * spread(i),
              r: 2.6,
              fill: tint[i],
              stroke: "#16191d",
              "stroke-width": 0.3,
            })
          : null,
      ),
    ]),
    [-limit, 0, limit].map((v, i) =>
      text(px(v), tall - 4, number(v, { sign: true, digits: 2 }), ["start", "middle", "end"][i]),
    ),
  );
}

/** Evenly over [-1, 1], in no visible order. @param {number} i */
function spread(i) {
  return 2 * ((i * 0.61803398875) % 1) - 1;
}

/** @param {{label: string}} words @param {any[]} children */
function frame({ label }, children) {
  return svg(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      role: "img",
      "aria-label": label,
      class: "chart",
      width: "100%",
    },
    children,
  );
}

/** @param {number} x @param {number} y @param {string} words @param {string} anchor */
function text(x, y, words, anchor) {
  return svg("text", { x, y, "text-anchor": anchor, "font-size": 12, fill: "currentColor" }, words);
}
