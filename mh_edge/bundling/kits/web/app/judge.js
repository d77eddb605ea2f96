/** Is an output right? |got - expected| <= allowed for each number; NaN and infinities stand in the same places. */

import {number} from "./arrays.js";

/**
 * The number that is nearest to what is allowed, or furthest beyond it.
 * @param {Object<string, {dtype: string, shape: number[], data: ArrayLike, allowed: number}>} expected
 * @param {Object<string, {dtype: string, shape: number[], data: ArrayLike}>} got
 * @returns {{right: boolean, share: number, error: number, allowed: number, where: string, why: string}}
 */
export function judge(expected, got) {
  const names = Object.keys(expected), extra = Object.keys(got).filter((name) => !names.includes(name));
  if (extra.length) return wrong(`the output ${extra[0]} is not among those expected`);
  let worst = {right: true, share: -1, error: 0, allowed: 0, where: "", why: ""};
  for (const name of names) {
    if (!got[name]) return wrong(`the output ${name} is missing`);
    const kinds = [expected[name], got[name]].map((one) => `${one.dtype} (${one.shape.join(", ")})`);
    if (kinds[0] !== kinds[1]) return wrong(`the output ${name} is ${kinds[1]}, expected ${kinds[0]}`);
    const found = furthest(name, expected[name], got[name]);
    if (found.share > worst.share) worst = found;
  }
  return worst;
}

const wrong = (why) => ({right: false, share: Infinity, error: NaN, allowed: NaN, where: "", why});

function furthest(name, expected, got) {
  const {dtype, shape, allowed} = expected;
  let at = 0, error = 0;
  for (let i = 0; i < expected.data.length && error < Infinity; i++) {
    const off = distance(dtype, expected.data[i], got.data[i]);
    if (off > error) [at, error] = [i, off];
  }
  const share = error ? (allowed ? error / allowed : Infinity) : 0;
  const [is, should] = [got, expected].map((one) => number(dtype, one.data[at] ?? 0).toPrecision(6));
  return {right: share <= 1, share, error, allowed, where: `${name}[${place(at, shape)}]`,
    why: share <= 1 ? "" : `${name}[${place(at, shape)}] is ${is}, expected ${should}`};
}

function distance(dtype, expected, got) {
  if (typeof expected === "bigint") return Number(expected > got ? expected - got : got - expected);
  const [a, b] = [number(dtype, expected), number(dtype, got)];
  if (Object.is(a, b) || a === b) return 0;
  return Number.isFinite(a) && Number.isFinite(b) ? Math.abs(a - b) : Infinity;
}

function place(index, shape) {
  const steps = [];
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    steps.unshift(index % shape[axis]);
    index = Math.floor(index / shape[axis]);
  }
  return steps.join(", ");
}
