/** How the page reports to `mh-edge profile --device browser`, which serves it: what to do is in profile.json, and what
 * was found is posted as frames: length of the JSON (4 bytes, little-endian), the JSON, then raw arrays.
 */

import {bytesOf} from "./arrays.js";
import {Bundle} from "./bundle.js";
import {checked, timed} from "./rows.js";
import {step} from "./view.js";

/* Two thirds of a minute without a word, and the program would take the page for closed. */
const HEARTBEAT = 2000;
const LONGEST = 200;
const MOST = 20000;
const TYPE = "application/octet-stream";

let doing = "starting";

/** Do what profile.json says and report it. Rejects with the program's sentence where it refuses a report. */
export async function profile() {
  const bundle = await Bundle.open();
  const answer = await fetch("profile.json", {cache: "no-store"});
  if (!answer.ok) throw new Error(`The program does not say what to do: it answers ${answer.status}.`);
  const plan = await answer.json();
  const artifacts = Object.fromEntries(bundle.artifacts.map((one) => [one.name, one]));
  const rows = plan.rows.map((row) => ({...row, artifact: artifacts[row.artifact]}));
  addEventListener("pagehide", gone);
  await post("alive", {step: doing, browser: browser()});
  const alive = setInterval(() => post("alive", {step: doing}).catch(() => clearInterval(alive)), HEARTBEAT);
  const awake = await navigator.wakeLock?.request("screen").catch(() => null);
  try {
    await report(bundle, rows, plan);
  } finally {
    clearInterval(alive);
    removeEventListener("pagehide", gone);
    await awake?.release();
  }
  step("All is reported: the result stands in the terminal. This page can be closed.", "passed");
}

async function report(bundle, rows, plan) {
  const good = [];
  for (const row of rows) {
    say(`checking ${row.artifact.name} on ${row.backend}`);
    const cases = await bundle.cases(row.artifact);
    const {outputs, ...found} = await checked(bundle, row, [...cases, cases[0]]);
    const failed = found.absent || found.error;
    const {time} = await post("checked", {
      row: row.row, ...found, absent: found.absent || null, error: found.error || null, adapter: found.adapter || null,
      placement: failed ? null : found.placement,
    }, failed ? [] : outputs);
    if (time) good.push(row);
  }
  const onStep = (row, opening) => say(`timing ${row.artifact.name} on ${row.backend}, opening ${opening} of ${plan.openings}`);
  const times = await timed(bundle, good, {...plan, most: MOST}, onStep, {control: good[0]});
  for (const [row, {error, group, openings, outputs}] of times)
    await post("timed", {row: row.row, error: error || null, group, openings, steady: null}, outputs && !error ? [outputs] : []);
  say("done");
  await post("done", {});
}

function say(words) {
  doing = words.slice(0, LONGEST);
  step(words);
}

/** Post a frame -> what the program answers. */
async function post(where, told, outputs = null) {
  const answer = await fetch(`profile/${where}`, {
    method: "POST", headers: {"Content-Type": TYPE}, body: frame(told, outputs),
  });
  if (!answer.ok) throw new Error((await answer.text()) || `The program answers ${answer.status}.`);
  return answer.json();
}

/** outputs: of runs, each name -> array; null where there are none to tell of. */
function frame(told, outputs) {
  const kinds = outputs?.map((one) =>
    Object.fromEntries(Object.entries(one).map(([name, {dtype, shape}]) => [name, {dtype, shape}])));
  const text = new TextEncoder().encode(JSON.stringify({...told, outputs: kinds}));
  const length = new DataView(new ArrayBuffer(4));
  length.setUint32(0, text.length, true);
  const arrays = (outputs ?? []).flatMap((one) => Object.values(one).map(({data}) => bytesOf(data)));
  return new Blob([length, text, ...arrays], {type: TYPE});
}

const gone = () => navigator.sendBeacon("profile/gone", frame({}, null));

const browser = () => ({
  user_agent: navigator.userAgent, cross_origin_isolated: crossOriginIsolated, secure_context: isSecureContext,
  hardware_concurrency: navigator.hardwareConcurrency, webgpu: Boolean(navigator.gpu), webnn: Boolean(navigator.ml),
});
