"""ReLU: y = x above the threshold, at most max_value; below it negative_slope (x - threshold)."""

from __future__ import annotations

import keras
import onnx_ir as ir

from mh_edge.rules import Case, rule
from mh_edge_onnx.activations import rectified
from mh_edge_onnx.context import Context, Inputs, Masks


def _case(name: str, ops: dict[str, int], **options: float) -> Case:
    def build() -> keras.Model:
        return keras.Sequential([keras.Input((None, 6)), keras.layers.Dense(6), keras.layers.ReLU(**options)])

    return Case(name, build, {"MatMul": 1} | ops, ("Cast", "Not", "Neg", "Relu"))


@rule(
    "onnx",
    keras.layers.ReLU,
    cases=(
        _case("limit", {"Clip": 1}, max_value=3.0),
        _case("slope", {"LeakyRelu": 1}, negative_slope=0.1),
        _case("slope_limit", {"LeakyRelu": 1, "Min": 1}, negative_slope=0.1, max_value=0.5),
        _case("threshold", {"ThresholdedRelu": 1}, threshold=0.5),
        _case("threshold_limit", {"ThresholdedRelu": 1, "Clip": 1}, threshold=0.5, max_value=1.0),
        _case("all", {"Greater": 1, "Clip": 1, "Where": 1, "Mul": 1}, negative_slope=0.1, max_value=1.0, threshold=0.5),
    ),
)
def lower(ctx: Context, layer: keras.layers.ReLU, inputs: Inputs, masks: Masks) -> ir.Value:
    """x: any shape -> the same shape."""
    del masks
    return rectified(ctx, inputs[0], layer.negative_slope, layer.max_value, layer.threshold)
