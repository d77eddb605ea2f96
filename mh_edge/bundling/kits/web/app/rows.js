/** A row: an artifact on a backend. Checked first, then timed in turn with the others. */

import {absent, adapter, threads, wasmFile} from "./backends.js";
import {Remote} from "./remote.js";

/**
 * Open a row's session in a fresh worker.
 * @returns {Promise<{remote: Remote, opened: object}>}
 */
async function opened(bundle, row, {prove = false, twice = false} = {}) {
  const {artifact, backend} = row;
  const wasm = await wasmFile(artifact.format, backend);
  const beside = artifact.data.map(async (path) => [path.replace(/^models\//, ""), await bundle.file(path)]);
  const what = {
    backend, prove, format: artifact.format, threads: row.threads ?? threads(backend),
    model: await bundle.file(artifact.path), data: Object.fromEntries(await Promise.all(beside)),
    wasm: await bundle.file(wasm), wasmFile: wasm, options: artifact.session_options, sizes: artifact.sizes,
  };
  const remote = new Remote();
  try {
    const first = await remote.ask("open", what);
    if (twice) await remote.ask("open", {...what, prove: false});
    return {remote, opened: first};
  } catch (error) {
    remote.close();
    throw error;
  }
}

/**
 * Run the cases on a row's backend.
 * @param {object[]} cases as of Bundle.cases
 * @returns {Promise<object>} absent and error: sentences, empty where there is nothing to say. outputs: of each case
 */
export async function checked(bundle, row, cases) {
  const found = {absent: "", error: "", runtime: "", threads: null, clock_ms: null, adapter: "", placement: null, outputs: []};
  found.absent = await absent(row.backend, row.artifact);
  if (found.absent) return found;
  let remote = null;
  try {
    const session = await opened(bundle, row, {prove: true});
    remote = session.remote;
    const {runtime, threads: used, placement} = session.opened;
    Object.assign(found, {runtime: row.artifact.details.runtime || runtime, threads: used, placement});
    if (row.backend === "webgpu") found.adapter = await adapter();
    for (const {inputs} of cases) found.outputs.push((await remote.ask("run", {inputs})).outputs);
    found.clock_ms = await remote.ask("tick");
  } catch (error) {
    found.error = error.message;
  } finally {
    remote?.close();
  }
  return found;
}

/**
 * Time rows in turn: the first opening of all of them, then the second of all, ...
 * @param {{openings: number, seconds: number|null, calls: number|null, warm_seconds: number, most: number}} plan
 *   seconds, calls and most: of a row, in all its openings together
 * @param {(row: object, opening: number) => void} onStep
 * @returns {Promise<Map<object, object>>} by row: {error, group, openings, outputs}
 */
export async function timed(bundle, rows, plan, onStep, {control = null} = {}) {
  const found = new Map(rows.map((row) => [row, {error: "", group: 1, openings: [], outputs: null}]));
  const share = (whole) => (whole === null ? null : Math.max(1, Math.ceil(whole / plan.openings)));
  for (let opening = 1; opening <= plan.openings; opening++) {
    for (const row of rows) {
      const entry = found.get(row);
      if (entry.error) continue;
      onStep(row, opening);
      try {
        const [{inputs}] = await bundle.cases(row.artifact);
        const {remote, opened: session} = await opened(bundle, row, {twice: row === control});
        try {
          const first = await remote.ask("run", {inputs});
          const times = await remote.ask("time", {
            inputs, seconds: plan.calls === null ? plan.seconds / plan.openings : null, count: share(plan.calls),
            warm: plan.warm_seconds, most: Math.floor(plan.most / plan.openings),
          });
          const [ms, again] = times.ms;
          entry.openings.push({load_ms: session.load_ms, first_ms: first.ms, ms, ...(again && {control_ms: again})});
          entry.group = Math.max(entry.group, times.group);
          entry.outputs = (await remote.ask("run", {inputs})).outputs;
        } finally {
          remote.close();
        }
      } catch (error) {
        entry.error = error.message;
      }
    }
  }
  return found;
}
