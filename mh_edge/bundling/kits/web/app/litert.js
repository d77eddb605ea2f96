/** A model on LiteRT.js. It takes fixed shapes, and float32, int32 and uint8. */

import {sift} from "./sift.js";

const FOLDER = new URL("../runtime/litert/", import.meta.url);

/* Kinds of buffers in the memory of a GPU: TensorBufferType of LiteRT.js. */
const ON_GPU = [20, 21, 26];

/* What it tells at every start: of accelerators that it registers, and of libraries that no browser has. */
const CHATTER = /^(INFO: |WARNING: \[npu_registry|I\d{4} )/;

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
  });
  const outputs = compiled.getOutputDetails();
  return {
    runtime: "LiteRT.js",
    threads: Math.min(threads, runtime.liteRtWasm.getThreadCount()),
    placement: placement(compiled, backend),
    prepare: (inputs) =>
      Object.fromEntries(Object.entries(inputs).map(([name, {data, shape}]) => [name, new lite.Tensor(data, shape)])),
    async run(feeds) {
      const made = await compiled.run(feeds);
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
  const script = new URL(wasmFile.replace(/^.*\//, "wasm/").replace(/wasm$/, "js"), FOLDER).href;
  self.Module = {wasmBinary: new Uint8Array(wasm), mainScriptUrlOrBlob: script};
  return lite.loadLiteRt(new URL("wasm/", FOLDER).href, {threads: threaded});
}

function placement(compiled, backend) {
  const used = compiled.options.accelerator;
  const gpu = used === "webgpu" && compiled.getInputDetails()
    .every((one) => [...one.supportedBufferTypes].every((kind) => ON_GPU.includes(kind)));
  const whole = backend !== "webgpu" || (gpu && compiled.isFullyAccelerated);
  const proof = backend !== "webgpu"
    ? "LiteRT.js was asked for WebAssembly alone."
    : whole
      ? "LiteRT.js says that the GPU has the whole graph, and takes its inputs in the GPU's memory."
      : `LiteRT.js says that WebGPU has ${gpu ? "not the whole graph" : "nothing of the graph"}; WebAssembly has the rest.`;
  return {nodes: null, on_device: null, partitions: null, whole, fallbacks: [], proof};
}
