"""Android: a Gradle project whose assets are the models, with a self-test as an app and as a test on the device."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mh_edge.artifact import Artifact
from mh_edge.bundling.platform import README, Kit, Platform
from mh_edge.errors import ConversionError, UsageError
from mh_edge.opsets import OLDEST_RUNTIME
from mh_edge.signature import Tensor

ONNXRUNTIME = "1.30.0"
"""Of onnxruntime-android in the Gradle lines: the newest of Maven Central when this was written."""

OLDEST_ONNXRUNTIME = "1.17.0"
"""The oldest whose Java package the Kotlin files were compiled with."""

LITERT = "2.3.0"
"""Of com.google.ai.edge.litert:litert in the Gradle lines; the Kotlin files were compiled with its Java sources."""

PACKAGE = "mhedge.selftest"

PACKAGE_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
"""What Android takes for the name of an app, and every part Kotlin for a package (but for KEYWORDS)."""

KEYWORDS = """abstract as assert boolean break byte case catch char class const continue default do double else enum
extends false final finally float for fun goto if implements import in instanceof int interface is long native new null
object package private protected public return short static strictfp super switch synchronized this throw throws
transient true try typealias typeof val var void volatile when while"""
"""Of Kotlin and Java, neither of which takes its own in a package's name."""

LEFT_OUT = re.compile(r"(^|/)\.|(^|/)_[^/]*/|(~|\.scc|\.gz)$", re.IGNORECASE)
"""Paths that Android's packager drops from the assets, or unpacks."""

SOURCES = "app/src/main/kotlin"

SHARED = (
    "settings.gradle.kts",
    "gradle.properties",
    "app/build.gradle.kts",
    "app/src/main/AndroidManifest.xml",
    "app/src/androidTest/kotlin/SelfTestOnDevice.kt",
    *(f"{SOURCES}/{name}.kt" for name in ("Assets", "Model", "Sample", "SelfTest", "SelfTestActivity")),
)

ARRAYS = {"float32": "FloatArray", "int32": "IntArray", "int64": "LongArray", "bool": "BooleanArray"}
"""Kotlin's arrays that Tensor.of takes, by dtype."""

ANY_SIZE = 8
"""Stands for a free size in the example of README.md; batch is 1."""


@dataclass(frozen=True)
class Runtime:
    """What a format needs. source: its Kotlin file. library: its Gradle coordinates, without the version. opened: how
    `openModel` opens it. dtypes: what its Java interface passes in and out.
    """

    source: str
    library: str
    opened: str
    dtypes: frozenset[str]


WHOLE = frozenset({"int64", "int32", "int16", "int8", "uint8", "bool"})

RUNTIMES = {
    "onnx": Runtime(
        "OrtModel",
        "com.microsoft.onnxruntime:onnxruntime-android",
        "OrtModel(Assets(context).copied(artifact).path, artifact.options)",
        WHOLE | {"float16", "float32", "float64"},
    ),
    "tflite": Runtime(
        "LiteRtModel",
        "com.google.ai.edge.litert:litert",
        "LiteRtModel(Assets(context).mapped(artifact.path))",
        WHOLE | {"float32"},
    ),
}


