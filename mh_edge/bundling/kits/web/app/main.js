/** The page: all golden cases of all artifacts on all backends that are here, twice, then how long calls take. */

import {LABELS} from "./backends.js";
import {Bundle, hashes} from "./bundle.js";
import {judge} from "./judge.js";
import {profile} from "./profile.js";
import {checked, timed} from "./rows.js";
import {quantile} from "./timing.js";
import {fine, show, step} from "./view.js";

/* Two openings of each row, in turn, so that a moment in which the machine was busy does not stay unnoticed. */
const PLAN = {openings: 2, seconds: 1.5, calls: null, warm_seconds: 0.4, most: 4000};

/** What the page found, for people by view.js, for programs as `window.mhEdgeResult` and in the element #result. */
function state(bundle) {
  const rows = bundle.artifacts.flatMap((artifact) =>
    Object.keys(LABELS).map((backend) => ({artifact, backend, label: LABELS[backend]})));
  const environment = {
    user_agent: navigator.userAgent, cross_origin_isolated: crossOriginIsolated, secure_context: isSecureContext,
    hardware_concurrency: navigator.hardwareConcurrency, hashes_checked: hashes(),
  };
  return {bundle, rows, environment, done: false};
}

async function check(bundle, row) {
  try {
    const cases = await bundle.cases(row.artifact);
    const {outputs, ...found} = await checked(bundle, row, [...cases, ...cases]);
    Object.assign(row, found);
    row.cases = outputs.map((got, at) => {
      const golden = cases[at % cases.length];
      return {name: golden.name, time: at < cases.length ? 1 : 2, ...judge(golden.outputs, got)};
    });
    row.right = !row.absent && !row.error && cases.length > 0 && row.cases.length === 2 * cases.length && row.cases.every((one) => one.right);
  } catch (error) {
    Object.assign(row, {absent: "", error: error.message, cases: [], right: false});
  }
}

function summarize(row, found) {
  row.error = found.error;
  row.group = found.group;
  row.openings = found.openings;
  const ms = found.openings.flatMap((one) => one.ms);
  if (ms.length) row.latency = {calls: ms.length * found.group, ms, p10: quantile(ms, 0.1), p50: quantile(ms, 0.5),
    p90: found.group > 1 ? null : quantile(ms, 0.9)};
}

/** What a program reads. */
function told({bundle, rows, environment, done}) {
  return {
    done, environment, passed: rows.every((row) => row.absent || fine(row)) && rows.some(fine),
    rows: rows.map(({artifact, label, ...row}) => ({artifact: artifact.name, ...row})),
    platform: bundle.told.platform,
  };
}

function publish(found) {
  show(found);
  const result = told(found);
  window.mhEdgeResult = result;
  document.getElementById("result").textContent = JSON.stringify(result);
}

async function everything() {
  const bundle = await Bundle.open();
  const found = state(bundle);
  for (const row of found.rows) {
    step(`Checking ${row.artifact.name} on ${row.label}`);
    await check(bundle, row);
    publish(found);
  }
  const right = found.rows.filter((row) => row.right);
  const times = await timed(bundle, right, PLAN, (row, opening) =>
    step(`Timing ${row.artifact.name} on ${row.label}, opening ${opening} of ${PLAN.openings}`));
  for (const [row, entry] of times) summarize(row, entry);
  found.done = true;
  publish(found);
}

try {
  await (new URLSearchParams(location.search).has("profile") ? profile() : everything());
} catch (error) {
  step(error.message, "failed");
  window.mhEdgeResult = {done: true, passed: false, error: error.message, rows: []};
  document.getElementById("result").textContent = JSON.stringify(window.mhEdgeResult);
}
