"""What TensorFlow's converter gets wrong for common layers, put into a form that it gets right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf


def expand_new_axes(graph: Any) -> None:
    """x[:, None] on a free length -> EXPAND_DIMS, in place.

    The converter has a built-in form of a slice that makes axes only where every length is fixed; a causal mask over a
    free time, as Keras's MultiHeadAttention builds it, is such a slice.
    """
    constants = {node.name: node for node in graph.node if node.op == "Const"}
    for node in [node for node in graph.node if node.op == "StridedSlice"]:
        if axes := _new_axes(node, constants):
            source = node.input[0]
            for number, axis in enumerate(axes):
                last = number == len(axes) - 1
                expand = node if last else graph.node.add(name=f"{node.name}/axis_{number}")
                _become_expand_dims(graph, expand, source, axis, node.attr["T"].type)
                source = expand.name


def _new_axes(node: Any, constants: Mapping[str, Any]) -> list[int]:
    """The axes a slice adds, in the order in which to add them; none when it does anything else."""
    strides = constants.get(node.input[3])
    masks = {name: node.attr[f"{name}_mask"].i for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    if strides is None or not masks["new_axis"] or masks["shrink_axis"]:
        return []
    steps = tf.make_ndarray(strides.attr["value"].tensor)
    front: list[int] = []
    back: list[int] = []
    after_ellipsis = False
    for position, step in enumerate(steps):
        bit = 1 << position
        if masks["ellipsis"] & bit:
            after_ellipsis = True
        elif masks["new_axis"] & bit and after_ellipsis:
            back.append(position - len(steps))
        elif masks["new_axis"] & bit:
            front.append(position)
        elif step != 1 or not (masks["begin"] & masks["end"] & bit):
            return []
    # From the outside in, so that each position is already the one in the result.
    return front + back[::-1]


def _become_expand_dims(graph: Any, node: Any, source: str, axis: int, kind: int) -> None:
    _become(node, "ExpandDims", source, _constant(graph, f"{node.name}/axis", axis, tf.int32), kind=kind)
    node.attr["Tdim"].type = tf.int32.as_datatype_enum


def compare_signs(graph: Any) -> None:
    """(bits of x & 0x80000000) < 0 -> min(x, 1 / x) < 0, in place: both hold for negative numbers and for -0.

    Keras's argmax asks for the sign bit of a float; TFLite has no built-in operation on its bits.
    """
    nodes = {node.name: node for node in graph.node}
    for node in [node for node in graph.node if node.op == "Less"]:
        masked = nodes[node.input[0].split(":")[0]]
        bits = nodes[masked.input[0].split(":")[0]] if masked.op == "BitwiseAnd" else masked
        if bits.op == "Bitcast" and masked.op == "BitwiseAnd" and _is_sign(nodes[masked.input[1].split(":")[0]]):
            x, kind = bits.input[0], tf.float32.as_datatype_enum
            _become(bits, "RealDiv", _constant(graph, f"{bits.name}/one", 1.0, tf.float32), x, kind=kind)
            _become(masked, "Minimum", x, bits.name, kind=kind)
            _become(node, "Less", masked.name, _constant(graph, f"{node.name}/zero", 0.0, tf.float32), kind=kind)


def _is_sign(node: Any) -> bool:
    return node.op == "Const" and bool((tf.make_ndarray(node.attr["value"].tensor) == tf.int32.min).all())


def _constant(graph: Any, name: str, value: float, dtype: tf.DType) -> str:
    node = graph.node.add(name=name, op="Const")
    node.attr["dtype"].type = dtype.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype))
    return name


def _become(node: Any, op: str, *inputs: str, kind: int) -> None:
    """Make the node another operation on other inputs of one type."""
    node.op = op
    del node.input[:]
    node.input.extend(inputs)
    node.attr.clear()
    node.attr["T"].type = kind
