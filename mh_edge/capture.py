"""Tracing: a Keras callable -> a TensorFlow graph in which each layer with a rule is one marked operation.

While tracing, the `call` of every layer instance that a rule takes is replaced; Keras's own `__call__` (masks, dtype
policies, nested models) stays in charge around it. Two replacements exist:

- `mark` (ONNX): the layer becomes one opaque operation whose token leads back to its `LayerCall`; the converter
expands it later. - a lowering called in place (TFLite): the rule's TensorFlow operations stand where the layer's own
would have stood.

Weights travel beside the graph: the callable runs in a `keras.StatelessScope` with every variable as a further graph
input, so a converter never carries their bytes, and nothing in the graph is a variable that freezing could miss.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from mh_edge.errors import InputError
from mh_edge.rules import Rule, RuleSet
from mh_edge.signature import Tensor

_VECTORIZED = "loop_body"
"""TensorFlow's name of the graph in which it traces the function of a vectorized map; a mark cannot be vectorized."""

MARK = "PyFuncStateless"
"""The TensorFlow op that stands for a marked layer: any inputs, any outputs, a string to recognise it by, never folded
away.
"""

Replacement = Callable[[Rule, keras.Layer, Mapping[str, Any], Callable[[], Any]], Any]
"""(rule, layer, bound call arguments, the layer's own body) -> what the layer returns."""


@dataclass(frozen=True)
class LayerCall:
    """One call of one layer with a rule.

    arguments, outputs: structures whose tensors are `Slot`s, positions among the mark's inputs or outputs. specs:
    dtype and static shape ("?" is unknown) of each input of the mark.
    """

    rule: Rule
    layer: keras.Layer
    arguments: Mapping[str, Any]
    outputs: Any
    specs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Slot:
    """The position of a tensor among the inputs or outputs of a marked operation."""

    index: int


@dataclass(frozen=True)
class Weight:
    """A weight or constant of the graph: its Keras path, and how to read its numbers when they are needed."""

    path: str
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Capture:
    """A traced callable.

    graph: a tf.GraphDef. inputs, outputs: tensor names in order. shapes: of the outputs, None where a size, or the
    rank, is not known. weights: graph input name -> its value, for the inputs that are weights or constants. calls:
    mark token -> LayerCall.
    """

    graph: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: tuple[tuple[int | None, ...] | None, ...]
    weights: Mapping[str, Weight]
    calls: Mapping[str, LayerCall]


def split_arguments(arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """(inputs, masks) of a layer call, as rules take them.

    inputs: every tensor argument but masks, in order. masks: one per input; a single mask belongs to every tensor of
    the first argument, a list of masks to its tensors in turn, and further inputs (initial states) have None.
    """
    tensors = {name: value for name, value in arguments.items() if name not in ("mask", "training")}
    flat = {name: [leaf for leaf in _leaves(value) if _is_tensor(leaf)] for name, value in tensors.items()}
    inputs = tuple(leaf for leaves in flat.values() for leaf in leaves)
    first = len(next(iter(flat.values()))) if flat else 0
    mask = arguments.get("mask")
    masks = list(mask) if isinstance(mask, list | tuple) else [mask] * first
    padding: list[Any] = [None] * (len(inputs) - len(masks))
    return inputs, tuple((masks + padding)[: len(inputs)])


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, tf.Tensor | Slot) or keras.ops.is_tensor(leaf)


def _leaves(structure: Any) -> list[Any]:
    return [structure] if isinstance(structure, Slot) else keras.tree.flatten(structure)


