"""GroupQueryAttention: y = (softmax(q kᵀ / sqrt(d), where visible) v · gate) Wo + bo, k and v of fewer heads than q."""

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
    heads = {"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 2, "bias_initializer": "normal"}
    return keras.Model(x, keras.layers.GroupQueryAttention(**{**heads, **options})(z, z, **(call or {})))


def _cross(call: dict[str, Any] | None = None) -> keras.Model:
    """Query and value of different lengths, both masked."""
    inputs = [keras.Input((None, 6), name=name) for name in ("q", "v")]
    masked = [keras.layers.Masking()(x) for x in inputs]
    return keras.Model(inputs, keras.layers.GroupQueryAttention(3, 4, 1)(*masked, **(call or {})))


def _explicit() -> keras.Model:
    """A mask for each head that is an input."""
    x, mask = keras.Input((7, 6), name="x"), keras.Input((4, 7, 7), dtype="bool", name="mask")
    return keras.Model([x, mask], keras.layers.GroupQueryAttention(3, 4, 2)(x, x, attention_mask=mask))


STATIC = ("SHAPE", "GATHER", "PACK", "STRIDED_SLICE", "TILE")
CAUSAL = {"use_causal_mask": True}


@rule(
    "tflite",
    keras.layers.GroupQueryAttention,
    applies=lambda layer: declined(layer, keras.layers.GroupQueryAttention),
    cases=(
        Case("self", lambda: _model(False), ops={"FULLY_CONNECTED": 4, "BATCH_MATMUL": 2, "ADD": 0}, absent=STATIC),
        Case("masked", lambda: _model(True), ops={"CAST": 1, "BATCH_MATMUL": 2}, absent=("TILE", "CUMSUM", *BOOLEAN)),
        Case("history", lambda: _model(True, CAUSAL), ops={"SOFTMAX": 1, "ADD": 1}, absent=("TILE", "CUMSUM")),
        Case("fixed", lambda: _model(False, CAUSAL, steps=5), ops={"ADD": 1}, absent=("RANGE", "CAST", *STATIC)),
        Case("window", lambda: _model(False, sliding_window=3, use_gate=True), ops={"LOGISTIC": 1, "SOFTMAX": 1}),
        Case("weights", lambda: _model(True, {"return_attention_scores": True, **CAUSAL}), ops={"SOFTMAX": 1}),
        Case("equal", lambda: _model(True, num_key_value_heads=4, use_bias=False), ops={"BATCH_MATMUL": 2}),
        Case("cross", lambda: _cross(CAUSAL), ops={"SOFTMAX": 1, "BATCH_MATMUL": 2}),
        Case("explicit", _explicit, ops={"SOFTMAX": 1}),
    ),
)
def lower(ctx: Context, layer: keras.layers.GroupQueryAttention, inputs: Inputs, masks: Masks) -> Any:
    """query: (batch, Tq, width), value: (batch, Tk, width), key: (batch, Tk, k_in) -> (batch, Tq, width), and the
    weights (batch, head, Tq, Tk) if asked.
    """
    del inputs, masks
    return lower_heads(layer, ctx.arguments, ctx.arguments.get("query_mask"), layer.sliding_window)
