// A model in a page of your own: open it, give it arrays by name, read the outputs.
import {Tensor, loadAndCompile, loadLiteRt} from "./runtime/litert/index.js";

const told = await (await fetch("bundle.json")).json();
const {path, signature} = told.artifacts.find((one) => one.format === "tflite");
await loadLiteRt("runtime/litert/wasm/"); // with threads: {threads: true}
const model = await loadAndCompile(path, {accelerator: "wasm"}); // or "webgpu"

const KINDS = {float32: Float32Array, int32: Int32Array, uint8: Uint8Array};
const feeds = {};
for (const {name, dtype, shape} of signature.inputs)
  feeds[name] = new Tensor(new KINDS[dtype](shape.reduce((a, b) => a * b, 1)), shape); // your numbers instead of zeros
const outputs = await model.run(feeds);
const lines = [];
for (const [name, tensor] of Object.entries(outputs)) {
  lines.push(`${name}: ${(await tensor.data()).slice(0, 8)}`);
  tensor.delete(); // LiteRT.js frees nothing by itself
}
for (const tensor of Object.values(feeds)) tensor.delete();
document.getElementById("out").textContent = lines.join("\n");
