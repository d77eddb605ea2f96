"""int8-a16: 8-bit weights and 16-bit activations by calibrated ranges, for targets that compute in integers throughout.

x ≈ s · (q − z),    q in 0 … 65535: 256 times the resolution of int8, for the softmax and its mask as well
"""

from __future__ import annotations

from mh_edge.artifact import Artifact
from mh_edge.packages import require
from mh_edge.quantization.onnx.throughout import Target, observe, quantize
from mh_edge.quantization.scheme import Options, Quantized, Ranges, scheme


@scheme("onnx", "int8-a16", calibrate=observe, options=("per_channel", "keep_float"))
def int8_a16(source: Artifact, ranges: Ranges, options: Options) -> Quantized:
    """Weights in 8-bit, activations in 16-bit integers throughout, attention masks included."""
    registry = require("onnxruntime.quantization.registry", "quantize,cpu", "the scheme int8-a16")
    target = Target(registry.QDQRegistry.keys() | registry.QLinearOpsRegistry.keys())
    return quantize(source, ranges, options, "int8-a16", lambda model: target)
