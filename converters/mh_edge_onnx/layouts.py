"""Transpose, Squeeze and Unsqueeze between layers: carried down through elementwise operations until they meet, and
then made as few as they can be.

Keras lays channels last, ONNX's Conv and pools want them second, and Conv1D runs as a Conv2D of height 1; so each such
layer brings its own. f(P x) = P f(x) for every elementwise f, and what meets composes to at most three operations,
mostly none. A reduction takes them in, where nothing is left of them afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mh_edge_onnx.initializers import constant, derived

_LAYOUTS = ("Transpose", "Squeeze", "Unsqueeze")

# fmt: off
_ELEMENTWISE = frozenset({
    "Abs", "Add", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu",
    "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Min",
    "Mish", "Mul", "Neg", "Not", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign",
    "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Swish", "Tanh", "ThresholdedRelu", "Where",
})
# fmt: on

_REDUCTIONS = frozenset({"ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"})


@dataclass(frozen=True)
class _Layout:
    """How axes move. axes: for each axis of the result the one of the source (of `rank` axes), or None for a new one of
    size 1; source axes that do not occur have size 1 and are dropped.
    """

    rank: int
    axes: tuple[int | None, ...]

    @property
    def dropped(self) -> list[int]:
        return [axis for axis in range(self.rank) if axis not in self.axes]

    def then(self, other: _Layout) -> _Layout:
        return _Layout(self.rank, tuple(None if axis is None else self.axes[axis] for axis in other.axes))

    def steps(self) -> list[tuple[str, list[int]]]:
        """The least operations that do it, each with its axes: an axis dropped may as well be a new one."""
        free = self.dropped
        axes = [axis if axis is not None or not free else free.pop(0) for axis in self.axes]
        kept = [axis for axis in axes if axis is not None]
        order = sorted(kept)
        made: list[tuple[str, list[int]]] = []
        if free:
            made.append(("Squeeze", free))
        if kept != order:
            made.append(("Transpose", [order.index(axis) for axis in kept]))
        if len(kept) < len(axes):
            made.append(("Unsqueeze", [index for index, axis in enumerate(axes) if axis is None]))
        return made


def settle_layouts(model: ir.Model) -> None:
    """Carry layouts down and join them until nothing changes, in place."""
    graph = model.graph
    moved = True
    while moved:
        moved = False
        for node in list(graph):
            if node.graph is not graph or node.domain:
                continue
            if node.op_type in _ELEMENTWISE:
                moved |= _carry(graph, node)
            elif node.op_type in _REDUCTIONS:
                moved |= _take_in(graph, node)
            elif node.op_type in _LAYOUTS:
                moved |= _join(graph, node)


def _layout(node: ir.Node | None) -> _Layout | None:
    """What a node does to the axes; None for any other node, or when that is not known."""
    if node is None or node.domain or node.op_type not in _LAYOUTS:
        return None
    source = node.inputs[0]
    if source is None or source.shape is None:
        return None
    rank = len(source.shape)
    if node.op_type == "Transpose":
        order = node.attributes["perm"].as_ints() if "perm" in node.attributes else range(rank)[::-1]
        return _Layout(rank, tuple(order))
    axes = _numbers(node.inputs[1]) if len(node.inputs) > 1 else None
    if axes is None:
        return None
    if node.op_type == "Squeeze":
        gone = {axis % rank for axis in axes}
        return _Layout(rank, tuple(axis for axis in range(rank) if axis not in gone))
    width = rank + len(axes)
    new = {axis % width for axis in axes}
    left = iter(range(rank))
    return _Layout(rank, tuple(None if index in new else next(left) for index in range(width)))


def _numbers(value: ir.Value | None) -> list[int] | None:
    return None if value is None or value.const_value is None else value.const_value.numpy().ravel().tolist()


def _carry(graph: ir.Graph, node: ir.Node) -> bool:
    """f(P x, constants) = P f(x, constants laid out the other way)."""
    given = [value for value in node.inputs if value is not None]
    flowing = [value for value in given if not value.is_initializer()]
    first = flowing[0].producer() if flowing else None
    layout = _layout(first)
    if first is None or layout is None or any(_layout(value.producer()) != layout for value in flowing):
        return False
    if not all(_only(value, node) for value in flowing):
        return False
    replacements = {}
    for value in given:
        found = _source(value) if not value.is_initializer() else _before(graph, value, layout)
        if found is None:
            return False
        replacements[value] = found
    for index, old in enumerate(node.inputs):
        node.replace_input_with(index, None if old is None else replacements[old])
    result, source = node.outputs[0], replacements[flowing[0]]
    outer = _again(first, result)
    result.replace_all_uses_with(outer.outputs[0], replace_graph_outputs=True)
    outer.replace_input_with(0, result)
    # Another operand may widen what has size 1.
    result.shape = None if source.shape is None else ir.Shape([None if size == 1 else size for size in source.shape])
    graph.insert_after(node, outer)
    for value in flowing:
        _forget(graph, value)
    return True


def _again(layout: ir.Node, like: ir.Value) -> ir.Node:
    """The same layout once more, whose result is like `like`."""
    made = ir.node(layout.op_type, layout.inputs, attributes=layout.attributes, name=layout.name)
    made.metadata_props.update(layout.metadata_props)
    made.outputs[0].type, made.outputs[0].shape = like.type, like.shape
    return made


def _source(value: ir.Value) -> ir.Value | None:
    producer = value.producer()
    return None if producer is None else producer.inputs[0]


def _before(graph: ir.Graph, value: ir.Value, layout: _Layout) -> ir.Value | None:
    """The constant as it must be in front of the layout: one number, or numbers along one axis."""
    if value.shape is None:
        return None
    sizes = value.shape.numpy()
    wide = [index - len(sizes) + len(layout.axes) for index, size in enumerate(sizes) if size != 1]
    if not wide:
        return value if not sizes else derived(graph, [value], lambda array: array.reshape(()))
    axis = layout.axes[wide[0]] if len(wide) == 1 and wide[0] >= 0 else None
    if axis is None:
        return None
    after = layout.rank - 1 - axis
    return derived(graph, [value], lambda array: array.reshape(-1, *[1] * after))


def _take_in(graph: ir.Graph, node: ir.Node) -> bool:
    """reduce(P x) = reduce'(x), where what is left of P moves nothing."""
    if "keepdims" not in node.attributes or node.attributes["keepdims"].as_int() or node.inputs[0] is None:
        return False
    layout = _layout(node.inputs[0].producer())
    attribute = node.attributes.get("axes")
    axes = list(attribute.as_ints()) if attribute is not None else _numbers((*node.inputs, None)[1])
    if layout is None or not axes:
        return False
    gone = {axis % len(layout.axes) for axis in axes}
    left = [axis for index, axis in enumerate(layout.axes) if index not in gone]
    over = [axis for axis in range(layout.rank) if axis not in left]
    if None in left or left != sorted(axis for axis in left if axis is not None):
        return False
    value = node.inputs[0]
    node.replace_input_with(0, _source(value))
    _forget(graph, value)
    if attribute is not None:
        node.attributes["axes"] = ir.AttrInt64s("axes", over)
    else:
        node.replace_input_with(1, constant(graph, np.array(over, np.int64)))
    return True


