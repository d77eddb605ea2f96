"""keras.layers.MultiHeadAttention: y = (softmax(q kᵀ / sqrt(d), where visible) v · gate) Wo + bo."""

from __future__ import annotations

from typing import Any

import keras

from mh_edge.keras_attention import declined
from mh_edge.rules import Case, rule
from mh_edge_tflite.attention import BOOLEAN
from mh_edge_tflite.context import Context, Inputs, Masks
from mh_edge_tflite.keras_attention import lower_heads


def _model(masked: bool, call: dict[str, Any] | None = None, *, steps: int | None = None, **options: Any) -> Any:
    x = keras.Input((steps, 6), name="x")
    z = keras.layers.Masking()(x) if masked else x
    layer = keras.layers.MultiHeadAttention(**{"num_heads": 2, "key_dim": 3, "bias_initializer": "normal", **options})
    return keras.Model(x, layer(z, z, **(call or {})))


def _cross(call: dict[str, Any] | None = None, **options: Any) -> keras.Model:
    """Query, value and key of different widths, all masked."""
    query, value, key = (keras.Input((None, width), name=name) for name, width in (("q", 5), ("v", 6), ("k", 7)))
    masked = [keras.layers.Masking()(x) for x in (query, value, key)]
    layer = keras.layers.MultiHeadAttention(
        2, 3, value_dim=4, output_shape=(2, 5), bias_initializer="normal", **options
    )
    return keras.Model([query, value, key], layer(masked[0], masked[1], masked[2], **(call or {})))


def _explicit(*axes: int) -> keras.Model:
    """A mask that is an input: (batch, query, key), or one for each head."""
    x, mask = keras.Input((7, 6), name="x"), keras.Input((*axes, 7, 7), dtype="bool", name="mask")
    return keras.Model([x, mask], keras.layers.MultiHeadAttention(2, 3)(x, x, attention_mask=mask))


def _residual() -> keras.Model:
    """The layer takes the mask off what it is given, so that a later layer sees none there."""
    x = keras.Input((None, 6), name="x")
    z = keras.layers.Masking()(x)
    y = keras.layers.MultiHeadAttention(2, 3, name="first")(z, z)
    return keras.Model(x, keras.layers.MultiHeadAttention(2, 3, name="second")(keras.layers.Add()([z, y]), y))


STATIC = ("SHAPE", "GATHER", "PACK", "STRIDED_SLICE")
CAUSAL = {"use_causal_mask": True}


@rule(
    "tflite",
    keras.layers.MultiHeadAttention,
    applies=lambda layer: declined(layer, keras.layers.MultiHeadAttention),
    cases=(
        Case("self", lambda: _model(False), ops={"FULLY_CONNECTED": 4, "BATCH_MATMUL": 2, "ADD": 0}, absent=STATIC),
        Case(
            "masked", lambda: _model(True), ops={"SOFTMAX": 1, "BATCH_MATMUL": 2, "CAST": 1}, absent=(*STATIC, *BOOLEAN)
        ),
        Case("history", lambda: _model(True, CAUSAL), ops={"SOFTMAX": 1, "ADD": 1}, absent=("CUMSUM",)),
        Case("causal", lambda: _model(False, CAUSAL), ops={"SOFTMAX": 1, "ADD": 1}, absent=("SELECT_V2",)),
        Case("fixed", lambda: _model(False, CAUSAL, steps=5), ops={"ADD": 1}, absent=("RANGE", "CAST", *STATIC)),
        Case("window", lambda: _model(True, sliding_window=3, use_gate=True), ops={"LOGISTIC": 1, "SOFTMAX": 1}),
        Case("weights", lambda: _model(True, {"return_attention_scores": True, **CAUSAL}), ops={"SOFTMAX": 1}),
        Case("dropout", lambda: _model(True, dropout=0.5, use_bias=False), ops={"SOFTMAX": 1}),
        Case("three", _cross, ops={"FULLY_CONNECTED": 4, "SOFTMAX": 1}),
        Case("three_causal", lambda: _cross(CAUSAL), ops={"SOFTMAX": 1}),
        Case("explicit", _explicit, ops={"SOFTMAX": 1}),
        Case("explicit_heads", lambda: _explicit(2), ops={"SOFTMAX": 1}),
        Case("residual", _residual, ops={"SOFTMAX": 2}),
    ),
)
def lower(ctx: Context, layer: keras.layers.MultiHeadAttention, inputs: Inputs, masks: Masks) -> Any:
    """query: (batch, Tq, q_in), value: (batch, Tk, v_in), key: (batch, Tk, k_in) -> (batch, Tq, out), and the weights
    (batch, head, Tq, Tk) if asked.
    """
    del inputs, masks
    given = ctx.arguments
    query_mask = keras.src.backend.get_keras_mask(given["query"])
    for x in (given["query"], given["value"], given.get("key")):
        # As the layer itself does, so that what comes after sees the same masks.
        keras.src.backend.set_keras_mask(x, None)
    return lower_heads(layer, given, query_mask, layer.get_config()["sliding_window"])