class Android(Platform):
    """settings: package, the name of the app and its Kotlin package; onnxruntime, the release in the Gradle lines."""

    name = "android"
    formats = tuple(RUNTIMES)
    takes = ("package", "onnxruntime")
    next_step = "Open it in Android Studio, or: gradle wrapper, ./gradlew connectedAndroidTest (README.md)."

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(settings)
        self.package = _package(self.settings.get("package", PACKAGE))
        self.versions = {"onnx": self.settings.get("onnxruntime", ONNXRUNTIME), "tflite": LITERT}
        if _release(self.versions["onnx"]) < _release(OLDEST_ONNXRUNTIME):
            raise UsageError(
                f"the sample does not fit onnxruntime-android {self.versions['onnx']}.",
                f"Give {OLDEST_ONNXRUNTIME} or a newer one.",
            )

    def require(self, artifact: Artifact) -> None:
        super().require(artifact)
        runtime = RUNTIMES[artifact.format]
        for tensor in (*artifact.inputs, *artifact.outputs):
            if tensor.dtype not in runtime.dtypes:
                raise ConversionError(
                    f"{str(artifact.path)!r} has {tensor.name!r} of {tensor.dtype}, which the Java interface of "
                    f"{runtime.library} does not pass.",
                    f"It passes {', '.join(sorted(runtime.dtypes))}: cast inside of the model.",
                )
        if flex := sorted(op for op in artifact.ops if op.startswith("Flex")):
            raise ConversionError(
                f"{str(artifact.path)!r} needs TensorFlow itself on the phone for {', '.join(flex)}; LiteRT has no "
                "such operations.",
                "mh-edge export writes files of built-in operations; fixed sizes (--batch, --sequence) often help.",
            )
        if artifact.opset is not None:
            self._require_opset(artifact, artifact.opset)

    def place(self, artifact: Artifact, models: Path) -> tuple[Path, ...]:
        placed = super().place(artifact, models)
        for path in placed:
            if LEFT_OUT.search(path.relative_to(models).as_posix()):
                raise ConversionError(
                    f"Android's packager does not keep an asset called {path.name!r} as it is.",
                    "Rename it: no . or _ in front, no ~, .scc or .gz at the end.",
                )
        return placed

    def device(self, artifact_format: str) -> str:
        """LiteRT on a phone computes with XNNPACK."""
        return "xnnpack" if artifact_format == "tflite" else super().device(artifact_format)

    def finish(self, kit: Kit) -> Mapping[str, Mapping[str, Any]]:
        formats = {member.source.format for member in kit.members}
        used = {name: one for name, one in RUNTIMES.items() if name in formats}
        first = kit.members[0].source
        gaps = {
            "package": self.package,
            "dependencies": "\n".join(
                f'    implementation("{one.library}:{self.versions[name]}")' for name, one in used.items()
            ),
            "openers": "\n".join(f'    "{name}" -> {one.opened}' for name, one in used.items()),
            "inputs": ", ".join(f'"{one.name}" to {_array(one)}' for one in first.inputs),
            "output": first.outputs[0].name,
        }
        for name in (README, *SHARED, *(f"{SOURCES}/{one.source}.kt" for one in used.values())):
            kit.fill(name, gaps | {"artifacts": kit.table()})
        return {}

    def _require_opset(self, artifact: Artifact, opset: int) -> None:
        """Raise ConversionError for an opset that the onnxruntime-android of the Gradle lines does not read."""
        ours = self.versions["onnx"]
        newest = max(one for one, oldest in OLDEST_RUNTIME.items() if _release(oldest) <= _release(ours))
        if opset > newest:
            raise ConversionError(
                f"{str(artifact.path)!r} is written in opset {opset}; onnxruntime-android {ours} reads up to {newest}.",
                f"mh-edge export MODEL --opset {newest}, or a newer release: --platform-option onnxruntime=VERSION.",
            )


def _package(name: str) -> str:
    """Raises UsageError for a name that Android or Kotlin does not take."""
    if not PACKAGE_NAME.fullmatch(name) or set(KEYWORDS.split()) & set(name.split(".")):
        raise UsageError(
            f"{name!r} is no name of an Android app.",
            "Give two or more words of small letters, digits and _, such as com.example.selftest.",
        )
    return name


def _release(version: str) -> tuple[int, int]:
    """1.30.0 -> (1, 30). Raises UsageError for what is no release."""
    found = re.fullmatch(r"(\d+)\.(\d+)(\.\d+)?", version)
    if found is None:
        raise UsageError(f"{version!r} is no release of onnxruntime-android.", f"Give one such as {ONNXRUNTIME}.")
    return int(found[1]), int(found[2])


def _array(tensor: Tensor) -> str:
    """A tensor of zeros in Kotlin, its free sizes filled in."""
    shape = [size if isinstance(size, int) else 1 if axis == 0 else ANY_SIZE for axis, size in enumerate(tensor.shape)]
    made = ARRAYS.get(tensor.dtype)
    return f"Tensor.of({', '.join([f'{made}({math.prod(shape)})', *map(str, shape)])})" if made else "..."
