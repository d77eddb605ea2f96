"""A Keras model as a function of named arrays: program(feeds by name) -> outputs by name.

Every later step (capture, the converters, verification) sees the model through this one view, whatever its kind:
Sequential, functional, subclassed, nested; lists or dicts of inputs and outputs.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import keras
import numpy as np

from mh_edge.errors import InputError
from mh_edge.signature import Dim, Signature, Tensor
from mh_edge.wording import said

Item = TypeVar("Item")

BATCH = "batch"

# Sizes at which shapes are probed: pairwise different and different from 1, so that nothing broadcasts by accident;
# the larger sets are for models that need a minimum length (valid padding, pooling), the smallest for those that have
# a maximum.
PROBE_SIZES = (
    (7, 11, 13, 17, 19, 23, 29, 31),
    (67, 71, 73, 79, 83, 89, 97, 101),
    (3, 4, 5, 6, 8, 9, 10, 12),
)
PROBE_BATCHES = (2, 3)

MOST_GROUPED = 4
"""Inputs for which every way to share lengths is tried (4 have 15); more share all or none."""

MOST_SIZES = 5
"""The same of free sizes, whatever their axes (5 have 52): those of query, key, value and an attention mask."""


@dataclass(frozen=True)
class Program:
    """A Keras model with its signature.

    model: the model, float32. signature: names and shapes; free dims are named. structure: how the flat inputs are
    handed to the model, as (args, kwargs) whose leaves are input positions.
    """

    model: keras.Model
    signature: Signature
    structure: tuple[Any, dict[str, Any]]

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables the model reads, in a fixed order."""
        return [*self.model.trainable_variables, *self.model.non_trainable_variables]

    @property
    def layers(self) -> list[keras.Layer]:
        """The layers that a rule may take, in a fixed order: all of them, those inside others too."""
        return list(self.model._flatten_layers())

    def outputs(self, flat: Sequence[Any]) -> Any:
        """Inference on the inputs in signature order -> what the model returns, in its own structure."""
        args, kwargs = keras.tree.map_structure(lambda position: flat[position], self.structure)
        return self.model(*args, training=False, **kwargs)

    def call(self, flat: Sequence[Any]) -> list[Any]:
        """Inference on the inputs in signature order -> the outputs in signature order."""
        return keras.tree.flatten(self.outputs(flat))  # type: ignore[no-any-return]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Keras, eagerly: arrays by input name -> arrays by output name."""
        flat = [keras.ops.convert_to_tensor(feeds[tensor.name]) for tensor in self.signature.inputs]
        outputs = self.call(flat)
        return {
            tensor.name: keras.ops.convert_to_numpy(value)
            for tensor, value in zip(self.signature.outputs, outputs, strict=True)
        }


def program(model: keras.Model, feeds: Mapping[str, np.ndarray] | None = None) -> Program:
    """The Program of any Keras 3 model; a model that was never called is built from `feeds` when it needs to be.

    Raises InputError when the inputs are unknown (a subclassed or deferred Sequential model that was never called, and
    no feeds), when the model keeps state between calls, and when an output is always empty.
    """
    structure, inputs = _inputs(model, feeds)
    _refuse_stateful(model)
    unnamed = Program(model, Signature(tuple(inputs), ()), structure)
    return _with_names(unnamed)