def _join(graph: ir.Graph, node: ir.Node) -> bool:
    """A chain of layouts that ends here as the least operations that do the same."""
    layout = _layout(node)
    if layout is None:
        return False
    chain, source = [node], node.inputs[0]
    while source is not None and (earlier := _layout(source.producer())) is not None:
        layout = earlier.then(layout)
        chain.append(source.producer())  # type: ignore[arg-type]
        source = chain[-1].inputs[0]
    alone = 1
    while alone < len(chain) and _only(chain[alone].outputs[0], chain[alone - 1]):
        alone += 1
    steps = layout.steps()
    if source is None or len(steps) >= alone:
        return False
    for op_type, axes in steps:
        source = _made(graph, node, op_type, axes, source)
    node.outputs[0].replace_all_uses_with(source, replace_graph_outputs=True)
    _forget(graph, node.outputs[0])
    return True


def _forget(graph: ir.Graph, value: ir.Value | None) -> None:
    """Drop a layout whose result nothing reads any more, and those that it alone came from."""
    while value is not None and not value.uses() and not value.is_graph_output():
        node = value.producer()
        if node is None or node.graph is not graph or node.op_type not in _LAYOUTS:
            return
        value = node.inputs[0]
        graph.remove(node, safe=True)


def _made(graph: ir.Graph, before: ir.Node, op_type: str, axes: list[int], source: ir.Value) -> ir.Value:
    transposes = op_type == "Transpose"
    made = ir.node(
        op_type,
        [source] if transposes else [source, constant(graph, np.array(axes, np.int64))],
        attributes={"perm": axes} if transposes else {},
        name=op_type,
        metadata_props=dict(before.metadata_props),
    )
    graph.insert_before(before, made)
    result, layout = made.outputs[0], _layout(made)
    if layout is not None and source.shape is not None:
        sizes = source.shape
        result.shape = ir.Shape([1 if axis is None else sizes[axis] for axis in layout.axes])
    result.type = source.type
    return result


def _only(value: ir.Value, user: ir.Node) -> bool:
    """Whether nothing but `user` reads the value."""
    return not value.is_graph_output() and all(use.node is user for use in value.uses())
