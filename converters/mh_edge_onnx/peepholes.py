"""Operations that change nothing, or that one operation says: each function here takes a node and gives the value that
its result may be replaced by, or None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from mh_edge_onnx.activations import gelu
from mh_edge_onnx.initializers import constant

_ROUNDING = 1e-6
"""How far the constants of a formula may be from what they stand for, relative: they were float32 somewhere."""

_EXACT = {
    ir.DataType.BOOL: {ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.DOUBLE},
    ir.DataType.INT32: {ir.DataType.INT64, ir.DataType.DOUBLE},
    ir.DataType.FLOAT: {ir.DataType.DOUBLE},
}
"""Dtype -> those that hold each of its numbers."""


def simplify(model: ir.Model) -> None:
    """Replace until nothing changes, in place; nodes that nothing needs any more stay for now."""
    graph = model.graph
    changed = True
    while changed:
        changed = False
        for node in list(graph):
            result = node.outputs[0]
            look = _LOOKS.get(node.op_type) if node.domain == "" else None
            if look is None or not (result.uses() or result.is_graph_output()):
                continue
            if (value := look(graph, node)) is not None and value is not result:
                result.replace_all_uses_with(value, replace_graph_outputs=True)
                changed = True


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type and node.domain == "" else None


def _number(value: ir.Value | None) -> float | None:
    """The one number that a constant holds. A weight is none: operations must not depend on how it was trained."""
    tensor = None if value is None else value.const_value
    return (
        None
        if tensor is None or isinstance(tensor, ir.LazyTensor) or tensor.size != 1
        else float(tensor.numpy().item())
    )


def _neutral(number: float, *, either: bool) -> Callable[[ir.Graph, ir.Node], ir.Value | None]:
    """x + 0, x - 0, x 1, x / 1; where `either`, the other way round too."""

    def look(graph: ir.Graph, node: ir.Node) -> ir.Value | None:
        del graph
        left, right = node.inputs
        for value, other in ((left, right), (right, left))[: 2 if either else 1]:
            if value is None or other is None or value.shape is None or other.shape is None:
                continue
            if _number(other) == number and len(other.shape) <= len(value.shape) and not value.is_initializer():
                return value
        return None

    return look


def _twice_the_same(graph: ir.Graph, node: ir.Node) -> ir.Value | None:
    """x or x, x and x."""
    del graph
    return node.inputs[0] if node.inputs[0] is node.inputs[1] else None


def _not(graph: ir.Graph, node: ir.Node) -> ir.Value | None:
    """not not x."""
    del graph
    inner = _producer(node.inputs[0], "Not")
    return None if inner is None else inner.inputs[0]


def _cast(graph: ir.Graph, node: ir.Node) -> ir.Value | None:
    """To the dtype that is there already; or back from one that holds all its numbers."""
    del graph
    value, wanted = node.inputs[0], node.attributes["to"].as_int()
    if value is not None and value.dtype == wanted:
        return value
    inner = _producer(value, "Cast")
    source = None if inner is None else inner.inputs[0]
    if value is None or source is None or source.dtype is None or value.dtype not in _EXACT.get(source.dtype, ()):
        return None
    if source.dtype == wanted:
        return source
    node.replace_input_with(0, source)
    return None


def _reshape(graph: ir.Graph, node: ir.Node) -> ir.Value | None:
    """The sizes wanted as a constant, where all but one are known; and of two in a row the second alone."""
    result, (value, sizes) = node.outputs[0], node.inputs
    if value is None or sizes is None:
        return None
    if sizes.const_value is None and result.shape is not None:
        known = [size if isinstance(size, int) else -1 for size in result.shape]
        if known.count(-1) <= 1 and 0 not in known:
            node.replace_input_with(1, constant(graph, np.array(known, np.int64)))
            return None
    inner = _producer(value, "Reshape")
    if inner is not None and sizes.const_value is not None and 0 not in sizes.const_value.numpy():
        node.replace_input_with(0, inner.inputs[0])
    fixed = value.shape is not None and all(isinstance(size, int) for size in value.shape)
    return value if fixed and value.shape == result.shape else None


def _gelu(graph: ir.Graph, node: ir.Node) -> ir.Value | None:
    """x/2 (1 - erf(-x / sqrt 2)), which Keras's gelu becomes where no rule took it."""
    for half, tail in (node.inputs, node.inputs[::-1]):
        x = _scaled(half, 0.5)
        complement = _producer(tail, "Sub")
        erf = None if complement is None or _number(complement.inputs[0]) != 1 else complement.inputs[1]
        inner = _producer(erf, "Erf")
        negative = None if inner is None else _producer(_scaled(inner.inputs[0], 0.5**0.5), "Neg")
        if x is not None and negative is not None and negative.inputs[0] is x:
            return gelu(_Writer(graph, node), x)
    return None


class _Writer:
    """Writes operations in front of a node, in the manner of a rule's context."""

    def __init__(self, graph: ir.Graph, before: ir.Node) -> None:
        self._graph, self._before = graph, before
        self.opset = graph.opset_imports[""]

    def op(self, op_type: str, *inputs: ir.Value) -> ir.Value:
        """An operation whose result is like that of the node."""
        made = ir.node(op_type, inputs, name=op_type)
        like = self._before.outputs[0]
        made.outputs[0].type, made.outputs[0].shape = like.type, like.shape
        self._graph.insert_before(self._before, made)
        return made.outputs[0]

    def constant(self, number: float, dtype: str) -> ir.Value:
        """One number."""
        return constant(self._graph, np.array(number, dtype))


def _scaled(value: ir.Value | None, factor: float) -> ir.Value | None:
    """x, where the value is factor x."""
    node = _producer(value, "Mul")
    for number, x in () if node is None else (node.inputs, node.inputs[::-1]):
        found = _number(number)
        if found is not None and np.isclose(found, factor, _ROUNDING, 0):
            return x
    return None


def _product(graph: ir.Graph, node: ir.Node) -> ir.Value | None:
    return _neutral(1, either=True)(graph, node) or _gelu(graph, node)


_LOOKS: Mapping[str, Callable[[ir.Graph, ir.Node], ir.Value | None]] = {
    "Add": _neutral(0, either=True),
    "And": _twice_the_same,
    "Cast": _cast,
    "Div": _neutral(1, either=False),
    "Mul": _product,
    "Not": _not,
    "Or": _twice_the_same,
    "Reshape": _reshape,
    "Sub": _neutral(0, either=False),
}
