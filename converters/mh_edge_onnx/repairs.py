"""TensorFlow operations that tf2onnx 1.17 gets wrong, does not know or blows up, as ONNX operations.

Erfc (every gelu of Keras) and Expm1 (celu) it passes on under names that ONNX does not have; the sign bit (argmax) and
Bucketize (Discretization) it refuses. A choice between two tensors it writes as Cast(c) a + Cast(not c) b, six
operations that are NaN where the one not chosen is infinite; and masks as Equal, Not, Cast, ReduceSum, Greater. Each
handler has tf2onnx's form: (graph, node, name, args), the node to be replaced in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from mh_edge_onnx.reducing import AXES_ARE_AN_INPUT

FLOAT, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
INT32, INT64 = onnx.TensorProto.INT32, onnx.TensorProto.INT64


def _replace(graph: Any, node: Any, build: Callable[[str], str]) -> None:
    """Put the subgraph that `build(input name) -> output name` makes in the place of a node with one input and one
    output.
    """
    source, result = node.input[0], node.output[0]
    dtype, shape = graph.get_dtype(result), graph.get_shape(result)
    graph.remove_node(node.name)
    made = build(source)
    graph.make_node("Identity", [made], outputs=[result], shapes=[shape], dtypes=[dtype])


def _erfc(graph: Any, node: Any, name: str, args: Any) -> None:
    """erfc(x) = 1 - erf(x)."""
    del args
    kind = graph.get_dtype(node.output[0])
    one = graph.make_const(f"{name}__one", np.ones((), onnx.helper.tensor_dtype_to_np_dtype(kind))).output[0]

    def build(x: str) -> str:
        erf = graph.make_node("Erf", [x], dtypes=[kind]).output[0]
        return graph.make_node("Sub", [one, erf], dtypes=[kind]).output[0]  # type: ignore[no-any-return]

    _replace(graph, node, build)


def _expm1(graph: Any, node: Any, name: str, args: Any) -> None:
    """expm1(x) = 2 t / (1 - t) with t = tanh(x / 2) where |x| < 1/2, so that nothing cancels, and exp(x) - 1
    elsewhere.
    """
    del args
    kind = graph.get_dtype(node.output[0])

    def const(label: str, value: float) -> str:
        data = np.array(value, onnx.helper.tensor_dtype_to_np_dtype(kind))
        return graph.make_const(f"{name}__{label}", data).output[0]  # type: ignore[no-any-return]

    def op(kind_of: str, *inputs: str, dtype: int = kind) -> str:
        return graph.make_node(kind_of, list(inputs), dtypes=[dtype]).output[0]  # type: ignore[no-any-return]

    def build(x: str) -> str:
        half, one, two = const("half", 0.5), const("one", 1.0), const("two", 2.0)
        small = op("Less", op("Abs", x), half, dtype=onnx.TensorProto.BOOL)
        # Where the large branch is taken t could be 1; keep its argument small so that no division by zero is computed.
        t = op("Tanh", op("Mul", op("Where", small, x, const("zero", 0.0)), half))
        near = op("Div", op("Mul", two, t), op("Sub", one, t))
        return op("Where", small, near, op("Sub", op("Exp", x), one))

    _replace(graph, node, build)


def _sign_bit(graph: Any, node: Any, name: str, args: Any) -> None:
    """Bits & 0x80000000 of a float, which is how Keras's argmax tells -0 from 0: set where x < 0 or 1 / x < 0."""
    del args
    sign = np.iinfo(np.int32).min
    users = graph.find_output_consumers(node.output[0])
    if any(user.type != "BitwiseAnd" or not _has_constant(user, sign) for user in users):
        return  # another use of the bits has no ONNX operation, and is refused as such
    x = node.input[0]
    zero = graph.make_const(f"{name}__zero", np.zeros((), np.float32)).output[0]
    one = graph.make_const(f"{name}__one", np.ones((), np.float32)).output[0]
    negative = graph.make_node("Less", [x, zero], dtypes=[BOOL]).output[0]
    inverse = graph.make_node("Div", [one, x], dtypes=[FLOAT]).output[0]
    below = graph.make_node("Less", [inverse, zero], dtypes=[BOOL]).output[0]
    either = graph.make_node("Or", [negative, below], dtypes=[BOOL]).output[0]
    values = [
        graph.make_const(f"{name}__{label}", np.array(value, np.int32)).output[0]
        for label, value in (("on", sign), ("off", 0))
    ]
    bits = graph.make_node("Where", [either, *values], dtypes=[INT32]).output[0]
    for user in users:
        # Not removed: tf2onnx has yet to come by.
        user.type = "Identity"
        graph.replace_inputs(user, [bits])
    graph.remove_node(node.name)


def _has_constant(node: Any, value: int) -> bool:
    return any(item.is_const() and item.get_tensor_value() == value for item in node.inputs)