@contextmanager
def replaced(layers: Sequence[keras.Layer], rules: RuleSet, replacement: Replacement) -> Iterator[None]:
    """While the context lasts, calls of the layers that a rule takes go to `replacement`. Calls inside a replaced body
    do not.
    """
    inside = [False]
    patched: list[keras.Layer] = []

    def patch(layer: keras.Layer, rule: Rule) -> None:
        body = layer.call
        parameters = inspect.signature(body)

        def call(*args: Any, **kwargs: Any) -> Any:
            if inside[0]:
                return body(*args, **kwargs)
            arguments = parameters.bind(*args, **kwargs).arguments

            def own_body() -> Any:
                inside[0] = True
                try:
                    return body(*args, **kwargs)
                finally:
                    inside[0] = False

            return replacement(rule, layer, arguments, own_body)

        # Past Keras's attribute tracking, which would record the function as part of the layer.
        vars(layer)["call"] = call
        patched.append(layer)

    try:
        for layer in dict.fromkeys(layers):
            if (rule := rules.find(layer)) is not None:
                patch(layer, rule)
        yield
    finally:
        for layer in patched:
            del vars(layer)["call"]


def nested_layers(layer: keras.Layer) -> list[keras.Layer]:
    """The layer and everything inside it."""
    return list(layer._flatten_layers())


