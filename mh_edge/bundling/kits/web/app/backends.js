/** Where a browser can run a model, and why not where it cannot. */

const SECURE = "a secure context: https, or a page of this machine itself (localhost)";

/** ONNX Runtime takes no more threads of its own accord either: beyond four, phones slow down. */
const MOST_THREADS = 4;

export const LABELS = {
  wasm: "WebAssembly, 1 thread", "wasm-threads": "WebAssembly, threads", webgpu: "WebGPU", webnn: "WebNN",
};

/** How many threads a backend takes here. */
export const threads = (backend) =>
  backend === "wasm-threads" ? Math.max(2, Math.min(MOST_THREADS, navigator.hardwareConcurrency || 2)) : 1;

/** A sentence why this browser, page or bundle has no such backend; empty where it has. */
export async function absent(backend, artifact) {
  if (!artifact.details.backends.includes(backend))
    return `This bundle holds no ${LABELS[backend]} for .${artifact.format} files.`;
  if (backend === "wasm-threads" && !crossOriginIsolated)
    return "Threads need a page that is cross-origin isolated; this one is not, as its server does not send the headers "
      + `Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy (serve.py does), or it is no ${SECURE.slice(2)}.`;
  if (backend === "webgpu" && !navigator.gpu) return without("WebGPU");
  if (backend === "webgpu" && !(await adapter())) return "This browser has WebGPU, but no GPU for it here.";
  if (backend === "webnn" && !navigator.ml) return without("WebNN");
  return "";
}

/** The GPU that WebGPU has here, in words; empty where there is none. */
export async function adapter() {
  const found = await navigator.gpu?.requestAdapter().catch(() => null);
  if (!found) return "";
  const {vendor, architecture, description, isFallbackAdapter} = found.info;
  const words = [vendor, architecture, description].filter(Boolean).join(" ") || "a GPU that is not named";
  return isFallbackAdapter || /swiftshader|llvmpipe/i.test(words) ? `${words} (software, on the CPU)` : words;
}

/** The WebAssembly file that a backend of a format loads. */
export async function wasmFile(format, backend) {
  if (format === "onnx") {
    const kind = backend.startsWith("wasm") ? "" : ".asyncify";
    return `runtime/onnxruntime-web/ort-wasm-simd-threaded${kind}.wasm`;
  }
  const {supportsFeature} = await import("../runtime/litert/index.js");
  const relaxed = await supportsFeature("relaxedSimd");
  const kind = !relaxed ? "_compat" : backend === "wasm-threads" ? "_threaded" : "";
  return `runtime/litert/wasm/litert_wasm${kind}_internal.wasm`;
}

const without = (name) => (isSecureContext ? `This browser has no ${name}.` : `${name} needs ${SECURE}.`);
