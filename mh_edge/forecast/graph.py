"""A model's nodes as delegates look at them: operations, types and sizes of what goes in and out, what is constant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mh_edge.forecast.result import Refusal
from mh_edge.signature import Dim, Signature

UNKNOWN = "unknown"
"""The name of a size that nobody could infer."""


@dataclass(frozen=True)
class Tensor:
    """dtype: "float32". shape: None when nobody could infer its rank. constant: stored in the file."""

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None
    constant: bool

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)

    @property
    def free(self) -> tuple[str, ...]:
        """Names of its free sizes."""
        return (UNKNOWN,) if self.shape is None else tuple(size for size in self.shape if isinstance(size, str))


@dataclass(frozen=True, eq=False)
class Node:
    """op: "MatMul", "com.microsoft.MatMulNBits", "FULLY_CONNECTED". inputs: None for one left out. options: the node's
    attributes (ONNX). body: 0 for the main graph, others for the bodies of loops and branches. version: of the
    operation (TFLite).
    """

    op: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: Mapping[str, Any]
    body: int = 0
    version: int = 1

    def input(self, place: int) -> Tensor | None:
        """None when it is left out."""
        return self.inputs[place] if place < len(self.inputs) else None

    @property
    def given(self) -> tuple[Tensor, ...]:
        """The inputs that are there."""
        return tuple(tensor for tensor in self.inputs if tensor is not None)

    @property
    def computed(self) -> tuple[Tensor, ...]:
        """The inputs that are not constants."""
        return tuple(tensor for tensor in self.given if not tensor.constant)


@dataclass(frozen=True)
class Graph:
    """nodes: in the order of the file. outputs: names of the tensors. ours: mh-edge exported it. split(taken nodes) ->
    the connected parts into which the runtime would put them.
    """

    path: Path
    format: str
    nodes: Sequence[Node]
    signature: Signature
    outputs: frozenset[str]
    ours: bool
    split: Callable[[frozenset[Node]], list[list[Node]]]
    maker: Mapping[str, Node] = field(init=False)
    users: Mapping[str, tuple[Node, ...]] = field(init=False)

    @property
    def free(self) -> tuple[str, ...]:
        """Names of the free sizes of its inputs."""
        return self.signature.free_dims()

    def __post_init__(self) -> None:
        # Names of ONNX's bodies may hide those outside; nodes in them are not looked into.
        known = [node for node in self.nodes if self.format == "tflite" or not node.body]
        maker = {tensor.name: node for node in known for tensor in node.outputs}
        users: dict[str, tuple[Node, ...]] = {}
        for node in known:
            for name in {tensor.name for tensor in node.given}:
                users[name] = (*users.get(name, ()), node)
        object.__setattr__(self, "maker", maker)
        object.__setattr__(self, "users", users)


Check = Callable[[Node, Graph], Refusal | None]
"""Whether a delegate leaves a node, and why."""


def first(node: Node, graph: Graph, checks: Iterable[Check]) -> Refusal | None:
    """The first refusal of several checks."""
    return next(filter(None, (check(node, graph) for check in checks)), None)