def _inputs(
    model: keras.Model, feeds: Mapping[str, np.ndarray] | None
) -> tuple[tuple[Any, dict[str, Any]], list[Tensor]]:
    declared = _declared_inputs(model)
    if declared is not None:
        # A Sequential model that was built by a call wrote that call's batch size down as if it were declared.
        sequential = isinstance(model, keras.Sequential)
        names = _input_names(declared)
        tensors = [
            Tensor(name, keras.backend.standardize_dtype(leaf.dtype), _free(leaf.shape, batch=sequential))
            for name, leaf in zip(names, keras.tree.flatten(declared), strict=True)
        ]
        positions = iter(range(len(tensors)))
        return ((keras.tree.map_structure(lambda _: next(positions), declared),), {}), tensors
    arguments = _arguments(model)
    if feeds and (not model.built or len(arguments) > 1):
        return _from_feeds(model, feeds, arguments)
    if len(arguments) > 1:
        raise InputError(
            f"the model {model.name!r} ({type(model).__name__}) takes several arguments, {', '.join(arguments)}; "
            "Keras keeps the shape of the first alone.",
            "Give --feeds x.npz with an array for each of them.",
        )
    shapes = _built_shapes(model)
    if shapes is None:
        raise InputError(
            f"the model {model.name!r} ({type(model).__name__}) was never called, so its inputs are unknown.",
            "Call it once on real data, start a Sequential model with keras.Input(...), or give --feeds x.npz.",
        )
    return _from_built_shapes(model, shapes, feeds)


def _declared_inputs(model: keras.Model) -> Any | None:
    """The structure of symbolic inputs of a functional or built Sequential model, else None."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0] if model.built and model.inputs else None
    functional = keras.src.models.functional.Functional
    return model.input if isinstance(model, functional) else None


def _input_names(declared: Any) -> list[str]:
    return _paths(declared) if isinstance(declared, dict) else [leaf.name for leaf in keras.tree.flatten(declared)]


def _paths(structure: Any) -> list[str]:
    """The keys that lead to each leaf of a dict, in flattening order."""
    return ["_".join(map(str, path)) for path, _ in keras.tree.flatten_with_path(structure)]


def _free(shape: Sequence[int | None], *, batch: bool) -> tuple[Dim, ...]:
    """Keras's shape with a provisional name for each unknown size, and for the first one if `batch`."""
    sizes: list[Dim] = ["?" if size is None else int(size) for size in shape]
    return ("?", *sizes[1:]) if batch and sizes else tuple(sizes)


def _arguments(model: keras.Model) -> list[str]:
    """The arguments of the model's `call` that have no default: its inputs, if there are several."""
    parameters = model._call_signature.parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [item.name for item in parameters if item.default is inspect.Parameter.empty and item.kind not in kinds]


def _from_feeds(
    model: keras.Model, feeds: Mapping[str, np.ndarray], arguments: Sequence[str]
) -> tuple[tuple[Any, dict[str, Any]], list[Tensor]]:
    """Inputs as the feeds have them: one array is the input, several are the arguments or a dict of inputs; batch
    free.
    """
    positions = {name: position for position, name in enumerate(feeds)}
    structure: tuple[Any, dict[str, Any]]
    if len(arguments) > 1:
        if missing := [name for name in arguments if name not in feeds]:
            raise InputError(
                f"the feeds have no array {missing[0]!r}, an argument of {type(model).__name__}.call.",
                f"It takes {', '.join(arguments)}.",
            )
        structure = ((), positions)
    else:
        structure = ((0 if len(feeds) == 1 else dict(sorted(positions.items())),), {})
    tensors = [Tensor(name, str(array.dtype), ("?", *array.shape[1:])) for name, array in feeds.items()]
    Program(model, Signature(tuple(tensors), ()), structure).call([*map(keras.ops.convert_to_tensor, feeds.values())])
    return structure, tensors


def _built_shapes(model: keras.Model) -> dict[str, Any] | None:
    shapes = model._build_shapes_dict if model.built else None
    return dict(shapes) if shapes else None


def _is_shape(item: Any) -> bool:
    return isinstance(item, tuple | list) and all(size is None or isinstance(size, int) for size in item)


def _from_built_shapes(
    model: keras.Model, shapes: Mapping[str, Any], feeds: Mapping[str, np.ndarray] | None
) -> tuple[tuple[Any, dict[str, Any]], list[Tensor]]:
    """Inputs of a subclassed model, from the shapes it was built with: batch free, every other size as it was seen."""
    tensors: list[Tensor] = []

    def leaf(name: str, shape: Sequence[int | None]) -> int:
        given = None if feeds is None else feeds.get(name)
        dtype = model.input_dtype if given is None else str(given.dtype)
        tensors.append(Tensor(name, dtype, _free(shape, batch=True)))
        return len(tensors) - 1

    def walk(name: str, item: Any) -> Any:
        if _is_shape(item):
            return leaf(name, item)
        if isinstance(item, Mapping):
            return {key: walk(str(key), item[key]) for key in sorted(item)}
        return [walk(f"{name}_{index}", part) for index, part in enumerate(item)]

    first = next(iter(model._call_signature.parameters))
    return ((walk(first, next(iter(shapes.values()))),), {}), tensors


