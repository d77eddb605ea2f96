"""Attention masks in ONNX graphs: where a softmax gets its scores from, and what was added to hide some of them.

    scores -> (+ mask) -> (· factor) -> (Where(seen, ·, -inf)) -> ... -> softmax

A mask is -10000 in our files, -1e9 to -3.4e38 or -infinity in others'. In integers with the range as it is seen, a step
of 8 bits is 39 at -10000: the scores drown. Two steps of a softmax that lie `spread + MARGIN` apart already weigh
e^-MARGIN against each other, so that a mask need not be larger than that:

    R = max over softmaxes of (spread of the scores + MARGIN) / factor,   mask: -A -> -R

It stays a sum, so that a row that is masked everywhere still is the softmax of its own scores, and steps hidden twice
stay below those hidden once. Only a mask so large that float32 forgets the scores beside it (or that replaces them)
makes such a row uniform, and does so here: its sum ends at the least score - MARGIN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mh_edge.quantization.onnx.model import captured, weights
from mh_edge.quantization.scheme import Range, Ranges

if TYPE_CHECKING:
    import onnx

LEAST_MASK = 1000.0
"""Magnitude from which a number is a mask: no trained score comes near, and e^-1000 is 0 in every float type."""

MARGIN = 16.0
"""e^-16 = 1.1e-7: a masked step weighs one float32 rounding beside the least of those that are seen."""

ABSORBS = 2.0**24
"""Beside a mask this many times as large as the spread of the scores, float32 keeps nothing of them."""

RESHAPING = frozenset(
    ("Cast", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze")
)
"""They hand on the values of their first input."""

PRODUCTS = frozenset(
    ("Attention", "Conv", "Einsum", "GRU", "Gemm", "LSTM", "LayerNormalization", "MatMul", "RNN", "Softmax", "Tanh")
)
"""Masks are made without them; scores are not."""

COMPUTING = frozenset(
    ("Add", "Clip", "Concat", "ConstantOfShape", "CumSum", "Div", "Gather", "Max", "Min", "Mul", "Neg", "Pad", "Sub",
     "Trilu", "Where")
)  # fmt: skip
"""What masks are computed with, besides RESHAPING; behind anything else (comparisons) no number is a mask's."""

SUMS = frozenset(("Add", "Sub"))

COMPARING = frozenset(("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or", "Xor"))
"""Their results are truths, whatever they were made from."""

FUSED = frozenset(("Attention", "MultiHeadAttention", "GroupQueryAttention", "DecoderMaskedMultiHeadAttention"))
"""One operation from the queries to the result: its scores never leave it."""


@dataclass(frozen=True)
class Step:
    """One tensor between the scores and the softmax. kind: "same" values; "factor" (times `amount`); "mask" (`operand`
    added, or subtracted where amount is -1); "replaced" (by `operand` where hidden); "shift" (`operand` added, which is
    no mask); "centred" (the row's maximum subtracted).
    """

    tensor: str
    kind: str
    operand: str = ""
    amount: float = 1.0
    node: str = ""


@dataclass(frozen=True)
class Softmax:
    """A softmax and its way back to the scores. output: the weights. rule: mh_edge's, in files of ours."""

    node: str
    scores: str
    steps: tuple[Step, ...]
    output: str
    rule: str = ""

    @property
    def masks(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.kind in ("mask", "replaced"))

    @property
    def tensors(self) -> tuple[str, ...]:
        """From the scores to the weights."""
        return (self.scores, *(step.tensor for step in self.steps), self.output)


Leaf: TypeAlias = "tuple[onnx.NodeProto, str]"


@dataclass
class Trace:
    """Where a mask's numbers come from. leaves: the constants, each with the operation that takes it ("" for what a
    ConstantOfShape repeats). tensors: what is computed from them.
    """

    leaves: list[Leaf]
    tensors: set[str]


