/** A model on onnxruntime-web. */

import {bytesOf, hold} from "./arrays.js";
import {sift} from "./sift.js";

const PROVIDERS = {webgpu: "WebGpuExecutionProvider", webnn: "WebNNExecutionProvider"};
const CPU = "CPUExecutionProvider";
/* Of the lines about nodes, so many are kept. */
const ROOM = 4096;
/* What ONNX Runtime's log calls its lines about nodes, and its lines at large. */
const PLACED = /VerifyEachNodeIsAssignedToAnEp\]\s+(.*)/;
const ITS_OWN = /\[[VIW]:onnxruntime:/;

const lines = [];

/**
 * @param {{backend: string, threads: number, model: ArrayBuffer, wasm: ArrayBuffer, data: Object<string, ArrayBuffer>,
 *   options: Object<string, string>, sizes: Object<string, number>, prove: boolean}} what data: files beside the model,
 *   by name. options: of the session, as the manifest has them. sizes: free sizes that are fixed. prove: find out where
 *   each operation is placed, by the runtime's own log, which makes opening slower.
 */
export async function open({backend, threads, model, wasm, data, options, sizes, prove}) {
  if (prove) sift(ITS_OWN, (line) => lines.length < ROOM && PLACED.test(line) && lines.push(PLACED.exec(line)[1].trim()));
  const ort = await import(`../runtime/onnxruntime-web/ort.${backend.startsWith("wasm") ? "wasm" : "webgpu"}.min.mjs`);
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmBinary = wasm;
  lines.length = 0;
  const session = await ort.InferenceSession.create(new Uint8Array(model), {
    executionProviders: [backend.startsWith("wasm") ? "wasm" : backend],
    externalData: Object.entries(data).map(([path, bytes]) => ({path, data: new Uint8Array(bytes)})),
    extra: options,
    freeDimensionOverrides: sizes,
    logSeverityLevel: prove ? 0 : 3,
  });
  const tensor = ({dtype, shape, data}) => new ort.Tensor(dtype, data, shape);
  return {
    runtime: `onnxruntime-web ${ort.env.versions.web}`,
    threads: ort.env.wasm.numThreads,
    placement: prove ? placement(lines, PROVIDERS[backend] ?? CPU) : null,
    prepare: (inputs) => Object.fromEntries(Object.entries(inputs).map(([name, one]) => [name, tensor(one)])),
    run: (feeds) => session.run(feeds),
    read: (outputs) => Object.fromEntries(Object.entries(outputs).map(([name, one]) => [name, read(one)])),
    close: () => session.release(),
  };
}

function read({type, dims, data}) {
  const bytes = bytesOf(data).slice();
  return {dtype: type, shape: [...dims], data: hold(type, bytes.buffer, 0, data.length)};
}

/** What the log says of the nodes: "All nodes placed on [X]. Number of nodes: 62", or the same for parts of them. */
function placement(said, provider) {
  const counts = {}, elsewhere = {};
  let at = "";
  for (const line of said) {
    const head = /placed on \[(\w+)\]\. Number of nodes: (\d+)/.exec(line);
    if (head) counts[(at = head[1])] = Number(head[2]);
    const node = /^(\S+) \(/.exec(line);
    if (node && !head && at !== provider) (elsewhere[`${at} ${node[1]}`] ??= {op: node[1], count: 0, where: at}).count++;
  }
  const nodes = Object.values(counts).reduce((a, b) => a + b, 0);
  if (!nodes) return null;
  const words = Object.entries(counts).map(([name, count]) => `${count} of ${nodes} nodes on ${name}`);
  return {
    nodes, on_device: counts[provider] ?? 0, partitions: null, whole: counts[provider] === nodes,
    fallbacks: Object.values(elsewhere).map((one) => ({...one, nodes: [], where: one.where === CPU ? "wasm" : one.where, reason: ""})),
    proof: `The log of onnxruntime-web places ${words.join(", ")}.`,
  };
}
