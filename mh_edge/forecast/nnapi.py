"""NNAPI, Android's interface to accelerators, deprecated since Android 15.

.onnx: operations by ONNX Runtime's own usability checker; types, ranks and MatMul by the op builders of its NNAPI
execution provider (microsoft/onnxruntime, core/providers/nnapi, of March 2026), which the checker leaves out. .tflite:
`Validate` of tflite/delegates/nnapi/nnapi_delegate.cc of LiteRT 2.3, for Android 13 and 14 (its newest feature level).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from mh_edge.forecast import usability
from mh_edge.forecast.delegate import Delegate, fixed_sizes, halves, main_graph, predicted, rank
from mh_edge.forecast.graph import Graph, Node, first
from mh_edge.forecast.result import Forecast, Refusal

RANK = 4
QUANTIZED = "scales and groups of quantized nodes are not looked into"
DEPRECATED = "NNAPI is deprecated since Android 15: do not build on it anew"

ANY_TYPE = frozenset({"DequantizeLinear", "QuantizeLinear", "QLinearConv", "QLinearMatMul"})
"""ONNX operations for which it does not ask for a float32 as the first input."""

INT8 = frozenset({"int8", "uint8"})
QUANTIZED_TYPES = INT8 | {"int32"}  # int32: biases

FIXES = {
    "Attention": "export --runtime plugins",
    "DynamicQuantizeLinear": "quantize --scheme int8",
    "MatMulInteger": "quantize --scheme int8",
    "com.microsoft.MatMulNBits": "quantize --scheme int8",
}


def _typed(node: Node, graph: Graph) -> Refusal | None:
    """The first input is float32, or what Quantize- and DequantizeLinear take; Cast gives float32 or int32."""
    del graph
    head = node.input(0)
    if head is None:
        return None
    if node.op == "DequantizeLinear" and head.dtype not in QUANTIZED_TYPES:
        return Refusal(f"dtype {head.dtype}", "quantize --scheme int8")
    if node.op == "QuantizeLinear" and node.outputs[0].dtype not in INT8:
        return Refusal(f"dtype {node.outputs[0].dtype}", "quantize --scheme int8")
    if node.op not in ANY_TYPE and head.dtype != "float32":
        # Halves come of a scheme, so another one mends them.
        return Refusal(f"dtype {head.dtype}", "quantize --scheme int8" if head.dtype == "float16" else "")
    if node.op == "Cast" and node.outputs[0].dtype not in ("float32", "int32"):
        return Refusal(f"dtype {node.outputs[0].dtype}")
    return None


def _matmul(node: Node, graph: Graph) -> Refusal | None:
    """Two matrices, or two batches of them."""
    del graph
    left, right = node.input(0), node.input(1)
    if node.op != "MatMul" or left is None or right is None or left.rank is None or right.rank is None:
        return None
    if (left.rank == 2) == (right.rank == 2):
        return None
    return Refusal(f"a product of {left.rank} and {right.rank} dimensions")


def _onnx(graph: Graph) -> Forecast:
    known = usability.listed(lambda checker, model: checker.check_nnapi_partitions(model, False), "NNAPI", FIXES)
    checks = (main_graph, known, _typed, lambda node, _: rank(node, RANK), fixed_sizes, _matmul)
    quantized = any(node.op == "QuantizeLinear" for node in graph.nodes)
    return predicted(
        graph,
        partial(first, checks=checks),
        usability.basis("NNAPI"),
        (DEPRECATED, *([QUANTIZED] if quantized else [])),
    )


BASIS = "the list of operations of LiteRT 2.3's NNAPI delegate (nnapi_delegate.cc), read for Android 13 and 14"


@dataclass(frozen=True)
class Rule:
    """version: the newest of the operation that is known. types: of the first input. rank: the most dimensions."""

    version: int
    types: frozenset[str]
    rank: int = 4


def _rules(version: int, types: frozenset[str], operations: str, rank: int = 4) -> dict[str, Rule]:
    return dict.fromkeys(operations.split(), Rule(version, types, rank))


FLOAT = frozenset({"float32"})
EIGHT = FLOAT | INT8
WHOLE = EIGHT | {"int32"}
ANY = WHOLE | {"float16", "bool"}
RULES: Mapping[str, Rule] = {
    **_rules(2, WHOLE, "ADD ARG_MAX ARG_MIN TOPK_V2 SELECT"),
    **_rules(3, WHOLE, "MUL SUB MAXIMUM MINIMUM SQUARED_DIFFERENCE SPLIT SPLIT_V"),
    **_rules(
        2, EIGHT, "AVERAGE_POOL_2D MAX_POOL_2D HARD_SWISH SOFTMAX RELU RELU_N1_TO_1 RELU6 LOGISTIC TANH PAD PADV2"
    ),
    **_rules(2, EIGHT, "CONCATENATION STRIDED_SLICE QUANTIZE REDUCE_MAX REDUCE_MIN SPACE_TO_DEPTH DEPTH_TO_SPACE MEAN"),
    **_rules(2, EIGHT, "BATCH_MATMUL UNPACK LEAKY_RELU PRELU RSQRT"),
    **_rules(5, EIGHT, "CONV_2D FULLY_CONNECTED"),
    **_rules(3, EIGHT, "DEPTHWISE_CONV_2D RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR DEQUANTIZE"),
    **_rules(4, EIGHT, "TRANSPOSE_CONV"),
    **_rules(2, FLOAT, "DIV ABS EXP LOG POW SQRT SIN COS SUM REDUCE_PROD ELU LOG_SOFTMAX FLOOR L2_NORMALIZATION"),
    **_rules(2, WHOLE, "RESHAPE TILE SLICE GATHER EXPAND_DIMS CAST PACK FILL NEG"),
    **_rules(2, ANY, "TRANSPOSE LESS LESS_EQUAL GREATER GREATER_EQUAL EQUAL NOT_EQUAL SQUEEZE BATCH_TO_SPACE_ND"),
    **_rules(2, frozenset({"bool"}), "LOGICAL_OR LOGICAL_AND LOGICAL_NOT"),
    **_rules(2, frozenset({"bool"}), "REDUCE_ANY REDUCE_ALL"),
    **_rules(2, FLOAT, "UNIDIRECTIONAL_SEQUENCE_LSTM UNIDIRECTIONAL_SEQUENCE_RNN"),
}
VALUE = {"SPLIT": 1, "TRANSPOSE_CONV": 2, "SELECT": 1}
"""Which input is the one with the values, where that is not the first."""

CONSTANT = {"RESHAPE": 1, "TRANSPOSE": 1, "EXPAND_DIMS": 1, "RESIZE_BILINEAR": 1, "TOPK_V2": 1}
"""Which input must be stored in the file."""

INT32_ONLY = {"GATHER": 1, "EXPAND_DIMS": 1, "SLICE": 1, "TILE": 1, "SPLIT": 0}
"""Which input must be int32."""


def _ruled(node: Node, graph: Graph) -> Refusal | None:
    del graph
    rule = RULES.get(node.op)
    if rule is None:
        return Refusal("NNAPI has no such operation")
    value = node.input(VALUE.get(node.op, 0))
    if value is not None and value.dtype not in rule.types:
        fix = "quantize --scheme int8" if value.dtype == "int16" else ""
        return Refusal(f"dtype {value.dtype}", fix)
    if node.version > rule.version:
        return Refusal(f"version {node.version} of the operation, {rule.version} is the newest that it knows")
    constant = node.input(CONSTANT.get(node.op, -1)) if node.op in CONSTANT else None
    if constant is not None and not constant.constant:
        return Refusal("a shape that is computed")
    index = node.input(INT32_ONLY[node.op]) if node.op in INT32_ONLY else None
    if index is not None and index.dtype != "int32":
        return Refusal(f"dtype {index.dtype}")
    if node.op == "CONV_2D" and len(node.given) < 3:
        return Refusal("a convolution without a bias")
    return rank(node, rule.rank)


def _tflite(graph: Graph) -> Forecast:
    return predicted(graph, halves(graph, partial(first, checks=(_ruled, fixed_sizes))), BASIS, (DEPRECATED,))


DELEGATES = (Delegate("nnapi", "onnx", _onnx), Delegate("nnapi", "tflite", _tflite))