@dataclass
class Graph:
    """The main graph of a model, to walk back in. ranges: as calibrated, where they are known already."""

    model: onnx.ModelProto
    ranges: Ranges = field(default_factory=dict)

    def __post_init__(self) -> None:
        from onnx import TensorProto, numpy_helper

        self.nodes = {node.name: node for node in self.model.graph.node}
        self.makers = {name: node for node in self.model.graph.node for name in node.output}
        self.constants = {
            name: numpy_helper.to_array(tensor)
            for name, tensor in weights(self.model).items()
            if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
        }
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.model.graph.node:
            for name in {*node.input, *captured(node)}:
                self.readers.setdefault(name, []).append(node)
        self.inputs = {value.name for value in self.model.graph.input}
        self.outputs = {value.name for value in self.model.graph.output}
        self._computed: dict[str, bool] = {}
        self._traced: dict[str, Trace] = {}
        self.walked: dict[str, tuple[str, tuple[Step, ...]]] = {}

    def computed(self, tensor: str) -> bool:
        """Whether a product lies behind the tensor."""
        pending, seen = [tensor], set()
        while pending:
            name = pending.pop()
            node = self.makers.get(name)
            if node is None or name in seen or node.op_type in COMPARING:
                continue
            seen.add(name)
            if self._computed.get(name) or node.op_type in PRODUCTS:
                self._computed[tensor] = True
                return True
            pending.extend(node.input)
        return False

    def scalar(self, tensor: str) -> float | None:
        """The value of a constant of one element."""
        value = self.constants.get(tensor)
        return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None

    def trace(self, tensor: str, reader: onnx.NodeProto) -> Trace:
        """The constants of a mask's magnitude that `tensor`, an input of `reader`, is computed from."""
        if tensor in self.constants:
            return Trace([(reader, tensor)] if hides(self.constants[tensor]) else [], set())
        node = self.makers.get(tensor)
        if node is None:
            return Trace([], set())
        if tensor not in self._traced:
            found = self._traced[tensor] = Trace([], set())
            inputs: list[str] = []
            if node.op_type == "ConstantOfShape":
                found.leaves += [(node, "")] if hides(filled(node)) else []
            elif node.op_type in RESHAPING:
                inputs = list(node.input[:1])
            elif node.op_type in COMPUTING:
                inputs = list(node.input)
            for name in inputs:
                behind = self.trace(name, node)
                found.leaves.extend(behind.leaves)
                found.tensors.update(behind.tensors)
            if found.leaves:
                found.tensors.add(tensor)
        return self._traced[tensor]

    def mask(self, tensor: str, reader: onnx.NodeProto) -> bool:
        """Whether an input of `reader` hides scores: its numbers are beyond any score's, and no product made them; or
        they may be, being given to the model to be added and for no product.
        """
        if self.computed(tensor):
            return False
        seen = self.ranges.get(tensor, Range(0.0, 0.0))
        beyond = max(-seen.low, seen.high) >= LEAST_MASK
        return beyond or bool(self.trace(tensor, reader).leaves) or (reader.op_type in SUMS and self.given(tensor))

    def given(self, tensor: str) -> bool:
        """Whether the tensor is made of inputs of the model, none of which enters a product."""
        found, behind = False, self.behind(tensor)
        for name in behind:
            if any(reader.op_type in PRODUCTS for reader in self.readers.get(name, ())):
                return False
            found |= name in self.inputs
        return found

    def behind(self, tensor: str) -> list[str]:
        """The tensors that a mask is computed from, itself first."""
        found, pending = dict[str, None](), [tensor]
        while pending:
            name = pending.pop()
            node = self.makers.get(name)
            if name not in found and name not in self.constants:
                found[name] = None
                if node is not None and node.op_type in RESHAPING | {"Gather"}:
                    pending.append(node.input[0])
                elif node is not None and node.op_type in COMPUTING:
                    pending.extend(node.input)
        return list(found)


