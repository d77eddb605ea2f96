"""Which ONNX operator set a file is written in, and the oldest ONNX Runtime that reads it.

Sources: ONNX Runtime's compatibility table (docs, reference/compatibility) up to opset 21; for the newer the releases
themselves were asked: 1.20 refuses a one-node model of opset 22, 1.21 and 1.22 refuse 23, 1.23 opens it and runs its
Attention; 1.23 refuses 24, 1.24 opens 24 and 25 and refuses 26, 1.25 opens 26. 27 (1.32) cannot be written yet: 1.31
refuses it.
"""

from __future__ import annotations

from mh_edge.errors import UsageError

DEFAULT_OPSET = {"cpu": 23, "cuda": 23, "plugins": 17, "portable": 17}
"""Opset by `--runtime`: cpu and cuda use the newest fused operations; plugins (WebGPU, OpenVINO, QNN, NNAPI,
CoreML) and portable keep to what older and other runtimes read too."""

# fmt: off
OLDEST_RUNTIME = {
    17: "1.12", 18: "1.14", 19: "1.15", 20: "1.17", 21: "1.18", 22: "1.21", 23: "1.23", 24: "1.24", 25: "1.24",
    26: "1.25",
}
# fmt: on
"""The first ONNX Runtime release that opens a model of this opset."""

IR_VERSION = {17: 8, 18: 8, 19: 8, 20: 9, 21: 10, 22: 10, 23: 11, 24: 13, 25: 13, 26: 13}
"""The newest file layout (ModelProto.ir_version) that the oldest ONNX Runtime of each opset reads."""


def resolve_opset(opset: int | None, runtime: str) -> int:
    """The opset to write: the one asked for, else the runtime's default.

    Raises UsageError for a runtime or opset that is not in the tables.
    """
    if runtime not in DEFAULT_OPSET:
        raise UsageError(f"runtime {runtime!r} is not known.", f"Known are {', '.join(DEFAULT_OPSET)}.")
    wanted = DEFAULT_OPSET[runtime] if opset is None else opset
    if wanted not in OLDEST_RUNTIME:
        raise UsageError(
            f"opset {wanted} cannot be written.", f"Choose one from {min(OLDEST_RUNTIME)} to {max(OLDEST_RUNTIME)}."
        )
    return wanted
