"""Stand-ins: large kernels that TensorFlow's converter never sees.

The converter holds every constant up to nine times at once: as text twice, in three graphs, as an attribute before and
after a rewrite, in bytecode whose room doubles. A stand-in is a constant of the kernel's shape that repeats one number,
which is all that the converter then carries; the kernel takes its place in the finished file.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from mh_edge.capture import Weight

SMALLEST = 1 << 14
"""Elements, 64 kB. What a smaller kernel costs cannot be seen."""

FIRST_NUMBER = 0x3F9D_7301
"""The bits of the float32 that the first stand-in repeats, 1.230...; the next one has the next bits. Nothing that the
converter knows to simplify, as 0 and 1 are.
"""

PASSED = ("Add", "AddV2", "BatchToSpaceND", "BiasAdd", "Identity", "Reshape", "Squeeze", "Sub")
"""Operations past which the converter moves a multiplication into the kernel."""

Layout = Callable[[np.ndarray], np.ndarray]
Kernels = Mapping[int, Callable[[], np.ndarray]]
"""Number of a buffer -> what belongs there."""
Reader = tuple[Any, int]
"""A node and which of its inputs."""
Readers = Mapping[str, list[Reader]]
Functions = Mapping[str, Any]


@dataclass(frozen=True)
class Use:
    """How the file uses a kernel. operator, position: its only reader, and as which input. layout: as Keras has it ->
    as the file has it.
    """

    operator: int
    position: int
    layout: Layout


LOOKED_UP = Use(schema.BuiltinOperator.GATHER, 0, lambda table: table)
MULTIPLIED = Use(schema.BuiltinOperator.FULLY_CONNECTED, 1, np.transpose)
CONVOLVED = Use(schema.BuiltinOperator.CONV_2D, 1, lambda kernel: kernel.transpose(3, 0, 1, 2))
CONVOLVED_OVER_TIME = Use(schema.BuiltinOperator.CONV_2D, 1, lambda kernel: kernel.transpose(2, 0, 1)[:, None])


@dataclass(frozen=True)
class StandIn:
    """shape: the kernel's in Keras. number: what is repeated, of no other stand-in of the graph."""

    shape: tuple[int, ...]
    number: np.float32
    use: Use
    weight: Weight

    def proto(self) -> Any:
        """As a tf.TensorProto, which needs the number once."""
        return tf.make_tensor_proto(self.number, tf.float32, self.shape)

    def kernel(self) -> np.ndarray:
        """What it stands for, in the file's layout."""
        return self.use.layout(self.weight.read())

    def expected(self) -> tuple[int, int, tuple[int, ...]]:
        """(operator, position, shape) where it has to be in the file."""
        return self.use.operator, self.use.position, self.use.layout(np.broadcast_to(self.number, self.shape)).shape


def stand_ins(graph: Any, weights: Mapping[str, Weight]) -> dict[str, StandIn]:
    """Node name -> stand-in, for the large kernels that one product, convolution or look-up reads and nothing else.

    graph: a tf.GraphDef whose weights are placeholders. weights: by node name.
    """
    functions = {function.signature.name: function for function in graph.library.function}
    readers = _readers(graph.node)
    found: dict[str, StandIn] = {}
    for node in graph.node:
        if node.name not in weights or node.attr["dtype"].type != tf.float32.as_datatype_enum:
            continue
        shape = tuple(dim.size for dim in node.attr["shape"].shape.dim)
        if np.prod(shape) >= SMALLEST and (use := _use(node.name, len(shape), readers, functions)):
            number = np.uint32(FIRST_NUMBER + len(found)).view(np.float32)
            found[node.name] = StandIn(shape, number, use, weights[node.name])
    return found


