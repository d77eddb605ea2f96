"""Which operations of an ONNX graph cannot be trusted to 16-bit floats.

A 16-bit float has 11 significant bits, from 6e-8 to 65504: at -10000, where a mask lies, its step is 8, so that the
scores of a row that is masked everywhere are gone after the sum; -1e9 becomes -infinity, and such a row NaN.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from mh_edge.quantization.onnx.masks import FUSED, PRODUCTS
from mh_edge.quantization.onnx.model import weights
from mh_edge.quantization.scheme import ASKED

if TYPE_CHECKING:
    import onnx

LARGEST = 65504.0
SMALLEST = 2.0**-14
"""Of the numbers with full precision; a constant whose largest number is below it loses digits."""

PROJECTIONS = 3
"""A fused attention takes queries, keys and values first; masks and biases follow."""

SOFTMAXES = frozenset(("Exp", "LogSoftmax", "Softmax"))
SIZES = frozenset(("Shape", "Size"))
ANGLES = frozenset(("Cos", "Sin"))
SUMS = frozenset(("CumSum", "ReduceL2", "ReduceProd", "ReduceSum", "ReduceSumSquare"))
SQUARES = frozenset(("Mul", "Pow"))
VARIANCE = SQUARES | {"Add", "Div", "ReduceMean", "ReduceSum"}
"""What stands between x and the square root in a normalisation that is written out."""

WHY = {
    "keep_float": ASKED,
    "softmax": "between scores and softmax: in 16 bits a mask of -10000 rounds the scores to multiples of 8, "
    "a larger one is infinite",
    "attention": "its mask is added to the scores inside: in 16 bits -10000 rounds them to multiples of 8",
    "angle": "the argument of a sine: in 16 bits a large angle has no fraction",
    "sum": "sums and their quotients, as of a mean: they leave the range of 16 bits (65504) soonest",
    "variance": "the variance of a normalisation: squares leave the range of 16 bits, and its epsilon vanishes there",
    "body": "the body of a loop or branch stays as it is",
    "domain": "ONNX Runtime's own operation; whether it has a 16-bit form differs by processor",
    "type": "ONNX defines it for no 16-bit floats",
    "constant": "a constant of it is outside the range of 16 bits (6e-5 to 65504)",
}


def kept_float(model: onnx.ModelProto) -> dict[str, str]:
    """The operations of the main graph that stay in 32 bits -> why."""
    makers = {name: node for node in model.graph.node for name in node.output}
    constants = weights(model)
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 1)
    beyond = {name for name, tensor in constants.items() if _out_of_range(tensor)}
    kept: dict[str, str] = {}
    for node in model.graph.node:
        why = _reason(node, opset, beyond)
        behind: dict[str, str] = {}
        if node.op_type in SOFTMAXES | ANGLES:
            behind = dict.fromkeys(_behind(node.input, makers), why)
        elif node.op_type in FUSED and any(node.input[PROJECTIONS:]):
            why, behind = "attention", dict.fromkeys(_behind(node.input[PROJECTIONS:], makers), "softmax")
        elif node.op_type == "Sqrt":
            why, behind = "variance", dict.fromkeys(_variance(node.input, makers), "variance")
        elif node.op_type == "Div" and any(makers[name].op_type in SUMS for name in node.input if name in makers):
            why = "sum"
        for name, reason in {**({node.name: why} if why else {}), **behind}.items():
            kept.setdefault(name, WHY[reason])
    return kept


def _reason(node: onnx.NodeProto, opset: int, beyond: set[str]) -> str:
    if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
        return "body"
    if node.domain not in ("", "ai.onnx"):
        return "domain"
    if node.op_type in SOFTMAXES:
        return "softmax"
    if node.op_type in ANGLES:
        return "angle"
    if node.op_type in SUMS:
        return "sum"
    if not beyond.isdisjoint(node.input) or any(_out_of_range(attribute.t) for attribute in node.attribute):
        return "constant"
    return "" if _takes_halves(node, opset) else "type"


def _behind(tensors: Iterable[str], makers: dict[str, onnx.NodeProto]) -> Iterable[str]:
    """The operations behind the tensors, up to the products that made the scores; sizes need no numbers."""
    pending, seen = list(tensors), set[str]()
    while pending:
        node = makers.get(pending.pop())
        if node is None or node.name in seen or node.op_type in PRODUCTS | SIZES:
            continue
        seen.add(node.name)
        yield node.name
        pending.extend(node.input)


def _variance(tensors: Iterable[str], makers: dict[str, onnx.NodeProto]) -> Iterable[str]:
    """The operations between a square root and the squares, those included; nothing where there are no squares."""
    pending, found = list(tensors), dict[str, str]()
    while pending:
        node = makers.get(pending.pop())
        if node is not None and node.name not in found and node.op_type in VARIANCE:
            found[node.name] = node.op_type
            pending.extend(() if node.op_type in SQUARES else node.input)
    return found if not SQUARES.isdisjoint(found.values()) else ()


def _out_of_range(tensor: onnx.TensorProto) -> bool:
    from onnx import TensorProto, numpy_helper

    if tensor.data_type != TensorProto.FLOAT:
        return False
    values = np.abs(numpy_helper.to_array(tensor))
    largest = float(values[np.isfinite(values)].max(initial=0.0))
    return largest > LARGEST or 0 < largest < SMALLEST


def _takes_halves(node: onnx.NodeProto, opset: int) -> bool:
    """Whether every input of an operation that may be a 32-bit float may be a 16-bit one."""
    import onnx

    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return False
    allowed = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
    types = [allowed.get(item.type_str, [item.type_str]) for item in schema.inputs]
    return all("tensor(float16)" in some for some in types if "tensor(float)" in some)
