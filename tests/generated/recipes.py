"""A model as plain data: what the strategies draw, hypothesis prints, and a report can be repeated from.

A recipe is a list of nodes. A node is a layer, or an input, with the values that it is called on; a value is called
after the node that made it ("n2"), the second of several "n2:1". Values that no node takes are the model's outputs.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np

import mh_edge.layers

INPUT, AGAIN, MODEL, SEQUENTIAL = "Input", "again", "Model", "Sequential"
OURS = "ours."
"""Before the names of this package's layers: Keras has a MultiHeadAttention too."""

POSITIONAL = ("MultiHeadAttention", "GroupQueryAttention")
"""Layers that take their tensors as several arguments, not as one list."""

Options = Mapping[str, Any]
Spec = tuple[str, Options] | list[Any]
"""(kind, options) of a layer; options may hold such pairs: a cell, the heads, what Bidirectional wraps."""


@dataclass(frozen=True)
class Node:
    """kind(**options)(values, **call). call: arguments by name; what is the name of a value stands for it."""

    name: str
    kind: str
    options: Options = field(default_factory=dict)
    values: tuple[str, ...] = ()
    call: Options = field(default_factory=dict)

    def taken(self) -> Iterator[str]:
        """Every value that the node needs."""
        yield from self.values
        for argument in self.call.values():
            yield from (item for item in _listed(argument) if isinstance(item, str))


@dataclass(frozen=True)
class Recipe:
    """A model and what to make of it.

    policy: Keras's dtype policy. sizes: free sizes to fix in every file. opset: of the ONNX file for the CPU. merge:
    whether parallel heads may become one operation. seed: of the weights.
    """

    nodes: tuple[Node, ...]
    policy: str = "float32"
    sizes: Mapping[str, int] = field(default_factory=dict)
    opset: int = 23
    merge: bool = True
    seed: int = 0

    def __repr__(self) -> str:
        return f"recipe({self.text()!r})"

    def text(self) -> str:
        """JSON in one line, read by `recipe`."""
        nodes = [[node.name, node.kind, dict(node.options), list(node.values), dict(node.call)] for node in self.nodes]
        return json.dumps(asdict(self) | {"nodes": nodes})


def recipe(text: str) -> Recipe:
    """The recipe that `Recipe.text` wrote."""
    data = json.loads(text)
    return Recipe(**data | {"nodes": nodes_of(data["nodes"])})


def nodes_of(rows: Sequence[Sequence[Any]]) -> tuple[Node, ...]:
    """Nodes of rows [name, kind, options, values, call]."""
    return tuple(Node(name, kind, options, tuple(values), call) for name, kind, options, values, call in rows)


class Building:
    """The symbolic model so far: values by name, layers by node."""

    def __init__(self, nodes: Sequence[Node] = ()) -> None:
        self.values: dict[str, Any] = {}
        self.layers: dict[str, keras.layers.Layer] = {}
        self.nodes: list[Node] = []
        self.inputs: list[Any] = []
        for node in nodes:
            self.add(node)

    def add(self, node: Node) -> None:
        """Raises what Keras raises for a node that does not fit; nothing is added then."""
        if node.kind == INPUT:
            made = keras.Input(node.options["shape"], dtype=node.options.get("dtype", "float32"), name=node.name)
            self.inputs.append(made)
        else:
            layer = (
                self.layers[node.options["of"]] if node.kind == AGAIN else make((node.kind, node.options), node.name)
            )
            taken = [self.values[value] for value in node.values]
            call = {name: self._argument(argument) for name, argument in node.call.items()}
            positional = taken if node.kind in POSITIONAL or len(taken) == 1 else [taken]
            made = layer(*positional, **call)
            self.layers[node.name] = layer
        for index, value in enumerate(keras.tree.flatten(made)):
            self.values[f"{node.name}:{index}" if index else node.name] = value
        self.nodes.append(node)

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, list):
            return [self._argument(item) for item in argument]
        return self.values[argument] if isinstance(argument, str) else argument

    def outputs(self) -> list[str]:
        """Values that no node takes; an input is none."""
        taken = {value for node in self.nodes for value in node.taken()}
        made = {node.name for node in self.nodes if node.kind == INPUT}
        return [name for name in self.values if name not in taken | made]

    def model(self, name: str) -> keras.Model:
        return keras.Model(self.inputs, [self.values[output] for output in self.outputs()], name=name)


def make(spec: Spec, name: str | None = None) -> keras.layers.Layer:
    """The layer of a kind and its options."""
    kind, options = spec
    if kind == MODEL:
        return Building(nodes_of(options["nodes"])).model(name or MODEL)
    if kind == SEQUENTIAL:
        return keras.Sequential([make(layer) for layer in options["layers"]], name=name)
    home = mh_edge.layers if kind.startswith(OURS) else keras.layers
    given = {option: _made(value) for option, value in options.items()}
    if name is not None:
        given["name"] = name
    return getattr(home, kind.removeprefix(OURS))(**given)


def _made(value: Any) -> Any:
    if _is_spec(value):
        return make(value)
    return [make(item) for item in value] if value and all(map(_is_spec, _listed(value))) else value


def _is_spec(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[1], dict)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def build(recipe: Recipe) -> keras.Model:
    """The model of a recipe, every weight away from where initialisers put it; statistics stay valid."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.policy)
    try:
        building = Building(recipe.nodes)
        model = building.model("generated")
    finally:
        keras.config.set_dtype_policy(policy)
    for name, layer in building.layers.items():
        for index, variable in enumerate(layer.variables):
            if keras.backend.is_float_dtype(variable.dtype):
                # By node and position, so that they stay when other nodes go (Keras numbers inner layers as it likes).
                random = np.random.default_rng([recipe.seed, zlib.crc32(name.encode()), index])
                variable.assign(_numbers(variable.name, tuple(variable.shape), random))
    return model


def _numbers(name: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    normal = random.standard_normal(shape)
    if name == "moving_variance":
        return 0.3 + random.random(shape)
    if name in ("gamma", "scale"):
        return 1 + 0.3 * normal
    if len(shape) < 2:
        return 0.4 * normal
    # Numbers that neither fade nor grow from layer to layer.
    return normal / np.sqrt(np.prod(shape[:-1]))
