"""qnn-a16w8: 8-bit weights and 16-bit activations as Qualcomm's QNN wants them in an .onnx file.

What QNN wants (unsigned types, Sigmoid and Tanh with scales of their own, products per tensor) comes from
onnxruntime's get_qnn_qdq_config; masks are made small as in int8-a16. QNN compiles for fixed sizes.
"""

from __future__ import annotations

from mh_edge.artifact import Artifact
from mh_edge.errors import InputError
from mh_edge.packages import require
from mh_edge.quantization.onnx import qdq
from mh_edge.quantization.onnx.model import nothing_to_quantize, saver
from mh_edge.quantization.onnx.schemes.int8_a16 import SLOW, observe, sorted_out
from mh_edge.quantization.onnx.taming import tame
from mh_edge.quantization.onnx.unfit import HIDDEN_ROWS, holds_infinity
from mh_edge.quantization.scheme import KeptFloat, Options, Quantized, Ranges, scheme

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
    model = qdq.typed(qdq.opened(source))
    notes = (SLOW, *((HIDDEN_ROWS,) if holds_infinity(model) else ()))
    tamed = tame(model, ranges)
    config = qnn.get_qnn_qdq_config(
        tamed.model,
        None,  # calibrated already
        activation_type=quantization.QuantType.QUInt16,
        weight_type=quantization.QuantType.QUInt8,
        per_channel=options.per_channel,
    )
    chosen, kept = sorted_out(tamed, options, frozenset(config.op_types_to_quantize))
    if not chosen:
        raise nothing_to_quantize(source, "qnn-a16w8", "operation that has integers", kept)
    result = qdq.quantize(
        tamed.model,
        tamed.ranges,
        chosen,
        activations="QUInt16",
        weights="QUInt8",
        per_channel=options.per_channel,
        options=config.extra_options,
    )
    if not qdq.holds_integers(result):
        raise nothing_to_quantize(source, "qnn-a16w8", "operation that has integers", kept)
    return Quantized(
        saver(result),
        ranges=qdq.changes(result, ranges, rounded=tamed.why),
        kept_float=tuple(KeptFloat(name, why) for name, why in kept.items()),
        notes=notes,
    )


def _require_fixed(source: Artifact) -> None:
    """Raises InputError for a free size of an input, with what fixes it."""
    for tensor in source.inputs:
        for size in tensor.shape:
            if not isinstance(size, int):
                raise InputError(
                    f"{tensor.name} of {source.path} has the free size {size!r}; QNN compiles for fixed sizes.",
                    f"Export with {FREE_SIZES.get(size, f'--dim {size}=N')}.",
                )
