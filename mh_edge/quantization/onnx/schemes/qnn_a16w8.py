"""qnn-a16w8: 8-bit weights and 16-bit activations as Qualcomm's QNN wants them in an .onnx file.

What QNN wants (unsigned types, Sigmoid and Tanh with scales of their own, products per tensor) comes from
onnxruntime's get_qnn_qdq_config; masks are made small as in int8-a16. QNN compiles for fixed sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mh_edge.artifact import Artifact
from mh_edge.errors import InputError
from mh_edge.packages import require
from mh_edge.quantization.onnx.throughout import Target, observe, quantize
from mh_edge.quantization.scheme import Options, Quantized, Ranges, scheme

if TYPE_CHECKING:
    import onnx

FREE_SIZES = {"batch": "--batch 1", "sequence": "--sequence N"}
"""The options of `mh-edge export` that fix a size, by its name; any other takes --dim NAME=N."""


@scheme("onnx", "qnn-a16w8", calibrate=observe, options=("per_channel", "keep_float"))
def qnn_a16w8(source: Artifact, ranges: Ranges, options: Options) -> Quantized:
    """8-bit weights and 16-bit activations as Qualcomm's QNN wants them; every size must be fixed.

    per_channel: of convolutions; QNN has products per tensor only.
    """
    qnn = require("onnxruntime.quantization.execution_providers.qnn", "quantize,cpu", "the scheme qnn-a16w8")
    quantization = require("onnxruntime.quantization", "quantize,cpu", "the scheme qnn-a16w8")
    _require_fixed(source)

    def target(model: onnx.ModelProto) -> Target:
        config = qnn.get_qnn_qdq_config(
            model,
            None,  # calibrated already
            activation_type=quantization.QuantType.QUInt16,
            weight_type=quantization.QuantType.QUInt8,
            per_channel=options.per_channel,
        )
        return Target(frozenset(config.op_types_to_quantize), "QUInt8", config.extra_options)

    return quantize(source, ranges, options, "qnn-a16w8", target)


def _require_fixed(source: Artifact) -> None:
    """Raises InputError for a free size of an input, with what fixes it."""
    for tensor in source.inputs:
        for size in tensor.shape:
            if not isinstance(size, int):
                raise InputError(
                    f"{tensor.name} of {source.path} has the free size {size!r}; QNN compiles for fixed sizes.",
                    f"Export with {FREE_SIZES.get(size, f'--dim {size}=N')}.",
                )