def _bucketize(graph: Any, node: Any, name: str, args: Any) -> None:
    """The number of boundaries at or below x."""
    del args
    edges = graph.make_const(f"{name}__edges", np.array(node.get_attr_value("boundaries"), np.float32)).output[0]
    last = graph.make_const(f"{name}__last", np.array([-1], np.int64)).output[0]
    result, x, shape = node.output[0], node.input[0], graph.get_shape(node.output[0])
    graph.remove_node(node.name)
    number = graph.make_node("Cast", [x], attr={"to": FLOAT}, dtypes=[FLOAT]).output[0]
    lifted = graph.make_node("Unsqueeze", [number, last], dtypes=[FLOAT]).output[0]
    reached = graph.make_node("GreaterOrEqual", [lifted, edges], dtypes=[BOOL]).output[0]
    counted = graph.make_node("Cast", [reached], attr={"to": INT32}, dtypes=[INT32]).output[0]
    keep = {"keepdims": 0}
    graph.make_node("ReduceSum", [counted, last], attr=keep, outputs=[result], shapes=[shape], dtypes=[INT32])


def _select(graph: Any, node: Any, name: str, args: Any) -> None:
    """Where(condition, a, b); both broadcast alike."""
    del graph, name, args
    node.type = "Where"


def _not_equal(graph: Any, node: Any, name: str, args: Any) -> None:
    """x != 0 is x as a truth value (NaN is true, -0 is not); else not (x == y)."""
    del args
    result, shape = node.output[0], graph.get_shape(node.output[0])
    x, y = node.input
    graph.remove_node(node.name)
    zero = graph.get_node_by_output(y)
    if zero is not None and zero.is_const() and not zero.is_graph_input() and not np.any(zero.get_tensor_value(False)):
        graph.make_node("Cast", [x], attr={"to": BOOL}, name=name, outputs=[result], shapes=[shape], dtypes=[BOOL])
        return
    equal = graph.make_node("Equal", [x, y], dtypes=[BOOL]).output[0]
    graph.make_node("Not", [equal], name=name, outputs=[result], shapes=[shape], dtypes=[BOOL])


def _any(graph: Any, node: Any, name: str, args: Any) -> None:
    """any(x as truth values) is sum(|x|) as a truth value: no sum of sizes is 0 but that of zeros. And x != y is x - y
    as a truth value.
    """
    del args
    truth = node.inputs[0]
    axes = np.ravel(node.inputs[1].get_tensor_value(False)).astype(np.int64)
    result, shape = node.output[0], graph.get_shape(node.output[0])
    keep = {"keepdims": int(node.get_attr_value("keep_dims"))}
    equal = truth.inputs[0] if truth.type == "Not" else truth
    if truth.type == "Cast" and graph.get_dtype(truth.input[0]) == FLOAT:
        x = truth.input[0]
    elif equal.type == "Equal" and truth.type == "Not" and graph.get_dtype(equal.input[0]) == FLOAT:
        x = graph.make_node("Sub", list(equal.input), dtypes=[FLOAT]).output[0]
    else:
        x = graph.make_node("Cast", [node.input[0]], attr={"to": FLOAT}, dtypes=[FLOAT]).output[0]
    graph.remove_node(node.name)
    if graph.opset < AXES_ARE_AN_INPUT:
        total = graph.make_node("ReduceL1", [x], attr={"axes": axes.tolist(), **keep}, dtypes=[FLOAT])
    else:
        over = graph.make_const(f"{name}__axes", axes).output[0]
        total = graph.make_node("ReduceL1", [x, over], attr=keep, dtypes=[FLOAT])
    graph.make_node("Cast", total.output, attr={"to": BOOL}, name=name, outputs=[result], shapes=[shape], dtypes=[BOOL])


def _compare(graph: Any, node: Any, name: str, args: Any) -> None:
    """x > y and the like, in the dtype they have; tf2onnx casts whole numbers to float, where large ones meet.

    Whole numbers are compared as int64, because tf2onnx makes the counters of loops int64 afterwards.
    """
    del name, args
    node.type = {"GreaterEqual": "GreaterOrEqual", "LessEqual": "LessOrEqual"}.get(node.type, node.type)
    if any(graph.get_dtype(value) in (INT32, INT64) for value in node.input):
        for value in list(node.input):
            graph.insert_new_node_on_input(node, "Cast", value, to=INT64)


HANDLERS: dict[str, tuple[Any, list[Any]]] = {
    "Any": (_any, []),
    "Bitcast": (_sign_bit, []),
    "Bucketize": (_bucketize, []),
    "Erfc": (_erfc, []),
    "Expm1": (_expm1, []),
    **dict.fromkeys(("Greater", "GreaterEqual", "Less", "LessEqual"), (_compare, [])),
    "NotEqual": (_not_equal, []),
    "SelectV2": (_select, []),
}
"""In the form of tf2onnx's custom_op_handlers."""
