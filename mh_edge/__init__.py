"""Turn trained Keras models with parallel heads or attention into small, proven ONNX and TFLite files.

    import mh_edge
    mh_edge.export("model.keras", "out", formats=("onnx", "tflite"))   # convert, prove, then write: all or nothing
    mh_edge.verify("model.keras", "out/model.onnx")                    # the proof alone: reference, then what to prove
    mh_edge.quantize("out/model.onnx", scheme="int8", calibration="calib.npz")    # smaller, and what it lost
    mh_edge.profile(["out/model.onnx"], ["cpu"])                       # how fast it runs there, and whether it does
    mh_edge.bundle(["out/model.onnx"], "linux-arm64", "kit")           # what to copy to a device, with its own proof
    mh_edge.inspect("out/model.onnx")                                  # signature, operations, size
    mh_edge.devices()                                                  # what this machine can really run

A keras.Model will do in place of "model.keras"; its files are then named after model.name.

Importing this package imports neither TensorFlow nor Keras; a name brings what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mh_edge import layers as layers
    from mh_edge.artifact import Artifact as Artifact
    from mh_edge.bundling import Bundle as Bundle
    from mh_edge.bundling import bundle as bundle
    from mh_edge.exporting import ExportResult as ExportResult
    from mh_edge.exporting import export as export
    from mh_edge.inspection import inspect as inspect
    from mh_edge.machine import devices as devices
    from mh_edge.models import load_model as load_model
    from mh_edge.models import load_weights as load_weights
    from mh_edge.models import upgrade as upgrade
    from mh_edge.profiling import Profile as Profile
    from mh_edge.profiling import profile as profile
    from mh_edge.quantization import Quantization as Quantization
    from mh_edge.quantization import quantize as quantize
    from mh_edge.rulecheck import RuleCheck as RuleCheck
    from mh_edge.rulecheck import check_rule as check_rule
    from mh_edge.rules import Case as Case
    from mh_edge.rules import rule as rule
    from mh_edge.verification import Verification as Verification
    from mh_edge.verification import verify as verify

__version__ = "0.1.0"

_HOMES = {
    "Artifact": "mh_edge.artifact",
    "Bundle": "mh_edge.bundling",
    "Case": "mh_edge.rules",
    "ExportResult": "mh_edge.exporting",
    "Profile": "mh_edge.profiling",
    "Quantization": "mh_edge.quantization",
    "RuleCheck": "mh_edge.rulecheck",
    "Verification": "mh_edge.verification",
    "bundle": "mh_edge.bundling",
    "check_rule": "mh_edge.rulecheck",
    "devices": "mh_edge.machine",
    "export": "mh_edge.exporting",
    "inspect": "mh_edge.inspection",
    "load_model": "mh_edge.models",
    "load_weights": "mh_edge.models",
    "profile": "mh_edge.profiling",
    "quantize": "mh_edge.quantization",
    "rule": "mh_edge.rules",
    "upgrade": "mh_edge.models",
    "verify": "mh_edge.verification",
}
"""Public name -> the module it is fetched from on first use."""

__all__ = ["__version__", "layers", *_HOMES]


def __getattr__(name: str) -> Any:
    if name == "layers":
        return importlib.import_module("mh_edge.layers")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
