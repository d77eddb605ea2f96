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
    place = graph.node.add(name=f"{node.name}/axis", op="Const")
    place.attr["dtype"].type = tf.int32.as_datatype_enum
    place.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(axis, tf.int32))
    node.op = "ExpandDims"
    del node.input[:]
    node.input.extend([source, place.name])
    node.attr.clear()
    node.attr["T"].type = kind
    node.attr["Tdim"].type = tf.int32.as_datatype_enum