def _refuse_stateful(model: keras.Model) -> None:
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.RNN) and layer.stateful:
            raise InputError(
                f"layer {layer.name!r} ({type(layer).__name__}) has stateful=True: it keeps state between calls.",
                "Export it with --state-io (state_io=True): each state becomes an input and an output.",
            )


def _with_names(unnamed: Program) -> Program:
    """Name the free dims and find the outputs by running the model at probe sizes."""
    inputs = unnamed.signature.inputs
    named = [_named(inputs, sharing) for sharing in _sharings(inputs)]
    for candidate in (*named, *_across(named[0])):
        probed = _probe(unnamed, candidate)
        if not isinstance(probed, str):
            _refuse_empty(probed)
            return Program(unnamed.model, Signature(candidate, probed), unnamed.structure)
    raise InputError(
        f"Keras itself cannot run the model {unnamed.model.name!r} on zeros of its own input shapes: {probed}",
        "If some of its free sizes depend on each other, make them numbers in keras.Input.",
    )


def _refuse_empty(outputs: Sequence[Tensor]) -> None:
    for tensor in outputs:
        if 0 in tensor.shape:
            raise InputError(
                f"output {tensor.name!r} has the shape {tensor.shape}: it holds no number, so nothing can be proven.",
                "Build the model with sizes of at least 1.",
            )


