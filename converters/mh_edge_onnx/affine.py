"""Folding y = s x + t, where s and t vary along the channels alone, into the weights of a neighbour.

(x W + b) s + t = x (W s) + (b s + t) for MatMul, Gemm and Conv; and
(s x + t) W + b = x (s W) + (t W + b) for MatMul and Gemm. So nothing is left of a BatchNormalization, Normalization or
Rescaling beside a Dense or Conv. Weights are multiplied when they are written. Nothing is folded where what lies in
between is used elsewhere, or the weight is: the file would grow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mh_edge_onnx.context import RULE
from mh_edge_onnx.initializers import derived

_GIVEN = {"MatMul": -1, "Gemm": 1, "Conv": 1}
"""Linear operation -> the axis of its result that its weight's channels become."""

_PLAIN_GEMM = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}


@dataclass(frozen=True)
class _Step:
    """An addition or multiplication by a constant. axis: of the result, along which the constant varies; None for one
    number.
    """

    node: ir.Node
    value: ir.Value
    constant: ir.Value
    axis: int | None


@dataclass(frozen=True)
class _Before:
    """The linear operation before a step. biases: constants added in between, each with the count of axes after the
    channels.
    """

    linear: ir.Node
    biases: tuple[tuple[_Step, int], ...]


def fold_affine(model: ir.Model) -> None:
    """Fold each Mul and Add by a constant into a linear neighbour, in place."""
    graph = model.graph
    # Additions that follow go into the neighbour's bias before the factor in front of them is looked at.
    for op_type, fold in (("Mul", _scale_before), ("Add", _add_before), ("Add", _add_after), ("Mul", _scale_after)):
        for node in list(graph):
            if node.op_type == op_type and (step := _step(node)) is not None and fold(graph, step):
                node.outputs[0].replace_all_uses_with(step.value, replace_graph_outputs=True)
                if RULE in node.metadata_props and (left := step.value.producer()) is not None:
                    left.metadata_props.setdefault(RULE, node.metadata_props[RULE])
                graph.remove(node, safe=True)


def _scale_before(graph: ir.Graph, step: _Step) -> bool:
    if (before := _before(step)) is None:
        return False
    for bias, after in before.biases:
        _change(graph, bias.node, bias.constant, step.constant, _times(after))
    linear = before.linear
    weight = linear.inputs[1]
    _change(graph, linear, weight, step.constant, _times(len(_sizes(weight)) - 1 if linear.op_type == "Conv" else 0))
    if len(linear.inputs) > 2:
        _change(graph, linear, linear.inputs[2], step.constant, _times(0))
    return True


def _add_before(graph: ir.Graph, step: _Step) -> bool:
    if (before := _before(step)) is None:
        return False
    if before.biases:
        bias, after = before.biases[0]
        _change(graph, bias.node, bias.constant, step.constant, _plus(after))
    elif before.linear.op_type == "MatMul":
        return False
    elif len(before.linear.inputs) > 2:
        _change(graph, before.linear, before.linear.inputs[2], step.constant, _plus(0))
    elif step.axis is None:
        return False
    else:
        before.linear.resize_inputs(3)
        before.linear.replace_input_with(2, derived(graph, [step.constant], np.ravel))
    return True


def _add_after(graph: ir.Graph, step: _Step) -> bool:
    users = _linear_users(step)
    pairs = [(user, _bias_of(user)) for user in users]
    if not users or any(bias is None for _, bias in pairs):
        return False
    for user, found in pairs:
        if found is not None:
            holder, bias = found
            shape = np.broadcast_shapes(_sizes(bias), _sizes(user.inputs[1])[1:])
            _put(holder, bias, derived(graph, [bias, step.constant, user.inputs[1]], _moved, shape))
    return True


def _scale_after(graph: ir.Graph, step: _Step) -> bool:
    users = _linear_users(step)
    for user in users:
        _change(graph, user, user.inputs[1], step.constant, _times(1))
    return bool(users)


