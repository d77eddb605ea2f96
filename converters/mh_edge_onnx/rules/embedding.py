"""Embedding: y = E[ids]; with mask_zero the mask is ids != 0."""

from __future__ import annotations

import keras
import onnx_ir as ir

from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks

_INDICES = (ir.DataType.INT32, ir.DataType.INT64)


def _plain(layer: keras.layers.Embedding) -> str | None:
    if layer.quantization_mode is not None:
        return f"its table is quantized ({layer.quantization_mode})"
    return "its table is adapted by LoRA" if layer.lora_enabled else None


def _model(mask_zero: bool, dtype: str = "int32") -> keras.Model:
    ids = keras.Input((None,), dtype=dtype)
    y = keras.layers.Embedding(7, 4, mask_zero=mask_zero)(ids)
    # The mean of the steps that are there is what the mask is for.
    return keras.Model(ids, [y, keras.layers.GlobalAveragePooling1D()(y)])


_LITTER = ("Less", "Equal", "Not", "Add")


@rule(
    "onnx",
    keras.layers.Embedding,
    applies=_plain,
    cases=(
        Case("plain", lambda: _model(False), ops={"Gather": 1, "ReduceMean": 1}, absent=(*_LITTER, "Cast")),
        Case("masked", lambda: _model(True), ops={"Gather": 1, "Cast": 2, "Where": 1}, absent=_LITTER),
        Case("float_ids", lambda: _model(False, "float32"), ops={"Gather": 1, "Cast": 1}, absent=_LITTER),
    ),
)
def lower(ctx: Context, layer: keras.layers.Embedding, inputs: Inputs, masks: Masks) -> ir.Value:
    """ids: (batch, ...) -> (batch, ..., dim). Both count negative ids from the end."""
    del masks
    ids = inputs[0]
    if ids.dtype not in _INDICES:
        ids = ctx.op("Cast", ids, to=ir.DataType.INT32)
    return ctx.op("Gather", ctx.weight(layer.embeddings), ids, axis=0)