def capture(
    function: Callable[[Sequence[Any]], Any],
    inputs: Sequence[Tensor],
    *,
    layers: Sequence[keras.Layer] = (),
    variables: Sequence[keras.Variable] = (),
    rules: RuleSet,
) -> Capture:
    """Trace `function(list of tensors) -> structure of tensors` for the given input dtypes and shapes (names are free
    sizes).

    layers: those to look up rules for. variables: those that become graph inputs.
    Raises InputError for a graph that draws random numbers, keeps state between calls or looks up in tables.
    """
    calls: dict[str, LayerCall] = {}
    assigned: list[str] = []

    def mark(rule: Rule, layer: keras.Layer, arguments: Mapping[str, Any], body: Callable[[], Any]) -> Any:
        # The body is traced for its output shapes alone; nothing reads it, so pruning removes it.
        outputs = body()
        if _VECTORIZED in tf.compat.v1.get_default_graph().name:
            return outputs
        tensors = [leaf for leaf in keras.tree.flatten(dict(arguments)) if _is_tensor(leaf)]
        results = keras.tree.flatten(outputs)
        token = f"call_{len(calls)}"
        marked = tf.raw_ops.PyFuncStateless(input=tensors, token=token, Tout=[result.dtype for result in results])
        shaped = [tf.ensure_shape(value, result.shape) for value, result in zip(marked, results, strict=True)]
        calls[token] = LayerCall(rule, layer, _slots(arguments), _slots(outputs), tuple(map(_spec, tensors)))
        return keras.tree.pack_sequence_as(outputs, shaped)

    def traced(*flat: Any) -> list[Any]:
        mapping = list(zip(variables, flat[len(inputs) :], strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope, replaced(layers, rules, mark):
            outputs = function(flat[: len(inputs)])
        for variable, given in mapping:
            if scope.get_current_value(variable) is not given and not variable.path.endswith("seed_generator_state"):
                assigned.append(variable.path)
        return [tf.identity(leaf) for leaf in keras.tree.flatten(outputs)]

    specs = [
        tf.TensorSpec(
            [None if isinstance(dim, str) else dim for dim in tensor.shape], tensor.dtype, name=f"input_{index}"
        )
        for index, tensor in enumerate(inputs)
    ]
    weight_specs = [tf.TensorSpec(v.shape, v.dtype, name=f"weight_{index}") for index, v in enumerate(variables)]
    # A new tf.function per trace: a retrace of an old one would skip the replaced calls.
    concrete = tf.function(traced, autograph=False).get_concrete_function(*specs, *weight_specs)
    outputs = tuple(tensor.name for tensor in concrete.outputs)
    shapes = tuple(None if tensor.shape.rank is None else tuple(tensor.shape) for tensor in concrete.outputs)
    names = [tensor.name for tensor in concrete.inputs]
    graph = _inlined(concrete, keep=names[: len(inputs)])
    refuse_random(graph)
    if assigned:
        raise InputError(
            f"the model assigns to {assigned[0]} at inference, so its answer depends on the calls before.",
            "An exported file must give the same answer on every call; make that state an input and an output.",
        )
    kept = {node.name for node in graph.node}
    values = [Weight(variable.path, partial(keras.ops.convert_to_numpy, variable)) for variable in variables]
    values += [Weight("constant", tensor.numpy) for tensor in concrete.captured_inputs]
    weights = {
        name: value for name, value in zip(names[len(inputs) :], values, strict=True) if _node_name(name) in kept
    }
    for name, tensor in zip(names[len(specs) + len(weight_specs) :], concrete.captured_inputs, strict=True):
        if name in weights and tensor.dtype == tf.resource:
            raise InputError(
                "the model looks its input up in a table (as StringLookup, IntegerLookup and TextVectorization do), "
                "which is not exported.",
                "Look up before the model: give the model ids.",
            )
    return Capture(graph, tuple(names[: len(inputs)]), outputs, shapes, weights, calls)


def _inlined(concrete: Any, keep: Sequence[str]) -> Any:
    """The traced graph as a tf.GraphDef with its function calls inlined, and what neither an output needs nor `keep`
    names (inputs that nothing reads are inputs of the file all the same) dropped.

    Nothing is frozen here, there are no variables in it; but loops come out of this in the form that tf2onnx knows.
    """
    frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False, aggressive_inlining=False)
    wanted = [*keep, *(tensor.name for tensor in concrete.outputs)]
    graph = _needed(frozen.graph.as_graph_def(), list(map(_node_name, wanted)))
    for node in (*graph.node, *(node for function in graph.library.function for node in function.node_def)):
        # Keras asks for XLA around grouped convolutions; a converter may inline them all the same.
        node.attr.pop("_XlaMustCompile", None)
    for function in graph.library.function:
        function.attr.pop("_XlaMustCompile", None)
        function.attr.pop("_noinline", None)
    return graph


def _needed(graph: Any, wanted: Sequence[str]) -> Any:
    """The wanted nodes and those that they depend on, in their order."""
    nodes = {node.name: node for node in graph.node}
    needed: set[str] = set()
    pending = list(wanted)
    while pending:
        if (name := pending.pop()) not in needed:
            needed.add(name)
            pending += map(_node_name, nodes[name].input)
    kept = [node for node in graph.node if node.name in needed]
    return tf.compat.v1.GraphDef(node=kept, versions=graph.versions, library=graph.library)


def _node_name(tensor: str) -> str:
    """Of `name:1` (an output) and `^name` (a control input)."""
    return tensor.removeprefix("^").split(":")[0]


def _spec(tensor: Any) -> Tensor:
    shape = ("?",) if tensor.shape.rank is None else tuple("?" if size is None else size for size in tensor.shape)
    return Tensor(tensor.name, keras.backend.standardize_dtype(tensor.dtype), shape)


def _slots(structure: Any) -> Any:
    """The structure with each tensor replaced by its position among the tensors, in Keras's flattening order."""
    flat = keras.tree.flatten(dict(structure) if isinstance(structure, Mapping) else structure)
    count = iter(range(len(flat)))
    slots = [Slot(next(count)) if _is_tensor(leaf) else leaf for leaf in flat]
    return keras.tree.pack_sequence_as(dict(structure) if isinstance(structure, Mapping) else structure, slots)


def refuse_random(graph: Any) -> None:
    """InputError when the graph (a tf.GraphDef), or a body of one of its loops and branches, holds an operation that
    draws random numbers.
    """
    for node in (*graph.node, *(node for function in graph.library.function for node in function.node_def)):
        if "Random" in node.op or node.op == "Multinomial":
            raise InputError(
                f"the model draws random numbers at inference (operation {node.op} at {node.name}).",
                "An exported file must give the same answer on every call; take the random layer out.",
            )
