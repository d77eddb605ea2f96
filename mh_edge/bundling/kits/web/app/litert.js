/** A model on LiteRT.js. It takes fixed shapes, and float32, int32 and uint8. */

import {sift} from "./sift.js";

const FOLDER = new URL("../runtime/litert/", import.meta.url);

/* Kinds of buffers in the memory of a GPU: TensorBufferType of LiteRT.js. */
const ON_GPU = [20, 21, 26];

/* What it tells at every start: of accelerators that it registers, and of libraries that no browser has; and what it
 * tells of a graph that WebGPU does not take whole: the operations, and how many go where. */
const CHATTER = /^(INFO: |WARNING: \[npu_registry|I\d{4} |ERROR: Following operations)|operations will run on the GPU|^%c\[LiteRT\]/;
const REFUSED = /^(?!INFO|WARNING|ERROR)[A-Z][A-Z0-9_]*: /;

const PROOFS = {
  wasm: "LiteRT.js was asked for WebAssembly alone.",
  webgpu: "LiteRT.js says that the GPU has the whole graph, and takes its inputs in the GPU's memory.",
};

const refused = new Set();
let loading = null;

/** As of ort.js; what LiteRT.js has no use for is left out. */
export async function open({backend, threads, model, wasm, wasmFile}) {
  const lite = await import("../runtime/litert/index.js");
  loading ??= load(lite, backend === "wasm-threads", wasm, wasmFile);
  const runtime = await loading;
  const compiled = await lite.loadAndCompile(new Uint8Array(model), {
    accelerator: backend === "webgpu" ? "webgpu" : "wasm",
    cpuOptions: {numThreads: threads},
    gpuOptions: {precision: "fp32"},
  }).catch((error) => { throw told(error, backend); });
  if (backend === "webgpu") requireWhole(compiled);
  const outputs = compiled.getOutputDetails();
  return {
    runtime: "LiteRT.js",
    threads: Math.min(threads, runtime.liteRtWasm.getThreadCount()),
    placement: {nodes: null, on_device: null, partitions: null, whole: true, fallbacks: [], proof: PROOFS[backend] ?? PROOFS.wasm},
    prepare: (inputs) =>
      Object.fromEntries(Object.entries(inputs).map(([name, {data, shape}]) => [name, new lite.Tensor(data, shape)])),
    async run(feeds) {
      const made = await compiled.run(feeds).catch((error) => { throw told(error, backend); });
      const arrays = {};
      for (const {name, shape, dtype} of outputs) {
        arrays[name] = {dtype, shape: [...shape], data: (await made[name].data()).slice()};
        made[name].delete();
      }
      return arrays;
    },
    read: (arrays) => arrays,
    close: () => compiled.delete(),
  };
}

/** Load the runtime into this worker, from bytes that are already here. */
async function load(lite, threaded, wasm, wasmFile) {
  sift(CHATTER, () => {});
  sift(REFUSED, (line) => refused.add(line.trim().replace(/\.$/, "")));
  const script = new URL(wasmFile.replace(/^.*\//, "wasm/").replace(/wasm$/, "js"), FOLDER).href;
  self.Module = {wasmBinary: new Uint8Array(wasm), mainScriptUrlOrBlob: script};
  return lite.loadLiteRt(new URL("wasm/", FOLDER).href, {threads: threaded});
}

/** Where the GPU's memory is to be waited for amid a call, LiteRT.js reaches for Asyncify, which its builds lack. */
function told(error, backend) {
  if (backend !== "webgpu" || !/Asyncify is not defined/.test(error?.message ?? error)) return error;
  return new Error("LiteRT.js cannot run this model on WebGPU: the model makes it wait for the GPU amid a call, which the "
    + "builds of it that all browsers load cannot do (\"Asyncify is not defined\")");
}

/** Throw where WebGPU has not the whole graph: the builds of LiteRT.js that all browsers load cannot share one. */
function requireWhole(compiled) {
  const there = compiled.options.accelerator === "webgpu" && compiled.isFullyAccelerated;
  const inputs = compiled.getInputDetails().flatMap((one) => [...one.supportedBufferTypes]);
  if (there && inputs.every((kind) => ON_GPU.includes(kind))) return;
  const why = refused.size ? ` (${[...refused].join("; ")})` : "";
  throw new Error(`WebGPU does not take the whole model${why}, and LiteRT.js cannot share one between WebGPU and WebAssembly.`);
}
