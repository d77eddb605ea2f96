/** Latency as a distribution: for each row how often a call took how long, all on one logarithmic axis. */

import {duration, e, svg} from "./dom.js";
import {quantile} from "./timing.js";

const POINTS = 120;
/* The slowest hundredth would press all others together. */
const TAIL = 0.99;
/* Half of the least width of a curve, in percent of the axis: a narrower one cannot be seen. */
const NARROWEST = 0.4;
/* Labels of the axis: fewer than fit on a phone. */
const LABELS = 4;

/** @param {Array<{artifact, label, latency}>} rows those that were timed */
export function chart(rows) {
  const ends = rows.flatMap(({latency}) => [quantile(latency.ms, 0), quantile(latency.ms, TAIL), latency.p90 ?? latency.p50]);
  const low = Math.min(...ends) / 1.15, high = Math.max(...ends) * 1.15;
  const at = (ms) => (100 * Math.log(ms / low)) / Math.log(high / low);
  const marks = ticks(low, high);
  const ruler = svg("svg", {class: "axis", "aria-hidden": "true"},
    marks.map((ms) => svg("text", {x: `${at(ms)}%`, y: "75%"}, duration(ms))));
  return e("div", {class: "lanes"},
    e("div", {class: "lane ruler"}, e("div"), e("div", {class: "track"}, ruler)),
    rows.map((row) => lane(row, at, marks)));
}

function lane({artifact, label, latency, group}, at, marks) {
  const figures = [["p50", latency.p50], ["p90", latency.p90]].filter(([, ms]) => ms !== null).map(([name, ms]) => `${name} ${duration(ms)}`).join(", ");
  const line = (ms, top, kind) => svg("line", {x1: `${at(ms)}%`, x2: `${at(ms)}%`, y1: `${top}%`, y2: "100%", class: kind});
  const drawing = svg("svg", {class: "ridge", role: "img", "aria-label": `${artifact.name} on ${label}: ${figures}`},
    marks.map((ms) => line(ms, 0, "grid")),
    svg("svg", {viewBox: "0 0 100 100", preserveAspectRatio: "none", width: "100%", height: "100%"},
      svg("path", {d: curve(latency.ms.filter((ms) => ms <= quantile(latency.ms, TAIL)).map(at)), class: "area"})),
    latency.p90 === null ? null : line(latency.p90, 34, "p90"), line(latency.p50, 0, "p50"));
  return e("div", {class: "lane"},
    e("div", {class: "label"}, e("b", {}, label), e("small", {}, artifact.name),
      e("small", {}, `${figures}, ${latency.calls.toLocaleString("en")} calls${group > 1 ? `, ${group} at a time` : ""}`)),
    e("div", {class: "track"}, drawing));
}

/** A bell for each number, half as wide as Silverman's rule has it (Density Estimation, 1986, eq. 3.31). */
function curve(places) {
  const mean = places.reduce((a, b) => a + b, 0) / places.length;
  const deviation = Math.sqrt(places.reduce((sum, one) => sum + (one - mean) ** 2, 0) / places.length);
  const quarters = (quantile(places, 0.75) - quantile(places, 0.25)) / 1.34;
  const width = Math.max(NARROWEST, 0.45 * Math.min(deviation, quarters || deviation) * places.length ** -0.2);
  const from = Math.max(0, Math.min(...places) - 3 * width), to = Math.min(100, Math.max(...places) + 3 * width);
  const xs = Array.from({length: POINTS}, (_, i) => from + ((to - from) * i) / (POINTS - 1));
  const ys = xs.map((x) => places.reduce((sum, one) => sum + Math.exp(-0.5 * ((x - one) / width) ** 2), 0));
  const top = Math.max(...ys);
  const points = xs.map((x, i) => `${x.toFixed(2)} ${(100 - (92 * ys[i]) / top).toFixed(2)}`);
  return `M${xs[0].toFixed(2)} 100L${points.join("L")}L${xs.at(-1).toFixed(2)} 100Z`;
}

/** Round numbers between two: 1, 2 and 5 of each power of ten, or fewer of them. */
function ticks(low, high) {
  const all = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const digit of [1, 2, 5]) all.push(digit * 10 ** power);
  const within = all.filter((ms) => ms > low * 1.05 && ms < high / 1.05);
  if (!within.length) return [Math.sqrt(low * high)];
  const every = Math.ceil(within.length / LABELS);
  return within.filter((_, i) => i % every === 0);
}
