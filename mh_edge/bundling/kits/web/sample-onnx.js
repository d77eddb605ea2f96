// A model in a page of your own: open it, give it arrays by name, read the outputs.
import * as ort from "./runtime/onnxruntime-web/ort.wasm.min.mjs"; // on a GPU: ort.webgpu.min.mjs

const told = await (await fetch("bundle.json")).json();
const {path, signature, session_options: extra} = told.artifacts.find((one) => one.format === "onnx");
const session = await ort.InferenceSession.create(path, {executionProviders: ["wasm"], extra}); // or "webgpu"

const KINDS = {float32: Float32Array, float64: Float64Array, float16: Uint16Array, int64: BigInt64Array, int32: Int32Array,
  int8: Int8Array, uint8: Uint8Array, bool: Uint8Array};
const feeds = {};
for (const {name, dtype, shape} of signature.inputs) {
  const sizes = shape.map((size) => (typeof size === "string" ? 4 : size)); // a free size: as long as your data
  const data = new KINDS[dtype](sizes.reduce((a, b) => a * b, 1)); // your numbers instead of zeros
  feeds[name] = new ort.Tensor(dtype, data, sizes);
}
const outputs = await session.run(feeds);
const lines = Object.entries(outputs).map(([name, {type, dims, data}]) => `${name}: ${type} (${dims}) = ${data.slice(0, 8)}`);
document.getElementById("out").textContent = lines.join("\n");
