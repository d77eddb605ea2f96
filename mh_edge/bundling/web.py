"""`web`: a folder to serve anywhere. Its page loads the models with onnxruntime-web or LiteRT.js, runs the golden cases
on each backend of the browser, and shows whether they are right, where they ran and how fast.

The JavaScript runtimes are copied from node_modules, as npm put them there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mh_edge.artifact import Artifact
from mh_edge.bundling.platform import Kit, Platform
from mh_edge.errors import ConversionError, UnavailableError, UsageError

FOLDER = "node_modules"

BACKENDS = {"onnx": ("wasm", "wasm-threads", "webgpu", "webnn"), "tflite": ("wasm", "wasm-threads", "webgpu")}
"""What the page can ask of each format's runtime. WebNN of LiteRT.js wants a build that few browsers can load."""

LITERT_DTYPES = ("float32", "int32", "uint8")
"""DATATYPES of @litertjs/core 2.5: it opens no file with another kind of input or output."""

BARE = b'from "@litertjs/wasm-utils"'
RELATIVE = b'from "./wasm-utils.js"'
"""The one name in LiteRT.js that a browser cannot resolve without a build step; workers know no import maps."""


@dataclass(frozen=True)
class Runtime:
    """An npm package. line: what `npm install` is told. folder: in the bundle, under runtime/. files: of the package ->
    in that folder; those of `gpu` only where a backend beyond WebAssembly is wanted. needs: packages that come with it.
    """

    package: str
    line: str
    folder: str
    files: Mapping[str, str]
    gpu: Mapping[str, str]
    needs: Mapping[str, Mapping[str, str]]


def _same(*paths: str, under: str = "") -> dict[str, str]:
    return {path: under + path.rpartition("/")[2] for path in paths}


RUNTIMES = {
    "onnx": Runtime(
        "onnxruntime-web",
        "onnxruntime-web@1.30",
        "onnxruntime-web",
        _same(
            "dist/ort.wasm.min.mjs",
            "dist/ort-wasm-simd-threaded.mjs",
            "dist/ort-wasm-simd-threaded.wasm",
            "package.json",
        ),
        _same(
            "dist/ort.webgpu.min.mjs",
            "dist/ort-wasm-simd-threaded.asyncify.mjs",
            "dist/ort-wasm-simd-threaded.asyncify.wasm",
        ),
        {},
    ),
    "tflite": Runtime(
        "@litertjs/core",
        "@litertjs/core@2.5",
        "litert",
        _same("dist/index.js", "package.json")
        | _same(
            *(
                f"wasm/litert_wasm{kind}_internal.{suffix}"
                for kind in ("", "_threaded", "_compat")
                for suffix in ("js", "wasm")
            ),
            under="wasm/",
        ),
        {},
        {"@litertjs/wasm-utils": {"dist/index.js": "wasm-utils.js"}},
    ),
}
"""By the format of the artifact. ONNX Runtime's plain WebAssembly is half as large as the one that can wait for a GPU,
and faster, so each has its own; its build for JSPI is left out, as fewer browsers have that. LiteRT.js has one for
browsers without relaxed SIMD (Safari).
"""


