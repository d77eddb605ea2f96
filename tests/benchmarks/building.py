"""Keras models of the grid, by kind; each takes the inputs and the sizes of its `Model`.

flat: a time that is fixed even where all others are free, because the model flattens it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from benchmarks.models import Model
from mh_edge.layers import MultiHead, MultiHeadAttention, SeqWeightedAttention

SEED = 0
L = keras.layers


def build(model: Model, time: int | None = None, batch: int | None = None) -> keras.Model:
    """The model with its weights; time and batch fix the sizes of its inputs."""
    time = model.sizes.get("flat", time)
    inputs = {
        name: keras.Input((time, width), batch_size=batch, name=name)
        if width is not None
        else keras.Input((time,), batch_size=batch, dtype="bool", name=name)
        for name, width in model.inputs.items()
    }
    keras.utils.set_random_seed(SEED)
    built = keras.Model(list(inputs.values()), KINDS[model.kind](inputs, **model.sizes), name=model.kind)
    rng = np.random.default_rng(SEED)
    for variable in built.trainable_variables:
        if len(variable.shape) == 1:  # biases begin as zeros, which some tools would drop
            variable.assign(variable + 0.1 * rng.normal(size=variable.shape).astype("float32"))
    return built


def _attention(inputs: Mapping[str, Any], layer: str, width: int, heads: int, mask: str) -> Any:
    x, hidden, history = inputs["x"], inputs.get("mask"), mask in ("history", "both")
    if layer == "ours":
        return MultiHeadAttention(heads, activation=None, history_only=history)(x, mask=hidden)
    return L.MultiHeadAttention(heads, width // heads)(x, x, key_mask=hidden, use_causal_mask=history)


def _recurrent(inputs: Mapping[str, Any], cell: str, heads: int, units: int, masked: bool) -> Any:
    kind = {"LSTM": L.LSTM, "GRU": L.GRU}[cell]
    layer = kind(units, return_sequences=heads == 1)
    return (layer if heads == 1 else MultiHead(layer, heads))(inputs["x"], mask=inputs["mask"] if masked else None)


def _dense(inputs: Mapping[str, Any], width: int, units: int, heads: int, hidden: int | None) -> Any:
    del width
    return MultiHead(L.Dense(units), heads, hidden_dim=hidden)(inputs["x"])


def _convolution(inputs: Mapping[str, Any], width: int, filters: int, kernels: tuple[int, ...]) -> Any:
    del width
    return MultiHead([L.Conv1D(filters, size, padding="same", activation="relu") for size in kernels])(inputs["x"])


def _encoder(inputs: Mapping[str, Any], layers: int, width: int, heads: int, inner: int, masked: bool) -> Any:
    x, mask = inputs["x"], inputs["mask"] if masked else None
    for _ in range(layers):
        x = L.LayerNormalization()(x + MultiHeadAttention(heads, activation=None)(x, mask=mask))
        x = L.LayerNormalization()(x + L.Dense(width)(L.Dense(inner, activation="relu")(x)))
    return x


def _classified(x: Any) -> Any:
    return L.Dense(10, activation="softmax")(L.Flatten()(x))


def _digits(inputs: Mapping[str, Any], factor: int) -> Any:
    x = L.Dense(96 * factor, activation="relu")(L.Masking()(inputs["rows"]))
    x = L.Add()([x, MultiHeadAttention(head_num=8, activation="tanh")(x)])
    x = L.Dense(96 * factor, activation="relu")(x)
    return _classified(MultiHead(SeqWeightedAttention(), layer_num=4)(x))


def _lstm_heads(inputs: Mapping[str, Any], factor: int) -> Any:
    return _classified(MultiHead(L.LSTM(16 * factor), layer_num=5)(inputs["rows"]))


def _conv_heads(inputs: Mapping[str, Any], factor: int, flat: int) -> Any:
    del flat
    widths = [L.Conv1D(16 * factor, width, padding="same", activation="relu") for width in (3, 5, 7)]
    return _classified(MultiHead(widths)(inputs["rows"]))


def _hidden_heads(inputs: Mapping[str, Any], factor: int) -> Any:
    return _classified(MultiHead(L.GRU(16 * factor), layer_num=3, hidden_dim=4 * factor)(inputs["rows"]))


def _bidirectional_heads(inputs: Mapping[str, Any], factor: int) -> Any:
    return _classified(MultiHead(L.Bidirectional(L.LSTM(16 * factor)), layer_num=3)(inputs["rows"]))


def _self(inputs: Mapping[str, Any], factor: int, **fixed: int) -> Any:
    del factor, fixed
    return _classified(MultiHeadAttention(head_num=4, activation="tanh")(inputs["rows"]))


def _lookup(inputs: Mapping[str, Any], factor: int, **fixed: int) -> Any:
    del factor, fixed
    return MultiHeadAttention(head_num=2, activation=None)([inputs["query"], inputs["key"], inputs["value"]])


KINDS: Mapping[str, Callable[..., Any]] = {
    "attention": _attention,
    "recurrent": _recurrent,
    "dense": _dense,
    "convolution": _convolution,
    "encoder": _encoder,
    "example_digits": _digits,
    "example_lstm_heads": _lstm_heads,
    "example_conv_heads": _conv_heads,
    "example_hidden_heads": _hidden_heads,
    "example_bidirectional_heads": _bidirectional_heads,
    "example_self": _self,
    "example_lookup": _lookup,
}
