"""Dense: y = f(x W + b)."""

from __future__ import annotations

import keras
import onnx_ir as ir

from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks

_ROWS = 2
"""Axes of what Gemm takes."""


def _plain(layer: keras.layers.Dense) -> str | None:
    if layer.quantization_mode is not None:
        return f"its kernel is quantized ({layer.quantization_mode})"
    return "its kernel is adapted by LoRA" if layer.lora_enabled else None


def _model(activation: str, shape: tuple[int | None, ...] = (None, 6)) -> keras.Model:
    return keras.Sequential([keras.Input(shape), keras.layers.Dense(5, activation=activation)])


@rule(
    "onnx",
    keras.layers.Dense,
    applies=_plain,
    cases=(
        Case("relu", lambda: _model("relu"), ops={"MatMul": 1, "Add": 1, "Relu": 1}, absent=("Reshape", "Shape")),
        Case("gelu", lambda: _model("gelu"), ops={"MatMul": 1, "Add": 1, "Gelu": 1}, absent=("Erfc",)),
        Case("rows", lambda: _model("tanh", (6,)), ops={"Gemm": 1, "Tanh": 1}, absent=("MatMul", "Add")),
    ),
)
def lower(ctx: Context, layer: keras.layers.Dense, inputs: Inputs, masks: Masks) -> ir.Value:
    """x: (..., in) -> (..., units). ONNX's MatMul takes any rank, so nothing is reshaped; Gemm takes rows alone."""
    del masks
    x, kernel = inputs[0], ctx.weight(layer.kernel)
    if not layer.use_bias:
        y = ctx.op("MatMul", x, kernel)
    elif len(ctx.shape(x)) == _ROWS:
        y = ctx.op("Gemm", x, kernel, ctx.weight(layer.bias))
    else:
        y = ctx.op("Add", ctx.op("MatMul", x, kernel), ctx.weight(layer.bias))
    return ctx.activation(layer.activation, y)
