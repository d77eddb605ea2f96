"""Which sizes in an ONNX graph are the same, also where they are free."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

Size = int | str | None
"""Of an axis: a number, the name of a free size, or unknown. The same name is the same size."""

Sizes = tuple[Size, ...]

# fmt: off
ELEMENTWISE = frozenset({
    "Abs", "Add", "Cast", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu",
    "Log", "Max", "Min", "Mish", "Mul", "Neg", "Pow", "PRelu", "Reciprocal", "Relu", "Selu", "Sigmoid", "Softplus",
    "Softsign", "Sqrt", "Sub", "Swish", "Tanh", "ThresholdedRelu", "Where",
})
# fmt: on
"""Operations that broadcast their inputs and then work on each number by itself."""


def sizes_of(graph: ir.Graph) -> dict[str, Sizes]:
    """The sizes of every value of a graph with inferred shapes, by its name.

    Inference gives a new name to a size that it cannot follow, as through Reshape(x, (0, -1, H, D)). Where the others
    say that it is one of the old ones, it is called that, here and in all that is made of it.
    """
    same: dict[Size, Size] = {}

    def oldest(size: Size) -> Size:
        while size in same:
            size = same[size]
        return size

    def named(value: ir.Value | None) -> Sizes:
        dims = () if value is None or value.shape is None else value.shape.dims
        return tuple(oldest(size if isinstance(size, int) else size.value) for size in dims)

    result = {}
    for value in values_of(graph):
        node, found = value.producer(), named(value)
        if node is not None and not node.domain and found:
            better = _better(node.op_type, [named(given) for given in node.inputs], found)
            for old, new in zip(found, better, strict=True):
                if isinstance(old, str) and oldest(old) != oldest(new):
                    same[oldest(old)] = oldest(new)
            found = better
        if value.shape is not None:
            result[value.name or ""] = found
    return result


def values_of(graph: ir.Graph) -> list[ir.Value]:
    """Of the graph itself, without its subgraphs, in the order in which they come to be."""
    made = [value for node in graph for value in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *made]


def free(sizes: Sizes) -> int:
    """How many are not numbers."""
    return sum(not isinstance(size, int) for size in sizes)


def _better(op_type: str, given: Sequence[Sizes], found: Sizes) -> Sizes:
    """With the numbers that inference found, and names for the rest."""
    guess = found
    if op_type == "Reshape":
        guess = _reshaped(given[0], found)
    elif op_type in ELEMENTWISE:
        guess = _broadcast(given, found)
    return tuple(old if isinstance(old, int) else new for old, new in zip(found, guess, strict=True))


def _reshaped(given: Sizes, found: Sizes) -> Sizes:
    """(b, t, H·D) -> (b, ?, H, D) and back: where the numbers at the end have one product and all other sizes but one
    are what they were, that one is too.
    """
    for count in range(1, min(len(given), len(found))):
        ends = [[size for size in sizes[count:] if isinstance(size, int)] for sizes in (given, found)]
        if free(given[count:]) or free(found[count:]) or not prod(ends[0]) == prod(ends[1]) > 0:
            continue
        if sum(old is None or old != new for old, new in zip(given[:count], found[:count], strict=True)) == 1:
            return given[:count] + found[count:]
    return found


def _broadcast(given: Sequence[Sizes], found: Sizes) -> Sizes:
    """The size of an axis is that of all inputs that have it and are not 1 along it."""
    result = list(found)
    for axis in range(1, len(found) + 1):
        seen = {sizes[-axis] for sizes in given if len(sizes) >= axis} - {1}
        if len(seen) == 1 and None not in seen:
            (result[-axis],) = seen
    return tuple(result)
