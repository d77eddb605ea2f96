"""Why XNNPACK does not take an operation: what the graph tells, since the interpreter says nothing."""

from __future__ import annotations

from mh_edge.runtimes.lite.nodes import CONTROL_FLOW, Node

TAKEN = frozenset((
    "ABS", "ADD", "ASSIGN_VARIABLE", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CEIL", "CONCATENATION", "CONV_2D", "COS",
    "DENSIFY", "DEPTH_TO_SPACE", "DEPTHWISE_CONV_2D", "DEQUANTIZE", "DIV", "ELU", "EXP", "EXPAND_DIMS", "FLOOR",
    "FULLY_CONNECTED", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "MAX_POOL_2D", "MAXIMUM", "MEAN",
    "MINIMUM", "MUL", "NEG", "PAD", "PRELU", "QUANTIZE", "READ_VARIABLE", "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6",
    "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR", "ROUND", "RSQRT", "SIN", "SLICE", "SOFTMAX", "SPACE_TO_DEPTH",
    "SPLIT", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "STABLEHLO_COMPOSITE", "STRIDED_SLICE", "SUB", "SUM", "TANH",
    "TRANSPOSE", "TRANSPOSE_CONV", "VAR_HANDLE",
))  # fmt: skip
"""The operations that XNNPACK's delegate takes in some types and shapes, by its source in LiteRT 2.3."""

NUMBERS = frozenset(("float32", "float16", "int8", "uint8", "int4"))
"""The types it computes in."""

FLOAT_ONLY = ("SOFTMAX", "AVERAGE_POOL_2D", "SQUARED_DIFFERENCE")
"""Those of its operations that it does not compute in int8."""


def why_not(node: Node) -> str:
    """Empty where the graph does not tell."""
    if node.op in CONTROL_FLOW:
        return "XNNPACK takes no control flow"
    if node.op not in TAKEN:
        return "XNNPACK has no such operation"
    if others := [dtype for dtype in node.dtypes if dtype not in NUMBERS]:
        return f"XNNPACK does not compute in {others[0]}"
    if "int8" in node.dtypes and node.op in FLOAT_ONLY:
        return f"XNNPACK computes {node.op} in float only"
    if node.op == "BATCH_MATMUL" and "int8" in node.dtypes and any(node.zero_points[1:]):
        return "XNNPACK multiplies in int8 only where the zero point of the right side is 0"
    return ""
