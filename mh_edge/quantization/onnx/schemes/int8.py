"""int8: products in 8-bit integers, each activation by the range that it has on calibration data.

    y = sx · sw · Σ (qx − zx) · qw + bias,    x ≈ sx · (qx − zx) by the range of x, w ≈ sw · qw by that of its channel

What enters a product is rounded; what leaves it is float, and so are the sums, the normalizations, the softmax and the
mask between products: rounding them costs accuracy, and ONNX Runtime gains nothing by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mh_edge.artifact import Artifact
from mh_edge.quantization.onnx import calibration, masks, qdq
from mh_edge.quantization.onnx.matmuls import fold_transposes
from mh_edge.quantization.onnx.model import (
    INNER,
    TOO_SMALL,
    Weighted,
    nodes,
    nothing_to_quantize,
    saver,
    tiny,
    weighted,
)
from mh_edge.quantization.onnx.products import as_gemms
from mh_edge.quantization.onnx.schemes.int8_dynamic import LEAST_UNITS
from mh_edge.quantization.onnx.unfit import HIDDEN_ROWS, holds_infinity, unfit
from mh_edge.quantization.scheme import ASKED, Arrays, KeptFloat, Options, Quantized, Ranges, belongs, scheme

if TYPE_CHECKING:
    import onnx

SLOTS = {"MatMul": 1, "Gemm": 1, "Conv": 1, "Gather": 0}
"""Which input of an operation is its weight."""

FLOAT_RESULTS = ("MatMul", "Gemm")
"""ONNX Runtime has kernels for these from integers to float; a convolution gives integers."""

FOLLOWING = frozenset(("Clip", "Flatten", "MaxPool", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"))
"""Behind a convolution these work on its integers; Relu and Clip become the range that it ends in."""

FLOAT_ONLY = {
    "ConvTranspose": "ONNX Runtime computes it in float from dequantized weights: 1.3 to 1.4 times as slow",
    "LSTM": "ONNX Runtime has no LSTM for calibrated ranges; the scheme int8-dynamic quantizes the weights of one with "
    f"{LEAST_UNITS} units or more",
    "GRU": "ONNX Runtime has no GRU in integers",
    "RNN": "ONNX Runtime has no RNN in integers",
}

UNKNOWN = "ONNX's shape inference does not know the type of what it takes or gives, so that no range could be seen"
ROW = "it takes one row without an axis for more; ONNX Runtime would compute it in float from dequantized weights"
SCORES = "the softmax tells apart what differs by less than an integer's step"
MASKED = "the mask's range would leave the scores a few of 255 steps"
BOTH_COMPUTED = "a product of two activations, no weight: integers cost accuracy here and were not faster"


def opened(source: Artifact) -> onnx.ModelProto:
    """The model with its products as Gemm, all those of two matrices: ONNX Runtime would make a Gemm of a MatMul and an
    Add of anything, or of a Gemm and a Sum, before it looks for integers, and find none for it.
    """
    model = qdq.opened(source)
    fold_transposes(model)
    model = qdq.typed(as_gemms(model))
    ranks = _ranks(model)
    for one in weighted(model, SLOTS):
        if one.node.op_type == "MatMul" and (ranks.get(one.node.input[0]), len(one.weight.dims)) == (2, 2):
            one.node.op_type = "Gemm"
    for node in nodes(model):
        if node.op_type == "Sum" and len(node.input) == 2:
            node.op_type = "Add"
    return model


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    """How many axes a tensor has, of those whose shape is known."""
    values = ((one.name, one.type.tensor_type) for one in (*model.graph.input, *model.graph.value_info))
    return {name: len(tensor.shape.dim) for name, tensor in values if tensor.HasField("shape")}


def observe(source: Artifact, options: Options, batches: Iterable[Arrays]) -> Ranges:
    """The ranges of what enters and leaves products with weights, and of the scores of attentions."""
    model = opened(source)
    products = [one.node for one in weighted(model, SLOTS)]
    tensors = {name for node in (*products, *_following(model, products)) for name in _rounded(node)}
    for softmax in masks.find(model):
        tensors.update((*softmax.tensors, *(mask.operand for mask in softmax.masks)))
    return calibration.observe(model, tensors, batches)


@scheme("onnx", "int8", calibrate=observe, options=("per_channel", "keep_float"))
def int8(source: Artifact, ranges: Ranges, options: Options) -> Quantized:
    """Weights and what enters products in 8-bit integers, activations by ranges seen on calibration data."""
    model = opened(source)
    found = weighted(model, SLOTS)
    kept, hidden = _kept(model, found, ranges, options)
    chosen = [one.node for one in found if one.node.name not in kept]
    if not chosen:
        raise nothing_to_quantize(source, "int8", "product, convolution or table", kept)
    result = qdq.quantize(
        model,
        ranges,
        [node.name for node in (*chosen, *_following(model, chosen))],
        activations="QUInt8",
        per_channel=options.per_channel,
        float_results=FLOAT_RESULTS,
    )
    left = {name: kept[one.node.name] for one in found if one.node.name in kept for name in _rounded(one.node)} | hidden
    return Quantized(
        saver(result),
        ranges=qdq.changes(result, ranges, left=left),
        kept_float=tuple(KeptFloat(name, why) for name, why in {**kept, **hidden}.items()),
        notes=(HIDDEN_ROWS,) if holds_infinity(model) else (),
    )


def _rounded(node: onnx.NodeProto) -> tuple[str, ...]:
    """The activations that go through an integer type around an operation."""
    if node.op_type == "Gather":  # its results are numbers of the table, rounded already
        return ()
    return tuple(node.input[:1]) if node.op_type in FLOAT_RESULTS else (node.input[0], node.output[0])


def _following(model: onnx.ModelProto, products: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The operations that go on in the integers of a convolution."""
    integers = {node.output[0] for node in products if node.op_type == "Conv"}
    found = []
    for node in model.graph.node:
        if node.op_type in FOLLOWING and node.input[0] in integers:
            integers.add(node.output[0])
            found.append(node)
    return found