def _sharings(inputs: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """The ways in which inputs may share free sizes, the freest first: for each input, the one it is named after."""
    free = [tensor for tensor in inputs if "?" in tensor.shape[1:]]
    return [tuple(leader.get(tensor, tensor) for tensor in inputs) for leader in _ways(free, MOST_GROUPED)]


def _ways(items: Sequence[Item], most: int) -> list[dict[Item, Item]]:
    """The ways to take items for one, the freest first: for each item, the first of those that it is one with."""
    if len(items) > most:
        ways = [tuple(items), (items[0],) * len(items)]
    else:
        ways = [()]
        for item in items:
            ways = [(*way, leader) for way in ways for leader in (*dict.fromkeys(way), item)]
    return [dict(zip(items, way, strict=True)) for way in sorted(ways, key=lambda way: -len(set(way)))]


def _across(inputs: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Named inputs with sizes of different axes as one, the freest first: an attention mask is as wide as the key is
    long.
    """
    at = {dim: (axis, tensor) for tensor in inputs for axis, dim in enumerate(tensor.shape) if isinstance(dim, str)}
    at.pop(BATCH, None)
    if all(axis == 1 for axis, _ in at.values()):
        return  # nothing that the inputs cannot share as a whole
    for leader in _ways(sorted(at, key=lambda dim: at[dim][0]), MOST_SIZES):
        (first, *others) = dict.fromkeys(leader.values())
        short = {} if others else {first: first.removeprefix(f"{at[first][1].name}_")}
        names = {dim: short.get(one, one) for dim, one in leader.items()}
        yield tuple(
            replace(tensor, shape=tuple(names.get(dim, dim) if isinstance(dim, str) else dim for dim in tensor.shape))
            for tensor in inputs
        )


def _named(inputs: Sequence[Tensor], sharing: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Free dims by name: "batch", then "sequence" (or "height", "width" of images), after the input that leads the
    sharing where there are several.
    """
    leaders = dict(zip(inputs, sharing, strict=True))
    several = len({leader for leader in sharing if "?" in leader.shape[1:]}) > 1

    def dim(tensor: Tensor, axis: int, size: Dim) -> Dim:
        if size != "?":
            return size
        if axis == 0:
            return BATCH
        image = len(tensor.shape) == 4
        base = (
            {1: "height", 2: "width"}.get(axis, f"dim_{axis}") if image else "sequence" if axis == 1 else f"dim_{axis}"
        )
        return f"{leaders[tensor].name}_{base}" if several else base

    return tuple(
        Tensor(tensor.name, tensor.dtype, tuple(dim(tensor, axis, size) for axis, size in enumerate(tensor.shape)))
        for tensor in inputs
    )


def _attempt(unnamed: Program, inputs: Sequence[Tensor], sizes: Mapping[str, int]) -> Any | str:
    """The outputs of the model at these sizes in their structure, or what Keras said against them."""
    import tensorflow as tf

    feeds = [
        keras.ops.zeros([sizes[dim] if isinstance(dim, str) else dim for dim in tensor.shape], dtype=tensor.dtype)
        for tensor in inputs
    ]
    try:
        return unnamed.outputs(feeds)
    except (ValueError, TypeError, IndexError, tf.errors.OpError) as error:
        return said(error)


def _probe(unnamed: Program, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | str:
    """Output tensors, their free dims named after the input dims they follow; what Keras said first where no probe size
    suits the model.
    """
    names = Signature(inputs, ()).free_dims()
    lengths = [name for name in names if name != BATCH]
    reasons = []
    for sizes in PROBE_SIZES:
        if 2 * len(lengths) > len(sizes):
            return f"it has {len(lengths)} free sizes"
        first = dict(zip(lengths, sizes, strict=False)) | {BATCH: PROBE_BATCHES[0]}
        second = dict(zip(lengths, sizes[len(lengths) :], strict=False)) | {BATCH: PROBE_BATCHES[1]}
        one = _attempt(unnamed, inputs, first)
        two = one if isinstance(one, str) else _attempt(unnamed, inputs, second)
        if not isinstance(two, str):
            return _outputs(unnamed, inputs, one, two, (first, second))
        reasons.append(two)
    return reasons[0]


def _outputs(
    unnamed: Program, inputs: Sequence[Tensor], one: Any, two: Any, sizes: tuple[Mapping[str, int], Mapping[str, int]]
) -> tuple[Tensor, ...]:
    first, second = sizes

    def dim(name: str, axis: int, seen: tuple[int, int]) -> Dim:
        if axis > 0 and seen[0] == seen[1]:
            return seen[0]
        followed = [key for key in first if (first[key], second[key]) == seen]
        return followed[0] if followed else seen[0] if seen[0] == seen[1] else f"{name}_dim_{axis}"

    names = _unique(_output_names(unnamed.model, one), taken=[tensor.name for tensor in inputs])
    return tuple(
        Tensor(
            name,
            keras.backend.standardize_dtype(a.dtype),
            tuple(dim(name, axis, (int(m), int(n))) for axis, (m, n) in enumerate(zip(a.shape, b.shape, strict=True))),
        )
        for name, a, b in zip(names, keras.tree.flatten(one), keras.tree.flatten(two), strict=True)
    )


def _output_names(model: keras.Model, outputs: Any) -> list[str]:
    """Keras's names: the key of a dict output, else the producing layer of a functional model, else output_0,
    output_1, ... (the model's own name for a single one).
    """
    if isinstance(outputs, dict):
        return _paths(outputs)
    if isinstance(model, keras.Sequential):
        return [model.layers[-1].name]
    flat = keras.tree.flatten(outputs)
    if isinstance(model, keras.src.models.functional.Functional):
        return [leaf._keras_history.operation.name for leaf in keras.tree.flatten(model.output)]
    return [model.name] if len(flat) == 1 else [f"output_{index}" for index in range(len(flat))]


def _unique(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """The names, with a number where one is taken."""
    seen = set(taken)
    result = []
    for name in names:
        numbered = (f"{name}_{count}" for count in itertools.count(1))
        result.append(name if name not in seen else next(other for other in numbered if other not in seen))
        seen.add(result[-1])
    return result