def _moved(bias: np.ndarray, t: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.asarray(bias + np.broadcast_to(t.ravel(), weight.shape[0]) @ weight)


def _times(after: int) -> Callable[..., np.ndarray]:
    return lambda array, s: array * s.reshape(-1, *[1] * after)


def _plus(after: int) -> Callable[..., np.ndarray]:
    return lambda array, t: array + t.reshape(-1, *[1] * after)


def _step(node: ir.Node) -> _Step | None:
    """The node as a step, where one of its inputs is a constant that varies along one axis at most."""
    for value, constant in (node.inputs, reversed(node.inputs)):
        if value is None or constant is None or not constant.is_initializer() or value.is_initializer():
            continue
        if value.shape is None or constant.shape is None or constant.dtype != ir.DataType.FLOAT:
            return None
        if len(constant.shape) > len(value.shape):
            return None
        wide = [index for index, size in enumerate(constant.shape) if size != 1]
        if len(wide) > 1:
            return None
        axis = wide[0] + len(value.shape) - len(constant.shape) if wide else None
        # One size stands for all of an axis: without it the constant would widen the value.
        return _Step(node, value, constant, axis) if axis is None or value.shape[axis] != 1 else None
    return None


def _before(step: _Step) -> _Before | None:
    """The linear operation that the step's value comes from, when nothing else uses what lies in between."""
    axis, value = step.axis, step.value
    biases: list[tuple[_Step, int]] = []
    while True:
        node = value.producer()
        if node is None or node.domain or len(value.uses()) != 1 or value.is_graph_output() or value.shape is None:
            return None
        rank = len(value.shape)
        if node.op_type == "Add" and (bias := _step(node)) is not None:
            biases.append((bias, 0 if axis is None else rank - 1 - axis))
            value = bias.value
        elif node.op_type in _GIVEN and _foldable(node):
            fits = axis is None or axis == _GIVEN[node.op_type] % rank
            return _Before(node, tuple(biases)) if fits else None
        else:
            return None


def _foldable(node: ir.Node) -> bool:
    """Whether the weight of a linear operation is a constant of its own, laid out as Keras lays it out."""
    weight, *bias = node.inputs[1:]
    if weight is None or not weight.is_initializer() or len(weight.uses()) != 1 or weight.dtype != ir.DataType.FLOAT:
        return False
    if any(value is not None and not value.is_initializer() for value in bias):
        return False
    if node.op_type == "Gemm":
        return all(node.attributes[key].value == _PLAIN_GEMM[key] for key in _PLAIN_GEMM if key in node.attributes)
    return node.op_type == "Conv" or len(_sizes(weight)) == 2


def _linear_users(step: _Step) -> list[ir.Node]:
    """The MatMuls and Gemms that take the step's result, along whose last axis the step varies; none where anything
    else does.
    """
    result = step.node.outputs[0]
    users = [(use.node, use.idx) for use in result.uses()]
    fits = step.axis is None or (step.value.shape is not None and step.axis == len(step.value.shape) - 1)
    plain = all(
        index == 0 and node.domain == "" and node.op_type in ("MatMul", "Gemm") and _foldable(node)
        for node, index in users
    )
    return [node for node, _ in users] if fits and plain and not result.is_graph_output() else []


def _bias_of(linear: ir.Node) -> tuple[ir.Node, ir.Value] | None:
    """Where the bias of a MatMul or Gemm stands: the operation, and the constant."""
    if linear.op_type == "Gemm":
        return (linear, linear.inputs[2]) if len(linear.inputs) > 2 and linear.inputs[2] is not None else None
    result = linear.outputs[0]
    users = [use.node for use in result.uses()]
    if len(users) != 1 or result.is_graph_output() or users[0].op_type != "Add":
        return None
    step = _step(users[0])
    # The sum must not take the shape of the constant.
    return (step.node, step.constant) if step is not None and step.axis is not None else None


def _sizes(constant: ir.Value | None) -> tuple[int, ...]:
    return () if constant is None or constant.shape is None else tuple(constant.shape.numpy())


def _change(
    graph: ir.Graph, node: ir.Node, old: ir.Value | None, by: ir.Value, change: Callable[..., np.ndarray]
) -> None:
    if old is not None:
        _put(node, old, derived(graph, [old, by], change))


def _put(node: ir.Node, old: ir.Value, new: ir.Value) -> None:
    for index, value in enumerate(node.inputs):
        if value is old:
            node.replace_input_with(index, new)
