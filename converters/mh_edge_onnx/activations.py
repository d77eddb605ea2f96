"""Keras activations as ONNX operations.

An activation that is not listed is not lost: the caller traces the Keras function itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras

from mh_edge.layers.keras2_hard_sigmoid import keras2_hard_sigmoid

if TYPE_CHECKING:
    import onnx_ir as ir

    from mh_edge_onnx.context import Context

_act = keras.activations

_SINGLE: Mapping[Callable[..., Any], tuple[str, dict[str, Any]]] = {
    _act.relu: ("Relu", {}),
    _act.sigmoid: ("Sigmoid", {}),
    _act.tanh: ("Tanh", {}),
    _act.softsign: ("Softsign", {}),
    _act.softplus: ("Softplus", {}),
    _act.elu: ("Elu", {"alpha": 1.0}),
    _act.selu: ("Selu", {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}),
    _act.celu: ("Celu", {"alpha": 1.0}),
    _act.leaky_relu: ("LeakyRelu", {"alpha": 0.2}),
    _act.hard_sigmoid: ("HardSigmoid", {"alpha": 1.0 / 6.0, "beta": 0.5}),
    keras2_hard_sigmoid: ("HardSigmoid", {"alpha": 0.2, "beta": 0.5}),
    _act.exponential: ("Exp", {}),
    _act.softmax: ("Softmax", {"axis": -1}),
    _act.log_softmax: ("LogSoftmax", {"axis": -1}),
    _act.mish: ("Mish", {}),
    _act.hard_silu: ("HardSwish", {}),
    _act.gelu: ("Gelu", {}),
}
"""Activation -> (operation, attributes); Keras's own default parameters."""

_SINCE = {"Mish": 18, "Gelu": 20}
"""First opset of the operations that opset 17 does not have."""


def lower(ctx: Context, function: Callable[..., Any], x: ir.Value) -> ir.Value | None:
    """The activation's operations, or None when it is not one of Keras's own that ONNX expresses."""
    if function is _act.linear:
        return x
    if function is _act.silu:
        return ctx.op("Mul", x, ctx.op("Sigmoid", x))
    if function is _act.relu6:
        return ctx.op("Clip", x, ctx.constant(0, "float32"), ctx.constant(6, "float32"))
    if function in _SINGLE:
        op_type, attributes = _SINGLE[function]
        if ctx.opset >= _SINCE.get(op_type, 0):
            return ctx.op(op_type, x, **attributes)
    return None


# What the recurrent operations of ONNX take: name, then alpha and beta where the function has them.
_RECURRENT: Mapping[Callable[..., Any], tuple[str, float | None, float | None]] = {
    _act.sigmoid: ("Sigmoid", None, None),
    _act.tanh: ("Tanh", None, None),
    _act.relu: ("Relu", None, None),
    _act.softsign: ("Softsign", None, None),
    _act.softplus: ("Softplus", None, None),
    _act.elu: ("Elu", 1.0, None),
    _act.leaky_relu: ("LeakyRelu", 0.2, None),
    _act.hard_sigmoid: ("HardSigmoid", 1.0 / 6.0, 0.5),
    keras2_hard_sigmoid: ("HardSigmoid", 0.2, 0.5),
    _act.linear: ("Affine", 1.0, 0.0),
}


def recurrent(functions: list[Callable[..., Any]]) -> dict[str, Any] | None:
    """Attributes `activations`, `activation_alpha`, `activation_beta` of LSTM, GRU and RNN; None when one is not
    expressible.
    """
    if any(function not in _RECURRENT for function in functions):
        return None
    found = [_RECURRENT[function] for function in functions]
    attributes: dict[str, Any] = {"activations": [name for name, _, _ in found]}
    alphas = [alpha for _, alpha, _ in found if alpha is not None]
    betas = [beta for _, _, beta in found if beta is not None]
    if alphas:
        attributes["activation_alpha"] = alphas
    if betas:
        attributes["activation_beta"] = betas
    return attributes
