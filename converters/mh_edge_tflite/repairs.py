"""What TensorFlow's converter, or a delegate, gets wrong for common layers, put into a form that it gets right."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf

TWINS = frozenset({"LogicalOr", "LogicalAnd", "BatchMatMulV2"})
"""Operations that must not read one tensor twice: of masks that two branches hand to a sum, of q = k in attention."""


def part_twins(graph: Any, weights: Collection[str]) -> None:
    """x or x, x and x -> x; x xᵀ -> (x / 2) (2 x)ᵀ, which is exact, in place; also of tensors that are computed alike,
    of which the converter makes one. weights: names of constants that are known by them.

    LiteRT's GPU accelerator takes no operation on one tensor twice but sums and products by element, and ends the whole
    process over such a BATCH_MATMUL. The converter takes away a transposition, a copy or a factor of 1.
    """
    nodes = {node.name: node for node in graph.node}
    same: dict[tuple[Any, ...], str] = {}
    names: dict[str, str] = {}
    turned: dict[str, str] = {}
    for node in list(graph.node):
        inputs = tuple(names.get(name.removesuffix(":0"), name) for name in node.input)
        if node.op in TWINS and len({turned.get(name, name) for name in inputs}) == 1:
            _part(graph, node)
        if node.op == "Identity" or (node.op == "Mul" and _is_one(nodes.get(inputs[1]))):
            names[node.name] = inputs[0]
        elif node.op == "Placeholder" or node.name in weights:
            names[node.name] = node.name
        else:
            attributes = tuple((key, node.attr[key].SerializeToString(deterministic=True)) for key in sorted(node.attr))
            names[node.name] = same.setdefault((node.op, inputs, attributes), node.name)
        if node.op == "Transpose":
            turned[names[node.name]] = turned.get(inputs[0], inputs[0])


def _is_one(node: Any) -> bool:
    return node is not None and node.op == "Const" and bool((tf.make_ndarray(node.attr["value"].tensor) == 1).all())


def _part(graph: Any, node: Any) -> None:
    (x, twin), kind = node.input, node.attr["T"].type
    if node.op != "BatchMatMulV2":
        _become(node, "Identity", x, kind=tf.bool.as_datatype_enum)
    elif tf.as_dtype(kind).is_floating:
        for place, (source, factor) in enumerate(((x, 0.5), (twin, 2.0))):
            scaled = graph.node.add(name=f"{node.name}/twin_{place}")
            by = _constant(graph.node, f"{scaled.name}/factor", factor, tf.as_dtype(kind))
            _become(scaled, "Mul", source, by, kind=kind)
            node.input[place] = scaled.name


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
    _become(node, "ExpandDims", source, _constant(graph.node, f"{node.name}/axis", axis, tf.int32), kind=kind)
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
            _become(bits, "RealDiv", _constant(graph.node, f"{bits.name}/one", 1.0, tf.float32), x, kind=kind)
            _become(masked, "Minimum", x, bits.name, kind=kind)
            _become(node, "Less", masked.name, _constant(graph.node, f"{node.name}/zero", 0.0, tf.float32), kind=kind)


def tame_softplus(graph: Any) -> None:
    """log(1 + e^x) -> max(x, 0) - log(sigmoid(|x|)), in place, in the bodies of loops too; log_sigmoid and mish use it.

    The converter writes the former as it stands, which overflows beyond x = 88.
    """
    for nodes, output in [(graph.node, "{}"), *((body.node_def, "{}:{}:0") for body in graph.library.function)]:
        for node in [node for node in nodes if node.op == "Softplus"]:
            _soften(nodes, output, node)


def _soften(nodes: Any, output: str, node: Any) -> None:
    """The last operation is a Relu, which changes nothing (and is fused), for its output has the name by which a loop's
    body knows that of Softplus. The maximum is with -0, for one with 0 is fused into a product before it, and the
    product computed once more for |x|.
    """
    x, kind = node.input[0], node.attr["T"].type

    def made(op: str, name: str, *inputs: str) -> str:
        added = nodes.add(name=f"{node.name}/{op}")
        _become(added, op, *inputs, kind=kind)
        return output.format(added.name, name)

    log = made("Log", "y", made("Sigmoid", "y", made("Abs", "y", x)))
    zero = output.format(_constant(nodes, f"{node.name}/zero", -0.0, tf.as_dtype(kind)), "output")
    _become(node, "Relu", made("Sub", "z", made("Maximum", "z", x, zero), log), kind=kind)


def add_to_channels(graph: Any) -> None:
    """BiasAdd along axis 1 -> an addition of the bias as (C, 1, ...), in place; the graph's weights are placeholders.

    Keras adds so when the second of two tensors has one size other than 1, as in a batch of one sequence of one
    feature; the converter has the form along the last axis alone.
    """
    nodes = [node for node in graph.node if node.op == "BiasAdd" and node.attr["data_format"].s == b"NCHW"]
    if not nodes:
        return
    with tf.Graph().as_default() as shaped:
        tf.graph_util.import_graph_def(graph, name="")
    for node in nodes:
        (x, bias), kind = node.input, node.attr["T"].type
        rank = shaped.get_operation_by_name(node.name).outputs[0].shape.rank
        shape = _constant(graph.node, f"{node.name}/shape", [-1] + [1] * (rank - 2), tf.int32)
        column = graph.node.add(name=f"{node.name}/column")
        _become(column, "Reshape", bias, shape, kind=kind)
        column.attr["Tshape"].type = tf.int32.as_datatype_enum
        _become(node, "AddV2", x, column.name, kind=kind)


def _is_sign(node: Any) -> bool:
    return node.op == "Const" and bool((tf.make_ndarray(node.attr["value"].tensor) == tf.int32.min).all())


def _constant(nodes: Any, name: str, value: float | list[int], dtype: tf.DType) -> str:
    node = nodes.add(name=name, op="Const")
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