def located(content: bytes, found: Mapping[str, StandIn]) -> Kernels | None:
    """The kernels that belong into the buffers of the converter's flatbuffer; None unless each stand-in is there once,
    whole, where it was expected.

    The converter may have computed with a stand-in, for instance multiplied it by a scale that follows; then the file
    has to be made from the kernels themselves.
    """
    by_number = {float(stand_in.number): stand_in for stand_in in found.values()}
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    holders = Counter(tensor.buffer for graph in model.subgraphs for tensor in graph.tensors)
    uses = _uses(model)
    places: dict[float, int] = {}
    for index, buffer in enumerate(model.buffers):
        if stand_in := by_number.get(number := _repeated(buffer.data)):
            if number in places or holders[index] != 1 or uses[index] != [stand_in.expected()]:
                return None
            places[number] = index
    if len(places) < len(found):
        return None
    return {index: by_number[number].kernel for number, index in places.items()}


def _uses(model: Any) -> Mapping[int, list[tuple[int, int, tuple[int, ...]]]]:
    """Number of a buffer -> (operator, position, shape) of everything that reads it."""
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    uses = defaultdict(list)
    for graph in model.subgraphs:
        for operator in graph.operators:
            for position, index in enumerate(() if operator.inputs is None else operator.inputs):
                tensor = graph.tensors[index]
                if index >= 0 and tensor.shape is not None:
                    uses[tensor.buffer].append((codes[operator.opcodeIndex], position, tuple(map(int, tensor.shape))))
    return uses


def _repeated(data: Any) -> float:
    """The float32 that a buffer repeats; nan when there is none."""
    if data is None or len(data) < 4 * SMALLEST or len(data) % 4:
        return math.nan
    numbers = data.view(np.float32)
    return float(numbers[0]) if numbers.min() == numbers.max() else math.nan


def _readers(nodes: Any) -> Readers:
    """Name of a node or argument -> what reads it."""
    result = defaultdict(list)
    for node in nodes:
        for position, name in enumerate(node.input):
            result[name.split(":")[0].removeprefix("^")].append((node, position))
    return result


def _only(name: str, readers: Readers) -> Reader:
    """The only reader; (None, 0) when there are others, or none."""
    found = readers.get(name, [])
    return found[0] if len(found) == 1 else (None, 0)


def _use(name: str, rank: int, readers: Readers, functions: Functions) -> Use | None:
    """The use that can be foreseen."""
    node, position = _only(name, readers)
    if node is None:
        return None
    match node.op, position, rank:
        case "While" | "StatelessWhile", _, _:
            return _use_in_loop(node, position, rank, functions)
        case "GatherV2", 0, 2:
            return LOOKED_UP
        case "ExpandDims", 0, 3:
            # A convolution over time is one over an image of height 1.
            node, position = _only(node.name, readers)
            convolved = node is not None and (node.op, position) == ("Conv2D", 1)
            return CONVOLVED_OVER_TIME if convolved and not _scaled(node, readers) else None
        case "Conv2D", 1, 4:
            return None if _scaled(node, readers) else CONVOLVED
        case "MatMul" | "BatchMatMulV2", 1, 2:
            turned = any(node.attr[key].b for key in node.attr if key.startswith(("transpose_", "adj_")))
            return None if turned or _scaled(node, readers) else MULTIPLIED
    return None


def _use_in_loop(loop: Any, position: int, rank: int, functions: Functions) -> Use | None:
    """The use of what a loop hands from turn to turn unchanged and its body reads once."""
    body, condition = (functions[loop.attr[part].func.name] for part in ("body", "cond"))
    name = body.signature.input_arg[position].name
    readers = dict(_readers(body.node_def))
    kept = {node.name for node, _ in readers.get(name, []) if node.op == "Identity" and node.name not in readers}
    returned = body.ret[body.signature.output_arg[position].name].split(":")[0]
    if returned not in {name, *kept} or condition.signature.input_arg[position].name in _readers(condition.node_def):
        return None
    readers[name] = [(node, index) for node, index in readers.get(name, []) if node.name not in kept]
    return _use(name, rank, readers, functions)


def _scaled(node: Any, readers: Readers) -> bool:
    """Whether the result is multiplied and goes nowhere else: the converter then multiplies the kernel instead."""
    while node is not None and node.op != "Mul":
        node, _ = _only(node.name, readers)
        if node is not None and node.op not in (*PASSED, "Mul"):
            return False
    return node is not None
