"""Embedding: y = E[ids]; with mask_zero the mask is ids != 0."""

from __future__ import annotations

import keras
import tensorflow as tf

from mh_edge.rules import Case, rule
from mh_edge_tflite.context import Context, Inputs, Masks, Tensor


def _model(mask_zero: bool, dtype: str = "int32") -> keras.Model:
    ids = keras.Input((None,), dtype=dtype, name="ids")
    y = keras.layers.Embedding(7, 4, mask_zero=mask_zero)(ids)
    return keras.Model(ids, [keras.layers.Dense(3)(y), keras.layers.GlobalAveragePooling1D()(y)])


@rule(
    "tflite",
    keras.layers.Embedding,
    applies=lambda layer: (
        "its table is quantized or low-rank" if layer.quantization_mode or layer.lora_enabled else None
    ),
    cases=(
        Case("plain", lambda: _model(False), ops={"GATHER": 1, "MEAN": 1}, absent=("LESS", "ADD", "SELECT_V2")),
        # What is selected is the mean of a row without valid steps.
        Case("masked", lambda: _model(True), ops={"GATHER": 1, "NOT_EQUAL": 1, "SELECT_V2": 1}, absent=("LESS",)),
        Case("long_ids", lambda: _model(True, "int64"), ops={"GATHER": 1}, absent=("LESS",)),
        Case("float_ids", lambda: _model(False, "float32"), ops={"GATHER": 1, "CAST": 1}, absent=("LESS",)),
    ),
)
def lower(ctx: Context, layer: keras.layers.Embedding, inputs: Inputs, masks: Masks) -> Tensor:
    """ids: (batch, ...) -> (batch, ..., dim). Ids lie in [0, input_dim), as Keras documents; LiteRT refuses those below
    0, which Keras's code counts from the end.
    """
    del ctx, masks
    (ids,) = inputs
    whole = ids if ids.dtype in (tf.int32, tf.int64) else tf.cast(ids, tf.int32)
    return tf.gather(tf.convert_to_tensor(layer.embeddings), whole)
