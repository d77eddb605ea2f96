"""Dense: y = f(x W + b)."""

from __future__ import annotations

import keras
import onnx_ir as ir

from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks


def _plain(layer: keras.layers.Dense) -> str | None:
    if layer.quantization_mode is not None:
        return f"its kernel is quantized ({layer.quantization_mode})"
    return "its kernel is adapted by LoRA" if layer.lora_enabled else None


def _model(activation: str) -> keras.Model:
    return keras.Sequential([keras.Input((None, 6)), keras.layers.Dense(5, activation=activation)])


@rule(
    "onnx",
    keras.layers.Dense,
    applies=_plain,
    cases=(
        Case("relu", lambda: _model("relu"), ops={"MatMul": 1, "Add": 1, "Relu": 1}, absent=("Reshape", "Shape")),
        Case("gelu", lambda: _model("gelu"), ops={"MatMul": 1, "Add": 1, "Gelu": 1}, absent=("Erfc",)),
    ),
)
def lower(ctx: Context, layer: keras.layers.Dense, inputs: Inputs, masks: Masks) -> ir.Value:
    """x: (..., in) -> (..., units). ONNX's MatMul takes any rank, so nothing is reshaped."""
    del masks
    y = ctx.op("MatMul", inputs[0], ctx.weight(layer.kernel))
    if layer.use_bias:
        y = ctx.op("Add", y, ctx.weight(layer.bias))
    return ctx.activation(layer.activation, y)
