"""LiteRT's GPU delegate (ML Drift: OpenCL, Vulkan, Metal, WebGPU).

Operations and conditions: ml_drift_delegate/tflite/model_builder.cc and tflite/tools/versioning/gpu_compatibility.cc of
LiteRT 2.3; its default of one partition in each graph, and bodies of loops as graphs of their own, as the delegate of
ai-edge-litert 2.3.0 reported for the demo models. (The analyzer in that wheel calls any file compatible, a WHILE too:
it is not asked.)
"""

from __future__ import annotations

from functools import partial

from mh_edge.forecast.delegate import Delegate, Parts, halves, names, predicted, rank
from mh_edge.forecast.graph import Graph, Node, first
from mh_edge.forecast.result import Forecast, Refusal

BASIS = "the list of operations of LiteRT 2.3's GPU delegate (ML Drift, model_builder.cc) and their conditions"
ONE_PART = "another partition is larger, and by default one of each graph goes to the GPU"
FREE_SIZES = "free sizes are taken as they stand in the file: others compile it anew"
ABORTS = "LiteRT 2.3 aborts the whole program over a BATCH_MATMUL of one tensor with itself"
RANK, AXIS_RANK = 5, 4  # by axis it knows tensors of four dimensions only

FLOATS = frozenset({"float32", "float16"})
INTEGERS = frozenset({"int8", "int16", "int32"})
QUANTIZED = frozenset({"int8", "uint8", "int4", "int2"})
DATA = FLOATS | QUANTIZED | {"bool"}


COMPARISONS = names("EQUAL NOT_EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL")
LOGICAL = names("LOGICAL_AND LOGICAL_OR LOGICAL_NOT REDUCE_ALL REDUCE_ANY")
ANY_TYPE = names(
    "CAST CONCATENATION DYNAMIC_UPDATE_SLICE GATHER PACK PAD PADV2 RESHAPE REVERSE_V2 SELECT SELECT_V2 SLICE"
    " STRIDED_SLICE TRANSPOSE BITCAST"
)
WHOLE_NUMBERS = names(
    "ABS ADD ATAN2 COS DIV FLOOR_DIV FLOOR_MOD MAXIMUM MINIMUM MUL NEG REDUCE_MAX REDUCE_MIN REDUCE_PROD RIGHT_SHIFT"
    " SIGN SIN SUB SUM TILE"
)
IDS = names("EMBEDDING_LOOKUP ONE_HOT")
OPERATIONS = (
    COMPARISONS
    | LOGICAL
    | ANY_TYPE
    | WHOLE_NUMBERS
    | IDS
    | names(
        "ADD_N ARG_MAX AVERAGE_POOL_2D BATCH_MATMUL BITWISE_XOR CEIL CONV_2D CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE"
        " DEQUANTIZE ELU EXP FLOOR FULLY_CONNECTED GELU HARD_SWISH LEAKY_RELU LOG LOGISTIC LSTM MAX_POOL_2D MEAN"
        " MIRROR_PAD POW PRELU QUANTIZE RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR"
        " ROUND RSQRT SOFTMAX SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE TANH TOPK_V2 TRANSPOSE_CONV"
        " UNPACK"
    )
)
REDUCED = names("MEAN SUM REDUCE_MAX REDUCE_MIN REDUCE_PROD REDUCE_ALL REDUCE_ANY REVERSE_V2")
PAIRED = (COMPARISONS | LOGICAL | WHOLE_NUMBERS | {"POW", "SQUARED_DIFFERENCE"}) - {"ADD", "MUL"}
"""Operations that do not take the same tensor twice."""

ALONG_AN_AXIS = names("ARG_MAX PACK SPLIT SPLIT_V TRANSPOSE UNPACK")
FIX_16 = "quantize --scheme int8, or fp16"


def _listed(node: Node, graph: Graph) -> Refusal | None:
    del graph
    return None if node.op in OPERATIONS else Refusal("the GPU delegate has no such operation")


def _typed(node: Node, graph: Graph) -> Refusal | None:
    del graph
    into = set(DATA)
    out = set(FLOATS | (QUANTIZED - {"int4", "int2"}))
    if node.op in WHOLE_NUMBERS:
        into, out = into | INTEGERS, out | INTEGERS
    if node.op in ANY_TYPE:
        into, out = into | INTEGERS | {"uint16", "uint32"}, out | INTEGERS | {"uint16", "uint32", "bool"}
    if node.op in COMPARISONS:
        into, out = into | INTEGERS, out | {"bool"}
    if node.op in LOGICAL:
        into, out = into | INTEGERS, out | INTEGERS | {"bool"}
    if node.op in IDS:
        into |= {"int32"}
    if node.op in ("ARG_MAX", "TOPK_V2"):
        out |= {"int32"}
    if node.op == "DEQUANTIZE":
        into -= {"int16"}
    wrong = [item.dtype for item in node.computed if item.dtype not in into]
    wrong += [item.dtype for item in node.outputs if item.dtype not in out]
    return Refusal(f"dtype {wrong[0]}", FIX_16 if wrong[0] == "int16" else "") if wrong else None


def _shaped(node: Node, graph: Graph) -> Refusal | None:
    del graph
    head, second = node.input(0), node.input(1)
    if node.op in ("SLICE", "STRIDED_SLICE") and not all(item.constant for item in node.given[1:]):
        return Refusal("a slice whose place is computed")
    if node.op == "STRIDED_SLICE" and head is not None and node.outputs[0].rank != head.rank:
        return Refusal("a slice that drops a dimension")
    if node.op == "GATHER" and second is not None and (second.rank != 1 or second.dtype != "int32"):
        return Refusal("indices that are not one row of int32")
    if node.op in REDUCED and second is not None and not second.constant:
        return Refusal("axes that are computed")
    if node.op in PAIRED and _twice(node):
        return Refusal("the same tensor twice")
    if node.op in ("SELECT", "SELECT_V2"):
        whole = node.outputs[0].shape
        if any(item.shape not in (whole, (), (1,)) for item in node.given[1:]):
            return Refusal("branches of other sizes than the result")
    return rank(node, AXIS_RANK if node.op in REDUCED | ALONG_AN_AXIS else RANK)


def _twice(node: Node) -> bool:
    return len(node.computed) == 2 and node.computed[0].name == node.computed[1].name


def _smaller(parts: Parts) -> Parts:
    """All but the largest part of each graph."""
    largest: dict[int, list[Node]] = {}
    for part in parts:
        body = part[0].body
        if len(part) > len(largest.get(body, ())):
            largest[body] = part
    return [part for part in parts if part is not largest[part[0].body]]


def _tflite(graph: Graph) -> Forecast:
    check = halves(graph, partial(first, checks=(_listed, _typed, _shaped)))
    if any(node.op == "BATCH_MATMUL" and _twice(node) for node in graph.nodes):
        return predicted(graph, lambda node, graph: Refusal(ABORTS), BASIS)
    notes = [FREE_SIZES] if graph.free else []
    if any(node.op == "CUMSUM" for node in graph.nodes):
        notes.append("its CUMSUM has given wrong numbers: compare them on the device")
    return predicted(graph, check, BASIS, tuple(notes), dropped=_smaller, why=ONE_PART)


DELEGATES = (
    Delegate("litert-gpu", "onnx", "LiteRT's GPU delegate takes .tflite files: mh-edge export --to tflite."),
    Delegate("litert-gpu", "tflite", _tflite),
)
