"""Weights of Keras-2 files: found by layer and order, each shape checked before anything is assigned.

A group of layers (`model_weights` of a whole file, the root of a weights-only file) has the attribute `layer_names`;
each layer's group has `weight_names`: the layer's trainable weights in their order, then its others. Their names have
changed between versions (with or without `sub_0`, a layer's name in front or not), so they decide only where all agree.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

import h5py
import keras

from mh_edge.errors import InputError

SAVE_AGAIN = "Build the same architecture as the one saved, or save the weights again where they were trained."


@dataclass(frozen=True)
class Stored:
    """One weight in the file. name: as in `weight_names`."""

    name: str
    dataset: Any

    @property
    def tail(self) -> str:
        """The last part of the name: "Multi-LSTMs/sub_0/lstm_cell/kernel:0" -> "kernel"."""
        return self.name.rsplit("/", 1)[-1].partition(":")[0]


def load(model: Any, group: Any, source: str) -> None:
    """Put the weights in a group of layers into a built model.

    Raises InputError, with the model untouched, for a weight that does not fit, is missing or is one too many.
    """
    stored = {name: _stored(group, name, source) for name in _names(group, "layer_names")}
    stored = {name: weights for name, weights in stored.items() if weights}
    takers = [layer for layer in model.layers if layer.weights]
    pairs = _pair_layers(takers, stored, source)
    if "top_level_model_weights" in group:
        nested = {id(variable) for layer in model.layers for variable in layer.weights}
        own = [variable for variable in model.weights if id(variable) not in nested]
        pairs += _pair(model.name, own, _stored(group, "top_level_model_weights", source), source)
    for variable, weight in pairs:
        variable.assign(weight.dataset[()])


def _pair_layers(takers: Sequence[Any], stored: dict[str, list[Stored]], source: str) -> list[tuple[Any, Stored]]:
    """Layers by name where the file and the model have the same names, else in order."""
    if len(takers) != len(stored):
        raise InputError(
            f"{source} holds weights for {len(stored)} layers ({_listed(stored)}), "
            f"the model has {len(takers)} layers with weights ({_listed(layer.name for layer in takers)}).",
            SAVE_AGAIN,
        )
    if {layer.name for layer in takers} == stored.keys():
        matched = [(layer, stored[layer.name]) for layer in takers]
    else:
        matched = list(zip(takers, stored.values(), strict=True))
    return [pair for layer, weights in matched for pair in _pair_layer(layer, weights, source)]


def _pair_layer(layer: Any, weights: list[Stored], source: str) -> list[tuple[Any, Stored]]:
    """A nested model's weights lie flat in one group; the first part of a name is the inner layer's."""
    if isinstance(layer, keras.Model):
        inner = [leaf for leaf in _leaves(layer) if leaf.weights]
        by_layer: dict[str, list[Stored]] = defaultdict(list)
        for weight in weights:
            by_layer[weight.name.split("/", 1)[0]].append(weight)
        if len(inner) == len(by_layer) and {leaf.name for leaf in inner} == by_layer.keys():
            return _pair_layers(inner, by_layer, source)
    return _pair(layer.name, layer.trainable_weights + layer.non_trainable_weights, weights, source)


def _leaves(model: Any) -> list[Any]:
    return [leaf for layer in model.layers for leaf in (_leaves(layer) if isinstance(layer, keras.Model) else [layer])]


def _pair(owner: str, variables: Sequence[Any], weights: list[Stored], source: str) -> list[tuple[Any, Stored]]:
    """One layer's variables with its weights, in order; shapes must agree."""
    if len(variables) != len(weights):
        raise InputError(
            f"{source} holds {len(weights)} weights for the layer {owner!r} ({_listed(one.name for one in weights)}), "
            f"which has {len(variables)} ({_listed(one.path for one in variables)}).",
            SAVE_AGAIN,
        )
    pairs = list(zip(variables, _in_order_of(variables, weights), strict=True))
    wrong = [
        f"{weight.name} is {tuple(weight.dataset.shape)}, {variable.path} takes {tuple(variable.shape)}"
        for variable, weight in pairs
        if tuple(weight.dataset.shape) != tuple(variable.shape)
    ]
    if wrong:
        raise InputError(f"{source}: the layer {owner!r} has other shapes: {'; '.join(wrong)}.", SAVE_AGAIN)
    return pairs


def _in_order_of(variables: Sequence[Any], weights: list[Stored]) -> list[Stored]:
    """The order of the file, unless the last parts of all names agree: then the n-th `gamma` is that of the n-th head.

    The orders differ when a layer was frozen in only one of the two: a frozen layer lists the variables of each head
    together, a trainable one those of all heads that train before those that do not, and the shapes are equal.
    """
    by_tail: dict[str, list[Stored]] = defaultdict(list)
    for weight in weights:
        by_tail[weight.tail].append(weight)
    if Counter(variable.name for variable in variables) != Counter(weight.tail for weight in weights):
        return weights
    return [by_tail[variable.name].pop(0) for variable in variables]


def _stored(group: Any, layer: str, source: str) -> list[Stored]:
    inner = _member(group, layer, source)
    return [Stored(name, _dataset(inner, name, source)) for name in _names(inner, "weight_names")]


def _dataset(group: Any, name: str, source: str) -> Any:
    dataset = _member(group, name, source)
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiub":
        raise InputError(f"{source} is damaged: {name} is not an array of numbers.", SAVE_AGAIN)
    if dataset.external or dataset.is_virtual or dataset.file.filename != group.file.filename:
        # following it would let a model file read any other file of this machine
        raise InputError(f"{source}: {name} lies in another file, which is not followed.", SAVE_AGAIN)
    return dataset


def _member(group: Any, name: str, source: str) -> Any:
    if name not in group:
        raise InputError(f"{source} is damaged: it names the weights {name} and does not hold them.", SAVE_AGAIN)
    return group[name]


def _names(group: Any, attribute: str) -> list[str]:
    """A list of names; one too long for an attribute is cut into `weight_names0`, `weight_names1`, ..."""
    numbered = takewhile(group.attrs.__contains__, (f"{attribute}{number}" for number in count()))
    parts = [attribute] if attribute in group.attrs else list(numbered)
    names = [name for part in parts for name in group.attrs[part]]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _listed(names: Any, most: int = 6) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