def hides(values: np.ndarray) -> bool:
    """Whether constants are those of a mask: beyond any score, and not by growing there (as biases by distance do)."""
    sizes = np.abs(values.astype(np.float64)) if values.dtype.kind == "f" else np.zeros(1)
    return bool((sizes >= LEAST_MASK).any() and not ((sizes > LEAST_MASK / 10) & (sizes < LEAST_MASK)).any())


def filled(node: onnx.NodeProto) -> np.ndarray:
    """What a ConstantOfShape repeats."""
    from onnx import numpy_helper

    return numpy_helper.to_array(node.attribute[0].t) if node.attribute else np.zeros(1, np.float32)


def find(model: onnx.ModelProto, ranges: Mapping[str, Range] | None = None) -> list[Softmax]:
    """Every softmax of the main graph, an Exp of scores less their maximum included, in the model's order.

    ranges: calibrated ones, by which masks are recognised that the model is given (constants tell the others).
    """
    graph = Graph(model, ranges or {})
    return [
        Softmax(node.name, *_walk(graph, node.input[0]), node.output[0], rule_of(node))
        for node in model.graph.node
        if node.op_type == "Softmax" or (node.op_type == "Exp" and _centred(graph, node.input[0]))
    ]


def fused(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The attentions that are one operation."""
    return (node for node in model.graph.node if node.op_type in FUSED)


def rule_of(node: onnx.NodeProto) -> str:
    """The rule that made an operation of our files; empty in others'."""
    return next((item.value for item in node.metadata_props if item.key == "mh_edge.rule"), "")


def _walk(graph: Graph, tensor: str) -> tuple[str, tuple[Step, ...]]:
    """-> the scores and the steps from them to `tensor`. Without a mask behind it, the tensor is the scores."""
    if tensor not in graph.walked:  # residual sums meet again and again
        graph.walked[tensor] = tensor, ()
        node = graph.makers.get(tensor)
        for source, step in () if node is None else _sources(graph, node, tensor):
            scores, steps = _walk(graph, source)
            if steps or step.kind in ("mask", "replaced"):
                graph.walked[tensor] = scores, (*steps, step)
                break
    return graph.walked[tensor]


def _sources(graph: Graph, node: onnx.NodeProto, tensor: str) -> Iterator[tuple[str, Step]]:
    """The inputs that the scores may come from, and what the operation does to them."""
    kind, inputs = node.op_type, list(node.input)
    if kind in RESHAPING:
        yield inputs[0], Step(tensor, "same", node=node.name)
    elif kind == "Sub" and _centred(graph, tensor):
        yield inputs[0], Step(tensor, "centred", node=node.name)
    elif kind in ("Mul", "Div"):
        for source, other in (inputs, inputs[::-1]) if kind == "Mul" else (inputs,):
            if factor := graph.scalar(other):
                yield source, Step(tensor, "factor", other, factor if kind == "Mul" else 1 / factor, node.name)
    elif kind in SUMS:
        sign = -1.0 if kind == "Sub" else 1.0
        for source, other in (inputs, inputs[::-1]) if kind == "Add" else (inputs,):
            if not graph.mask(source, node):
                yield source, Step(tensor, "mask" if graph.mask(other, node) else "shift", other, sign, node.name)
    elif kind == "Where":
        for source, other in ((inputs[1], inputs[2]), (inputs[2], inputs[1])):
            if not graph.mask(source, node):
                yield source, Step(tensor, "replaced" if graph.mask(other, node) else "shift", other, node=node.name)


def _centred(graph: Graph, tensor: str) -> bool:
    """Whether tensor = x - max(x)."""
    node = graph.makers.get(tensor)
    if node is None or node.op_type != "Sub":
        return False
    maximum = graph.makers.get(node.input[1])
    return maximum is not None and maximum.op_type == "ReduceMax" and maximum.input[0] == node.input[0]