def _kept(
    model: onnx.ModelProto, found: list[Weighted], ranges: Ranges, options: Options
) -> tuple[dict[str, str], dict[str, str]]:
    """Operation -> why it stays in float; tensor -> why it does. found: the operations with weights."""
    small, outermost = tiny(found), {node.name for node in model.graph.node}
    kept, ranks = unfit(model, (one.node for one in found)), _ranks(model)
    for one in found:
        if belongs(one.node.name, options.keep_float):
            kept[one.node.name] = ASKED
        elif one.node.name in small:
            kept[one.node.name] = TOO_SMALL
        elif one.node.name not in outermost:
            kept[one.node.name] = INNER
        elif any(name not in ranges for name in _rounded(one.node)):
            kept[one.node.name] = UNKNOWN
        elif one.node.op_type == "MatMul" and ranks.get(one.node.input[0]) == 1:
            kept[one.node.name] = ROW
    hidden: dict[str, str] = {}
    for softmax in masks.find(model, ranges):
        made_by = f"{softmax.rule}: " if softmax.rule else ""
        hidden |= dict.fromkeys(softmax.tensors, made_by + SCORES)
        hidden |= {name: made_by + MASKED for step in softmax.masks for name in (step.operand, step.tensor)}
    weights = {one.node.name for one in found}
    for node in nodes(model):
        if node.op_type in FLOAT_ONLY:
            kept[node.name] = FLOAT_ONLY[node.op_type]
        elif node.op_type == "MatMul" and node.name not in weights:
            kept[node.name] = BOTH_COMPUTED
    for node in masks.fused(model):
        kept[node.name] = "one operation with its scores, mask and softmax inside, which has no integer form"
    return kept, hidden