class Web(Platform):
    """backends: "wasm" leaves out what WebGPU and WebNN need. node_modules: that folder, instead of the nearest from
    the working directory upwards.
    """

    name = "web"
    formats = ("onnx", "tflite")
    takes = ("node_modules", "backends")
    next_step = "python serve.py, in that folder, then open the page that it names."

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(settings)
        self.gpu = self.settings.get("backends", "all") == "all"
        if self.settings.get("backends", "all") not in ("all", "wasm"):
            raise UsageError(
                f"backends={self.settings['backends']} is not known.", "Known are backends=all and backends=wasm."
            )

    def require(self, artifact: Artifact) -> None:
        super().require(artifact)
        if artifact.format == "tflite":
            _require_taken(artifact)
        self._packages(RUNTIMES[artifact.format])

    def backends(self, artifact_format: str) -> list[str]:
        """What the page tries for that format."""
        return [name for name in BACKENDS[artifact_format] if self.gpu or name.startswith("wasm")]

    def finish(self, kit: Kit) -> Mapping[str, Mapping[str, Any]]:
        formats = sorted({member.source.format for member in kit.members})
        kit.copy("index.html", "style.css", "serve.py", "app", "licences.txt")
        versions = {one: self._copy(kit, RUNTIMES[one]) for one in formats}
        for one in formats:
            kit.copy(f"sample-{one}.html", f"sample-{one}.js")
        kit.readme(
            runtimes=" and ".join(versions.values()),
            lies="lie" if len(versions) > 1 else "lies",
            samples=" and ".join(f"`sample-{one}.html`" for one in formats),
        )
        return {
            member.name: {
                "runtime": versions[member.source.format],
                "backends": self.backends(member.source.format),
            }
            for member in kit.members
        }

    def _copy(self, kit: Kit, runtime: Runtime) -> str:
        """The runtime's files into the bundle -> its name and version."""
        for name, source in self._packages(runtime):
            content = source.read_bytes()
            if name == "index.js":
                content = _resolved(content, source)
            kit.write(f"runtime/{runtime.folder}/{name}", content)
        told = json.loads((kit.folder / "runtime" / runtime.folder / "package.json").read_text(encoding="utf-8"))
        return f"{runtime.package} {told['version']}"

    def _packages(self, runtime: Runtime) -> list[tuple[str, Path]]:
        """(name in the bundle, file) of all that a runtime needs. Raises UnavailableError where one is missing."""
        wanted = {runtime.package: {**runtime.files, **(runtime.gpu if self.gpu else {})}, **runtime.needs}
        nearest = next((one for one in self._folders() if (one / runtime.package).is_dir()), None)
        found = []
        for package, files in wanted.items():
            for file, name in files.items():
                source = None if nearest is None else nearest / package / file
                if source is None or not source.is_file():
                    where = f"no {runtime.package} in" if nearest is None else f"{package}/{file} is not in"
                    raise UnavailableError(
                        f"the page needs the JavaScript package {runtime.package}: {where} {self._looked()}.",
                        f"npm install {runtime.line}, in the working directory or one above it; or name the folder "
                        f"where it is with --platform-option {FOLDER}=DIR.",
                    )
                found.append((name, source))
        return found

    def _folders(self) -> Iterator[Path]:
        """Where packages may lie, the nearest first, as Node looks for them."""
        if named := self.settings.get("node_modules"):
            yield Path(named)
            return
        here = Path.cwd()
        yield from (folder / FOLDER for folder in (here, *here.parents))

    def _looked(self) -> str:
        named = self.settings.get("node_modules")
        return repr(named) if named else f"a folder {FOLDER!r} from {str(Path.cwd())!r} upwards"


def _resolved(content: bytes, source: Path) -> bytes:
    if content.count(BARE) != 1:
        raise UnavailableError(
            f"{str(source)!r} is not made as that of @litertjs/core 2.5, which this page was made for.",
            f"npm install {RUNTIMES['tflite'].line}",
        )
    return content.replace(BARE, RELATIVE)


def _require_taken(artifact: Artifact) -> None:
    """Raise ConversionError for what LiteRT.js cannot open or run."""
    onnx = "mh-edge export MODEL --to onnx writes a file for onnxruntime-web, which takes it"
    for tensor in (*artifact.signature.inputs, *artifact.signature.outputs):
        if tensor.dtype not in LITERT_DTYPES:
            raise ConversionError(
                f"{str(artifact.path)!r} is not for LiteRT.js, which knows {', '.join(LITERT_DTYPES)} alone: "
                f"{tensor.name!r} is {tensor.dtype}.",
                f"{onnx}.",
            )
    if free := artifact.signature.free_dims():
        raise ConversionError(
            f"{str(artifact.path)!r} is not for LiteRT.js, which wants fixed sizes: {free[0]!r} is free.",
            f"mh-edge export MODEL --to tflite --dim {free[0]}=N fixes it; {onnx}.",
        )
