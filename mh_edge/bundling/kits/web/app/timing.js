/** How long calls take, by a clock that ticks coarsely on purpose (browsers blunt it). */

/* A number that is measured is so many ticks of the clock long, so a tick is at most 5 % of it. */
const TICKS = 20;
const LONGEST_LOOK = 50;
const FIRST_LOOK = 5;

/** The smallest step of performance.now() that can be seen, in milliseconds. */
export function tick() {
  const start = performance.now();
  let least = Infinity, last = start;
  while (last - start < LONGEST_LOOK && !(least < Infinity && last - start > FIRST_LOOK)) {
    const now = performance.now();
    if (now > last) least = Math.min(least, now - last);
    last = now;
  }
  return least;
}

/**
 * Time sessions in turn, after a warm-up.
 * @param {Array<() => Promise>} calls one for each session
 * @param {{seconds: number|null, count: number|null, warm: number, most: number}} plan seconds of calls of the first
 *   session, or so many calls; `warm`: seconds; `most`: numbers at most
 * @returns {Promise<{group: number, ms: number[][]}>} ms: of each session, the mean of `group` calls in a row
 */
export async function time(calls, {seconds, count, warm, most}) {
  const once = await warmed(calls, warm * 1000);
  const group = Math.max(1, Math.ceil((TICKS * tick()) / once), count ? 0 : Math.ceil((seconds * 1000) / once / most));
  const ms = calls.map(() => []);
  const enough = count ? () => ms[0].length * group >= count : () => ms[0].reduce((a, b) => a + b, 0) * group >= seconds * 1000;
  let spent = 0;
  do {
    for (const [which, call] of calls.entries()) {
      const start = performance.now();
      for (let i = 0; i < group; i++) await call();
      ms[which].push((performance.now() - start) / group);
    }
    spent += ms[0].at(-1) * group;
  } while (ms[0].length < most && (count ? !enough() : spent < seconds * 1000));
  return {group, ms};
}

/** Call until the time is up; how long a call took in the later half of it, in milliseconds, more than 0. */
async function warmed(calls, until) {
  const start = performance.now();
  let half = null, done = 0, now;
  do {
    for (const call of calls) await call();
    now = performance.now();
    if (half !== null) done++;
    else if (now - start >= until / 2) half = now;
  } while (now - start < until || !done);
  return Math.max((now - half) / done / calls.length, 1e-3);
}

/** The value below which a share of the numbers lies. */
export function quantile(numbers, share) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const at = share * (sorted.length - 1), below = Math.floor(at);
  return sorted[below] + (at - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
}
