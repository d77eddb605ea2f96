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
from mh_edge.quantization.onnx.model import captured, replace_nodes, unused, weights
from mh_edge.quantization.scheme import Range, Ranges

if TYPE_CHECKING:
    import onnx

MASK = "the least that still hides a score, in place of the mask's own number"
MASKED = "the scores as they are without the mask, and room for the mask"
FOREIGN = "it makes a mask in a way that is not known, so that no smaller one could be put in its place"
COPY = "/mask"
"""Ending of the names of what is a softmax's alone."""

UNSEEN = "it was 0 throughout on the calibration data, and a mask is made of it: room for one"
SHOWN = "what it hides is read by something besides the softmax too, where a smaller mask would show"
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
    graph = Graph(model, ranges)
    found = find(model, ranges)
    shown = [softmax for softmax in found if softmax.masks and _shown(graph, found, softmax)]
    ranges = {**ranges, **_own_masks(graph, [softmax for softmax in found if softmax not in shown])}
    result = Tamed(model, dict(ranges))
    for softmax in shown:
        made = graph.nodes[softmax.node].input[0]
        result.kept |= dict.fromkeys((softmax.node, *_behind(graph, made)), SHOWN)
    graph = Graph(model, ranges)
    found = find(model, ranges)
    masked = [one for one in found if one.masks and one.scores in ranges and one.node not in result.kept]
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
            result.kept = dict.fromkeys((softmax.node, *_behind(graph, made)), FOREIGN) | result.kept
    return result


def _shown(graph: Graph, found: list[Softmax], softmax: Softmax) -> bool:
    """Whether what the masks make of the scores is seen by anything but the softmaxes."""
    path = {name for one in found for name in (one.node, *(step.node for step in one.steps))}
    path |= {graph.makers[graph.nodes[s.node].input[1]].name for one in found for s in one.steps if s.kind == "centred"}
    first = softmax.steps.index(softmax.masks[0])
    return any(
        step.tensor in graph.outputs or any(reader.name not in path for reader in graph.readers[step.tensor])
        for step in softmax.steps[first:]
    )


def _own_masks(graph: Graph, found: list[Softmax]) -> dict[str, Range]:
    """Let the softmaxes have copies of their masks, where anything else reads those: only behind a softmax does a
    smaller mask not show. -> the ranges of the copies.
    """
    from onnx import helper

    model, steps = graph.model, [step for softmax in found for step in softmax.masks]
    made = {name for step in steps for name in _masking(graph, step)}
    makers = {graph.makers[name].name for name in made if name in graph.makers}
    readers = {step.node for step in steps}
    if not any(
        name in graph.outputs or not {node.name for node in graph.readers[name]} <= makers | readers for name in made
    ):
        return {}
    taken = {*graph.nodes, *graph.makers, *graph.inputs, *weights(model)}
    copied = sorted(made | {name for maker in makers for name in graph.nodes[maker].output})
    copies = {name: unused(f"{name}{COPY}", taken) for name in copied}
    operations = [
        helper.make_node("Identity", [name], [copies[name]], copies[name])
        for name in copied
        if name not in graph.makers
    ]
    for node in model.graph.node:
        twin = type(node).FromString(node.SerializeToString())
        twin.input[:] = [copies.get(name, name) for name in node.input]
        if node.name not in readers:
            operations.append(node)
        elif node.name not in makers:
            operations.append(twin)
        if node.name in makers:
            twin.name = unused(f"{node.name}{COPY}", taken)
            twin.output[:] = [copies[name] for name in node.output]
            operations.append(twin)
    needed, read = [], set(graph.outputs)
    for node in reversed(operations):
        if node.name not in makers or not read.isdisjoint(node.output):
            needed.append(node)
            read.update(node.input, captured(node))
    replace_nodes(model.graph, needed[::-1])
    for value in [value for value in (*model.graph.input, *model.graph.value_info) if value.name in copies]:
        model.graph.value_info.add().CopyFrom(value)
        model.graph.value_info[-1].name = copies[value.name]
    return {copies[name]: graph.ranges[name] for name in copied if name in graph.ranges}


def _masking(graph: Graph, step: Step) -> set[str]:
    """The tensors with the numbers of a mask."""
    found = graph.trace(step.operand, graph.nodes[step.node]).tensors or set(_reshaped(graph, step.operand))
    return found - graph.constants.keys()


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
    if step.kind == "shift" or (step.kind == "mask" and _unit(graph, step) < LEAST_MASK):
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
    return min(*sizes, float(np.finfo(np.float32).max)) if sizes else max(-seen.low, seen.high)


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
    scale = room / max(unit, LEAST_MASK)
    for tensor in sorted(_masking(graph, step) & graph.ranges.keys()):
        seen = graph.ranges[tensor]
        low, high = (end * scale if abs(end) >= LEAST_MASK else end for end in (seen.low, seen.high))
        if max(-seen.low, seen.high) < LEAST_MASK:  # nothing was hidden on the calibration data
            low, high = min(low, -room), max(high, room)
        result.put(tensor, low, high, MASK)
    most = 1.0 if trace.leaves else max(room, LEAST_MASK)
    for tensor in graph.behind(step.operand):
        if tensor not in result.why and graph.ranges.get(tensor) == Range(0.0, 0.0):
            result.put(tensor, -most, most, UNSEEN)


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
