/** How long calls take, by a clock that ticks coarsely on purpose (browsers blunt it). */

/* A number that is measured is so many ticks of the clock long, so a tick is at most 5 % of it. */
const TICKS = 20;
/* Milliseconds in which the clock is watched, at least and at most. */
const FIRST_LOOK = 5, LONGEST_LOOK = 50;
/* The quickest of so many tries says how long a call takes. */
const LOOKS = 3;

/** The smallest step of performance.now() that can be seen, in milliseconds. */
export function tick() {
  const start = performance.now();
  let least = Infinity, last = start;
  while (last - start < LONGEST_LOOK && !(least < Infinity && last - start > FIRST_LOOK)) {
    const now = performance.now();
    if (now > last) least = Math.min(least, now - last);
    last = now;
  }
  return Math.min(least, LONGEST_LOOK);
}

/**
 * Time sessions in turn, after a warm-up.
 * @param {Array<() => Promise>} calls one for each session
 * @param {{seconds: number|null, count: number|null, warm: number, most: number}} plan seconds of calls of the first
 *   session, or so many calls; `warm`: seconds; `most`: numbers at most
 * @returns {Promise<{group: number, ms: number[][]}>} ms: of each session, the mean of `group` calls in a row
 */
export async function time(calls, {seconds, count, warm, most}) {
  await warmed(calls, warm * 1000);
  let group = await grouped(calls[0], count ? 0 : (seconds * 1000) / most);
  let ms = calls.map(() => []);
  for (let spent = 0; ms[0].length < most && (count ? ms[0].length * group < count : spent < seconds * 1000 || !spent);) {
    const took = [];
    for (const call of calls) took.push(await lasted(call, group));
    if (Math.min(...took) <= 0) {
      // The group was chosen in a slow moment: begin anew with a longer one.
      [group, spent, ms] = [2 * group, 0, calls.map(() => [])];
      continue;
    }
    took.forEach((one, which) => ms[which].push(one / group));
    spent += took[0];
  }
  return {group, ms};
}

/** Milliseconds that so many calls in a row take. */
async function lasted(call, count) {
  const start = performance.now();
  for (let i = 0; i < count; i++) await call();
  return performance.now() - start;
}

/** How many calls in a row take TICKS of the clock, and at least so many milliseconds, even when they are quick. */
async function grouped(call, least) {
  const enough = Math.max(TICKS * tick(), least);
  for (let group = 1; ; group *= 2) {
    const took = [];
    for (let i = 0; i < LOOKS; i++) took.push(await lasted(call, group));
    const quickest = Math.min(...took);
    if (quickest >= enough) return group;
    if (quickest > 0) group = Math.max(group, Math.floor(((group * enough) / quickest) * 0.6));
  }
}

async function warmed(calls, until) {
  const start = performance.now();
  do for (const call of calls) await call(); while (performance.now() - start < until);
}

/** The value below which a share of the numbers lies. */
export function quantile(numbers, share) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const at = share * (sorted.length - 1), below = Math.floor(at);
  return sorted[below] + (at - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
}
