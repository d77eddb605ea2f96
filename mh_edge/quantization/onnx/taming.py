"""Masks as small as integers can bear: what masks.py says, done to a model that is to run in integers throughout."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mh_edge.quantization.onnx.masks import (
    ABSORBS,
    COMPUTING,
    LEAST_MASK,
    MARGIN,
    RESHAPING,
    Graph,
    Leaf,
    Softmax,
    Step,
    filled,
    find,
)
from mh_edge.quantization.scheme import Range, Ranges

if TYPE_CHECKING:
    import onnx

MASK = "the least that still hides a score, in place of the mask's own number"
MASKED = "the scores as they are without the mask, and room for the mask"
FOREIGN = "it makes a mask in a way that is not known, so that no smaller one could be put in its place"
UNIFORM = "the scores as they are without the mask; what is masked is below all of them, and equal, as in float"


@dataclass
class Tamed:
    """A model whose masks are small. ranges: calibrated ones, corrected. why: the reason for each that was. done: the
    constants that were replaced. kept: operation -> why it has to stay in float.
    """

    model: onnx.ModelProto
    ranges: dict[str, Range]
    why: dict[str, str] = field(default_factory=dict)
    done: set[tuple[str, str]] = field(default_factory=set)
    kept: dict[str, str] = field(default_factory=dict)

    def put(self, tensor: str, low: float, high: float, why: str) -> None:
        """Give a tensor a range; where two softmaxes share it, what both need."""
        if tensor in self.why:
            before = self.ranges[tensor]
            low, high = min(low, before.low), max(high, before.high)
        self.ranges[tensor], self.why[tensor] = Range(low, high), why


def tame(model: onnx.ModelProto, ranges: Ranges) -> Tamed:
    """The model with every mask of magnitude A (or infinite) replaced by R, and ranges that fit; see masks.py.

    ranges: of every float tensor, as calibrated. The model given is changed.
    """
    result = Tamed(model, dict(ranges))
    graph = Graph(model, ranges)
    found = find(model, ranges)
    masked = [softmax for softmax in found if softmax.masks and softmax.scores in ranges]
    room = max((_room(graph, softmax) for softmax in masked), default=0.0)
    for softmax in masked:
        for step in softmax.masks:
            if step.kind == "mask":
                _shrink(result, graph, step, room)
    for softmax in masked:
        _follow(result, graph, softmax, room)
    for softmax in found:
        made = graph.nodes[softmax.node].input[0]
        left = result.ranges.get(made, Range(0.0, 0.0))
        if max(-left.low, left.high) >= LEAST_MASK:
            result.kept |= dict.fromkeys((softmax.node, *_behind(graph, made)), FOREIGN)
    return result


def _behind(graph: Graph, tensor: str) -> list[str]:
    """The operations between the products and a tensor that may have to do with a mask."""
    pending, found = [tensor], []
    while pending:
        node = graph.makers.get(pending.pop())
        if node is not None and node.op_type in COMPUTING | RESHAPING and node.name not in found:
            found.append(node.name)
            pending.extend(node.input)
    return found


def _room(graph: Graph, softmax: Softmax) -> float:
    """R for one softmax: (spread of what it sees unmasked + MARGIN) / factor between the mask and it."""
    seen = graph.ranges[softmax.scores]
    smallest = 1.0
    for step in softmax.steps:
        seen = _passed(graph, step, seen)
        if step.kind == "factor":
            smallest = min(smallest, abs(step.amount))
    return (seen.high - seen.low + MARGIN) / smallest


def _passed(graph: Graph, step: Step, seen: Range) -> Range:
    """The range of the scores that no mask hides, after a step."""
    if step.kind == "factor":
        ends = (seen.low * step.amount, seen.high * step.amount)
        return Range(min(ends), max(ends))
    if step.kind == "shift":
        other = _values(graph, step.operand)
        ends = (other.low * step.amount, other.high * step.amount)
        return Range(seen.low + min(ends), seen.high + max(ends))
    return seen


def _values(graph: Graph, tensor: str) -> Range:
    if tensor in graph.constants:
        return Range(float(graph.constants[tensor].min()), float(graph.constants[tensor].max()))
    return graph.ranges.get(tensor, Range(0.0, 0.0))


def _unit(graph: Graph, step: Step) -> float:
    """The magnitude A of a mask: what hides a score once."""
    trace = graph.trace(step.operand, graph.nodes[step.node])
    arrays = [graph.constants[name] if name else filled(node) for node, name in trace.leaves]
    sizes = [float(size) for array in arrays for size in np.abs(array).reshape(-1) if size >= LEAST_MASK]
    seen = graph.ranges.get(step.operand, Range(0.0, 0.0))
    return min(sizes) if sizes else max(-seen.low, seen.high)


def _times(values: np.ndarray, unit: float) -> np.ndarray:
    """How many masks each number stands for; infinity is one."""
    sizes = np.abs(values.astype(np.float64))
    return np.where(np.isinf(sizes), 1.0, sizes / unit)


def _depth(result: Tamed, graph: Graph, step: Step, room: float) -> float:
    """How far a mask takes the scores down at most."""
    if step.operand in graph.constants:
        values = graph.constants[step.operand]
        return room * float(_times(values, _unit(graph, step)).max())
    found = result.ranges.get(step.operand, Range(-room, room))
    return max(room, -found.low if step.amount > 0 else found.high)


def _shrink(result: Tamed, graph: Graph, step: Step, room: float) -> None:
    """-A -> -R in the constants that a mask is made from, and in the ranges of everything made from them."""
    trace = graph.trace(step.operand, graph.nodes[step.node])
    unit = _unit(graph, step)
    for leaf in trace.leaves:
        _replace(result, graph, leaf, lambda array: np.sign(array) * room * _times(array, unit))
    tensors = trace.tensors or set(_reshaped(graph, step.operand))
    scale = room / min(unit, float(np.finfo(np.float32).max))
    for tensor in sorted(tensors & graph.ranges.keys()):
        seen = graph.ranges[tensor]
        low, high = (end * scale if abs(end) >= LEAST_MASK else end for end in (seen.low, seen.high))
        if max(-seen.low, seen.high) < LEAST_MASK:  # nothing was hidden on the calibration data
            low, high = min(low, -room), max(high, room)
        result.put(tensor, low, high, MASK)


def _reshaped(graph: Graph, tensor: str) -> list[str]:
    """A tensor and those that it is another shape of."""
    node = graph.makers.get(tensor)
    return [tensor, *(_reshaped(graph, node.input[0]) if node is not None and node.op_type in RESHAPING else ())]


def _follow(result: Tamed, graph: Graph, softmax: Softmax, room: float) -> None:
    """The ranges from the scores to the softmax: the scores' own, and below it what the masks need."""
    seen = graph.ranges[softmax.scores]
    bottom, why = seen.low, ""
    for index, step in enumerate(softmax.steps):
        spread = seen.high - seen.low
        margin = MARGIN / math.prod(abs(later.amount) for later in softmax.steps[index:] if later.kind == "factor")
        after = _passed(graph, step, seen)
        if step.kind == "factor":
            bottom = after.low - (seen.low - bottom) * abs(step.amount)
        elif step.kind == "shift":
            bottom += after.low - seen.low
        elif step.kind == "mask" and _unit(graph, step) >= ABSORBS * spread:
            bottom, why = min(bottom, seen.low) - margin, UNIFORM
        elif step.kind == "mask":
            bottom, why = bottom - _depth(result, graph, step, room), MASKED
        elif step.kind == "replaced":
            bottom, why = bottom - margin, UNIFORM
            _fill(result, graph, step, bottom)
        seen = after
        ends = (bottom - seen.high, 0.0) if step.kind == "centred" else (bottom, seen.high)
        result.put(step.tensor, *ends, why)


def _fill(result: Tamed, graph: Graph, step: Step, value: float) -> None:
    """Let a Where put `value` where it hides a score."""
    trace = graph.trace(step.operand, graph.nodes[step.node])
    for leaf in trace.leaves:
        _replace(result, graph, leaf, lambda array: np.full_like(array, value))
    for tensor in sorted((trace.tensors or {step.operand}) & graph.ranges.keys()):
        result.put(tensor, value, value, MASK)


def _replace(result: Tamed, graph: Graph, leaf: Leaf, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Give an operation constants of its own in which the numbers of a mask are changed, once."""
    from onnx import numpy_helper

    node, name = leaf
    if (node.name, name) in result.done:
        return
    result.done.add((node.name, name))
    array = graph.constants[name] if name else filled(node)
    changed = np.where(np.abs(array) >= LEAST_MASK, change(array), array).astype(array.dtype)
    if not name:
        node.attribute[0].t.CopyFrom(numpy_helper.from_array(changed))
        return
    tensor = numpy_helper.from_array(changed, f"{node.name}/{name}/mask")
    graph.model.graph.initializer.append(tensor)
    node.input[list(node.input).index(name)] = tensor.name
