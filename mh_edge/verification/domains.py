"""Which values each input of a model may take: ids below the vocabulary they are looked up in, and what marks a masked
step.

Found by running the model and watching what arrives at its Embedding and Masking layers, so it holds for any kind of
model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mh_edge.program import BATCH, PROBE_SIZES, Program
from mh_edge.signature import Domain, Signature, Tensor

PROBE_BATCH = 2
SAFE_IDS = 2  # 0 and 1 are ids of any vocabulary


@dataclass
class _Sink:
    """A layer that gives its input a meaning, and what arrived there in one run."""

    ids_below: int | None
    mask_value: float | None
    arrived: list[np.ndarray] = field(default_factory=list)


def derive(program: Program) -> Program:
    """The program with the `domain` of each input filled in.

    An integer (or id-like float) input on which the ids of an Embedding or CategoryEncoding depend gets ids_below, the
    smallest such vocabulary. An input that arrives unchanged at an Embedding with mask_zero gets mask_value 0, at a
    Masking that layer's mask_value. Inputs for which nothing is found, or a model that refuses every probe, are left as
    they are.
    """
    sinks = {layer: sink for layer in program.model._flatten_layers() if (sink := _sink(layer)) is not None}
    if not sinks:
        return program
    for sizes in PROBE_SIZES:
        feeds = _probe_feeds(program.signature, sizes)
        first = _watch(program, feeds, sinks)
        if first is not None:
            break
    else:
        return program
    inputs = []
    for tensor in program.signature.inputs:
        changed = _watch(program, {**feeds, tensor.name: _other(feeds[tensor.name])}, sinks)
        domain = tensor.domain if changed is None else _domain(feeds[tensor.name], first, changed, sinks)
        inputs.append(replace(tensor, domain=domain))
    return replace(program, signature=replace(program.signature, inputs=tuple(inputs)))


def _sink(layer: Any) -> _Sink | None:
    if isinstance(layer, keras.layers.Embedding):
        return _Sink(layer.input_dim, 0.0 if layer.mask_zero else None)
    if isinstance(layer, keras.layers.CategoryEncoding):
        return _Sink(layer.num_tokens, None)
    if isinstance(layer, keras.layers.Masking):
        return _Sink(None, float(layer.mask_value))
    return None


def _probe_feeds(signature: Signature, sizes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """0 or 1 in every place, which is a fair value for ids, numbers and masks alike, in an order that no two inputs
    share.
    """
    rng = np.random.default_rng(0)
    lengths = [name for name in signature.free_dims() if name != BATCH]
    bound = dict(zip(lengths, cycle(sizes), strict=False)) | {BATCH: PROBE_BATCH}

    def feed(tensor: Tensor) -> np.ndarray:
        shape = [dim if isinstance(dim, int) else bound[dim] for dim in tensor.shape]
        return rng.integers(0, SAFE_IDS, shape).astype(tensor.dtype)

    return {tensor.name: feed(tensor) for tensor in signature.inputs}


def _other(array: np.ndarray) -> np.ndarray:
    return (1 - array.astype("int8")).astype(array.dtype)


def _watch(
    program: Program, feeds: Mapping[str, np.ndarray], sinks: Mapping[Any, _Sink]
) -> list[list[np.ndarray]] | None:
    """What arrives at each sink, in order; None when Keras refuses the feed."""
    for sink in sinks.values():
        sink.arrived.clear()
    with _tapped(sinks):
        try:
            program.run(feeds)
        except (ValueError, TypeError, IndexError, tf.errors.OpError):
            return None
    return [list(sink.arrived) for sink in sinks.values()]


@contextmanager
def _tapped(sinks: Mapping[Any, _Sink]) -> Iterator[None]:
    def tap(layer: Any, sink: _Sink) -> None:
        call = layer.call

        def watched(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            # Inside vectorized_map (TimeDistributed) there are no numbers to look at.
            if not tf.is_symbolic_tensor(inputs):
                sink.arrived.append(keras.ops.convert_to_numpy(inputs))
            return call(inputs, *args, **kwargs)

        layer.call = watched

    try:
        for layer, sink in sinks.items():
            tap(layer, sink)
        yield
    finally:
        for layer in sinks:
            layer.__dict__.pop("call", None)


def _domain(
    fed: np.ndarray, first: list[list[np.ndarray]], changed: list[list[np.ndarray]], sinks: Mapping[Any, _Sink]
) -> Domain:
    vocabularies, mask_values = [], []
    for sink, before, after in zip(sinks.values(), first, changed, strict=True):
        unchanged = any(np.array_equal(array.ravel(), fed.ravel()) for array in before)
        depends = any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        # Ids may be cut out of or computed from an integer input; from a float one, only what arrives as it is was
        # meant as ids.
        if sink.ids_below is not None and (unchanged or (depends and np.issubdtype(fed.dtype, np.integer))):
            vocabularies.append(sink.ids_below)
        if sink.mask_value is not None and unchanged:
            mask_values.append(sink.mask_value)
    return Domain(
        ids_below=min(vocabularies) if vocabularies else None, mask_value=mask_values[0] if mask_values else None
    )
