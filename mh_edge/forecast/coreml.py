"""CoreML, for Apple's Neural Engine and GPU.

.onnx: operations by ONNX Runtime's own usability checker, for both forms of a CoreML model ("coreml" is MLProgram,
which iOS 15 and newer run; "coreml-neuralnetwork" the older one); types, ranks and free sizes by the op builders of its
CoreML execution provider (microsoft/onnxruntime, core/providers/coreml, of March 2026), which the checker leaves out.
.tflite: tflite/delegates/coreml (coreml_delegate.mm and builders/) of LiteRT 2.3, for Core ML 3.
"""

from __future__ import annotations

from functools import partial
from math import prod

from mh_edge.forecast import usability
from mh_edge.forecast.delegate import Delegate, fixed_sizes, halves, main_graph, names, predicted, rank
from mh_edge.forecast.graph import Graph, Node, Tensor, first
from mh_edge.forecast.result import Forecast, Refusal

RANK = 5
FIXES = {
    "Attention": "export --runtime plugins",
    "DynamicQuantizeLinear": "quantize --scheme fp16",
    "MatMulInteger": "quantize --scheme fp16",
    "QuantizeLinear": "quantize --scheme fp16",
    "DequantizeLinear": "quantize --scheme fp16",
    "com.microsoft.MatMulNBits": "quantize --scheme fp16",
}

FLOATS = frozenset({"float32", "float16"})
NUMBERS = FLOATS | {"int64"}
TYPES = {
    "Cast": NUMBERS | {"int32"},
    "Shape": NUMBERS | {"int32"},
    "Where": frozenset({"bool"}),
    "And": frozenset({"bool"}),
}
"""Types of the first input in an MLProgram where they are not NUMBERS."""

STATIC = ("Slice", "Reshape")
"""Operations whose builders ask for a fixed size of the first input."""


def _typed(node: Node, graph: Graph, program: bool) -> Refusal | None:
    """program: an MLProgram, not a NeuralNetwork."""
    head = node.input(0)
    if head is None:
        return None
    allowed = TYPES.get(node.op, NUMBERS) if program else frozenset({"float32"})
    if head.dtype not in allowed:
        return Refusal(f"dtype {head.dtype}")
    if node.op == "Cast" and head.name not in graph.maker:
        return Refusal("a Cast of an input of the model")
    if node.op == "Cast" and node.outputs[0].dtype not in allowed:
        return Refusal(f"dtype {node.outputs[0].dtype}")
    return None


def _static(node: Node, graph: Graph) -> Refusal | None:
    return fixed_sizes(node, graph) if node.op in STATIC or any(item.shape is None for item in node.given) else None


def _constants(node: Node, graph: Graph, program: bool) -> Refusal | None:
    """A NeuralNetwork multiplies by constants only."""
    del graph
    weight = node.input(1)
    if program or node.op not in ("MatMul", "Gemm") or weight is None or weight.constant:
        return None
    return Refusal("a product with something that is no constant")


def _onnx(graph: Graph, program: bool) -> Forecast:
    form = "mlprogram" if program else "neuralnetwork"
    known = usability.listed(
        lambda checker, model: checker.check_coreml_partitions(model, False, f"coreml_supported_{form}_ops.md"),
        f"CoreML's {form}",
        FIXES,
    )
    checks = (
        main_graph,
        known,
        partial(_typed, program=program),
        lambda node, _: rank(node, RANK),
        partial(_constants, program=program),
        _static,
    )
    notes = ("free sizes cost CoreML speed: fix them, if they can be",) if graph.free else ()
    return predicted(graph, partial(first, checks=checks), usability.basis(f"CoreML, {form}"), notes)


BASIS = "the list of operations of LiteRT 2.3's Core ML delegate (coreml_delegate.mm), read for Core ML 3"
LEAST, LONE = 2, "alone between others: by default it takes no partition of one node"

VERSIONS = dict.fromkeys(
    names(
        "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D HARD_SWISH LOGISTIC MAX_POOL_2D MIRROR_PAD MEAN MUL PAD PADV2 RELU "
        "RELU_N1_TO_1 RELU6 RESIZE_BILINEAR SOFTMAX TANH TRANSPOSE_CONV"
    ),
    1,
) | {"DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 6}
"""The newest version of each operation that it takes. RESHAPE it takes for Core ML 2 only."""

VALUE = {"TRANSPOSE_CONV": 2}
QUANTIZED = frozenset({"int8", "uint8", "int16"})
"""Types that quantizing makes; float files compute indices in others."""
ONE_SAMPLE = "more than one row: its FULLY_CONNECTED takes a single vector"


def _listed(node: Node, graph: Graph) -> Refusal | None:
    del graph
    known = VERSIONS.get(node.op)
    if known is None:
        return Refusal("the Core ML delegate has no such operation")
    if node.version > known:
        return Refusal(f"version {node.version} of the operation, {known} is the newest that it knows")
    value = node.input(VALUE.get(node.op, 0))
    if value is not None and value.dtype != "float32":
        mends = "the float file, or quantize --scheme fp16" if value.dtype in QUANTIZED else ""
        return Refusal(f"dtype {value.dtype}", mends)
    return None


def _shaped(node: Node, graph: Graph) -> Refusal | None:
    del graph
    shapes = [_sizes(tensor) for tensor in node.given]
    if node.op == "FULLY_CONNECTED" and prod(shapes[0][:-1]) != 1:
        return Refusal(ONE_SAMPLE)
    if node.op == "FULLY_CONNECTED" and not node.given[1].constant:
        return Refusal("weights that are computed")
    if node.op in ("ADD", "MUL") and (max(map(len, shapes)) > 4 or not _broadcast(node, shapes)):
        return Refusal("shapes that it cannot broadcast")
    if node.op == "CONCATENATION" and len(shapes[0]) not in (3, 4):
        return Refusal(f"{len(shapes[0])} dimensions, 3 or 4 are taken")
    if node.op in ("MEAN", "MIRROR_PAD", "PAD", "PADV2") and len(shapes[0]) != 4:
        return Refusal(f"{len(shapes[0])} dimensions, 4 are taken")
    return None


def _sizes(tensor: Tensor) -> tuple[int, ...]:
    """Free sizes count as more than one."""
    return tuple(size if isinstance(size, int) else 2 for size in tensor.shape or ())


def _broadcast(node: Node, shapes: list[tuple[int, ...]]) -> bool:
    """Sizes (batch, height, width, channel): equal, or a constant scalar, or one image of 1x1, or one channel."""
    left, right = ((1,) * (4 - len(shape)) + shape for shape in shapes[:2])
    scalar = any(tensor.constant and prod(shape) == 1 for tensor, shape in zip(node.given, shapes, strict=False))
    if left[0] != right[0] and not scalar:
        return False
    images = left[1:3], right[1:3]
    return (images[0] == images[1] or (1, 1) in images) and (left[3] == right[3] or 1 in (left[3], right[3]))


def _tflite(graph: Graph) -> Forecast:
    check = halves(graph, partial(first, checks=(_listed, fixed_sizes, _shaped)))
    return predicted(graph, check, BASIS, dropped=lambda parts: [part for part in parts if len(part) < LEAST], why=LONE)


DELEGATES = (
    Delegate("coreml", "onnx", partial(_onnx, program=True)),
    Delegate("coreml-neuralnetwork", "onnx", partial(_onnx, program=False)),
    Delegate("coreml", "tflite", _tflite),
)
