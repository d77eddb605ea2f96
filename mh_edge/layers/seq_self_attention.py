"""Self-attention whose scores are learned, over all steps or a window of them."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mh_edge.layers.attention import ADDITIVE_MASK, Shape, positions, softmax, widen
from mh_edge.layers.initializing import fresh

ADDITIVE, MULTIPLICATIVE = "additive", "multiplicative"
UNBOUNDED_WIDTH = 1_000_000_000
"""The width of a history without attention_width: wider than any sequence, and still an int32."""


@keras.saving.register_keras_serializable(package="mh_edge")
class SeqSelfAttention(keras.layers.Layer):  # type: ignore[misc]
    """y_t = Σ_t' a[t, t']·x_t', a = softmax(g(e) − 10000·[t' outside the window] − 10000·(1 − m_t)(1 − m_t')).

    additive: e[t, t'] = tanh(x_t Wt + x_t' Wx + bh) Wa + ba; multiplicative: e[t, t'] = x_t Wa x_t'ᵀ + ba.
    x: (batch, time, dim), mask m: (batch, time) -> y: (batch, time, dim), with the mask of x.
    return_attention=True returns [y, a], a: (batch, time, time).

    g is attention_activation (None is linear). The window of step t is lower <= t' < lower + attention_width with
    lower = t − attention_width // 2, or t − (attention_width − 1) with history_only. A pair is masked when both its
    steps are.
    attention_regularizer_weight·Σ (a aᵀ − I)² / batch is added to the losses when the weight is positive.

    Attributes to read: units, attention_width, attention_type, return_attention, history_only, use_additive_bias,
    use_attention_bias, attention_activation (a callable), and once built Wt: (dim, units), Wx: (dim, units),
    bh: (units,), Wa: (units, 1) and ba: (1,), or Wa: (dim, dim) and ba: (1,) when multiplicative; None for what is not
    there.

    Raises ValueError for an unknown attention_type, or an input that is not (batch, time, dim) with a known dim.
    Source: Zheng et al., 2018, https://arxiv.org/abs/1806.01264; keras-self-attention 0.51.0, `SeqSelfAttention`.
    """

    def __init__(
        self,
        units: int = 32,
        attention_width: int | None = None,
        attention_type: str = ADDITIVE,
        return_attention: bool = False,
        history_only: bool = False,
        kernel_initializer: Any = "glorot_normal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        use_additive_bias: bool = True,
        use_attention_bias: bool = True,
        attention_activation: Any = None,
        attention_regularizer_weight: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if attention_type not in (ADDITIVE, MULTIPLICATIVE):
            raise ValueError(
                f"SeqSelfAttention: attention_type is {attention_type!r}; "
                f"it must be {ADDITIVE!r} or {MULTIPLICATIVE!r}."
            )
        self.supports_masking = True
        self.units = units
        self.attention_width = UNBOUNDED_WIDTH if history_only and attention_width is None else attention_width
        self.attention_type = attention_type
        self.return_attention = return_attention
        self.history_only = history_only
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.use_additive_bias = use_additive_bias
        self.use_attention_bias = use_attention_bias
        self.attention_activation = keras.activations.get(attention_activation)
        self.attention_regularizer_weight = attention_regularizer_weight
        self.Wt = self.Wx = self.bh = self.Wa = self.ba = None

    def build(self, input_shape: Any) -> None:
        shape = tuple(input_shape)
        dim = shape[-1]
        if len(shape) != 3 or dim is None:
            raise ValueError(
                f"SeqSelfAttention: the input has shape {shape}; it must be (batch, time, dim) with a known dim."
            )
        if self.attention_type == ADDITIVE:
            self.Wt = self._kernel("Wt", (dim, self.units))
            self.Wx = self._kernel("Wx", (dim, self.units))
            if self.use_additive_bias:
                self.bh = self._bias("bh", self.units)
            self.Wa = self._kernel("Wa", (self.units, 1))
        else:
            self.Wa = self._kernel("Wa", (dim, dim))
        if self.use_attention_bias:
            self.ba = self._bias("ba", 1)
        self.built = True

    def _kernel(self, name: str, shape: tuple[int, int]) -> Any:
        return self.add_weight(
            shape=shape,
            name=name,
            initializer=fresh(self.kernel_initializer),
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )

    def _bias(self, name: str, size: int) -> Any:
        return self.add_weight(
            shape=(size,),
            name=name,
            initializer=fresh(self.bias_initializer),
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
        )

    def call(self, inputs: Any, mask: Any = None) -> Any:
        scores = self._additive(inputs) if self.attention_type == ADDITIVE else self._multiplicative(inputs)
        if self.ba is not None:
            scores = scores + self.ba
        scores = widen(self.attention_activation(scores))
        if self.attention_width is not None:
            inside = self._window(scores, self.attention_width)
            scores = scores - ADDITIVE_MASK * (1.0 - ops.cast(inside, scores.dtype))
        if mask is not None:
            masked = 1.0 - ops.cast(mask, scores.dtype)
            scores = scores - ADDITIVE_MASK * (ops.expand_dims(masked, axis=2) * ops.expand_dims(masked, axis=1))
        weights = ops.cast(softmax(scores), inputs.dtype)
        if self.attention_regularizer_weight > 0.0:
            self.add_loss(self._penalty(weights))
        output = ops.matmul(weights, inputs)
        return [output, weights] if self.return_attention else output

    def _additive(self, inputs: Any) -> Any:
        of_query = ops.expand_dims(ops.matmul(inputs, self.Wt), axis=2)
        of_key = ops.expand_dims(ops.matmul(inputs, self.Wx), axis=1)
        hidden = of_query + of_key
        if self.bh is not None:
            hidden = hidden + self.bh
        return ops.squeeze(ops.matmul(ops.tanh(hidden), self.Wa), axis=-1)

    def _multiplicative(self, inputs: Any) -> Any:
        return ops.matmul(ops.matmul(inputs, self.Wa), ops.transpose(inputs, (0, 2, 1)))

    def _window(self, scores: Any, width: int) -> Any:
        """(time, time): whether step t' lies in the window of step t."""
        lower = positions(scores, axis=-2) - (width - 1 if self.history_only else width // 2)
        keys = positions(scores, axis=-1)
        return ops.logical_and(lower <= keys, keys < lower + width)

    def _penalty(self, weights: Any) -> Any:
        weights = widen(weights)
        same = ops.cast(ops.equal(positions(weights, axis=-2), positions(weights, axis=-1)), weights.dtype)
        overlap = ops.matmul(weights, ops.transpose(weights, (0, 2, 1))) - same
        batch = ops.cast(ops.shape(weights)[0], weights.dtype)
        return self.attention_regularizer_weight * ops.sum(ops.square(overlap)) / batch

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return [mask, None] if self.return_attention else mask

    def compute_output_shape(self, input_shape: Any) -> Shape | list[Shape]:
        batch, time, dim = input_shape
        return [(batch, time, dim), (batch, time, time)] if self.return_attention else (batch, time, dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "attention_width": self.attention_width,
            "attention_type": self.attention_type,
            "return_attention": self.return_attention,
            "history_only": self.history_only,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
            "use_additive_bias": self.use_additive_bias,
            "use_attention_bias": self.use_attention_bias,
            "attention_activation": keras.activations.serialize(self.attention_activation),
            "attention_regularizer_weight": self.attention_regularizer_weight,
        }
