"""Attention by several heads, with one activation for the projections and the output."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mh_edge.layers.attention import Shape, attend, key_mask, query_key_value, query_key_value_shapes, query_mask
from mh_edge.layers.initializing import fresh


@keras.saving.register_keras_serializable(package="mh_edge")
class MultiHeadAttention(keras.layers.Layer):  # type: ignore[misc]
    """y = f(o Wo + bo), o = softmax(q kᵀ / sqrt(d) − masks) v for each head; q = f(Q Wq + bq), k and v likewise.

    x or [Q: (batch, Tq, q_in), K: (batch, Tk, k_in), V: (batch, Tk, v_in)] -> y: (batch, Tq, v_in).
    return_attention=True returns [y, weights], weights: (batch, Tq, head_num, Tk).

    Each head has d = v_in / head_num columns of q, k, v and o. f is `activation` (relu unless told, None is linear).
    Masks are additive, −10000 for each reason: the mask of the key, and with history_only every key after the query; so
    a fully masked row is the softmax of its raw scores. The masks of query and value hide nothing, the output carries
    that of the query, and one mask alone serves all three inputs.

    Attributes to read: head_num, activation (a callable), use_bias, history_only, return_attention, and once built
    Wq: (q_in, v_in), Wk: (k_in, v_in), Wv: (v_in, v_in), Wo: (v_in, v_in) and bq, bk, bv, bo: (v_in,), None without
    use_bias; `weights` is in the order Wq bq Wk bk Wv bv Wo bo.

    Raises ValueError when head_num does not divide the width of value, or the inputs do not fit each other.
    Source: Vaswani et al., Attention Is All You Need, 2017; keras-multi-head 0.29.0, `MultiHeadAttention`.
    """

    def __init__(
        self,
        head_num: int,
        activation: Any = "relu",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_normal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        history_only: bool = False,
        return_attention: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if head_num < 1:
            raise ValueError(f"MultiHeadAttention: head_num is {head_num}; it must be at least 1.")
        self.supports_masking = True
        self.head_num = head_num
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.history_only = history_only
        self.return_attention = return_attention
        self.Wq = self.Wk = self.Wv = self.Wo = None
        self.bq = self.bk = self.bv = self.bo = None

    def build(self, input_shape: Any) -> None:
        query, key, value = query_key_value_shapes("MultiHeadAttention", input_shape)
        width = value[-1]
        if width is None or width % self.head_num:
            raise ValueError(
                f"MultiHeadAttention: head_num={self.head_num} does not divide {width}, the width of value."
            )
        self.Wq, self.bq = self._projection("q", query[-1], width)
        self.Wk, self.bk = self._projection("k", key[-1], width)
        self.Wv, self.bv = self._projection("v", width, width)
        self.Wo, self.bo = self._projection("o", width, width)
        self.built = True

    def _projection(self, role: str, inputs: int | None, outputs: int) -> tuple[Any, Any]:
        kernel = self.add_weight(
            shape=(inputs, outputs),
            name=f"W{role}",
            initializer=fresh(self.kernel_initializer),
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        if not self.use_bias:
            return kernel, None
        bias = self.add_weight(
            shape=(outputs,),
            name=f"b{role}",
            initializer=fresh(self.bias_initializer),
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
        )
        return kernel, bias

    def call(self, inputs: Any, mask: Any = None) -> Any:
        query, key, value = query_key_value("MultiHeadAttention", inputs)
        hidden = key_mask(mask)
        if hidden is not None:  # (batch, Tk) -> (batch, head, query, Tk)
            hidden = ops.expand_dims(hidden, axis=(1, 2))
        joined, weights = attend(
            self._split(self._project(query, self.Wq, self.bq)),
            self._split(self._project(key, self.Wk, self.bk)),
            self._split(self._project(value, self.Wv, self.bv)),
            hidden,
            self.history_only,
        )
        output = self._project(self._join(joined), self.Wo, self.bo)
        return [output, ops.transpose(weights, (0, 2, 1, 3))] if self.return_attention else output

    def _project(self, x: Any, kernel: Any, bias: Any) -> Any:
        product = ops.matmul(x, kernel)
        return self.activation(product if bias is None else product + bias)

    def _split(self, x: Any) -> Any:
        """(batch, time, width) -> (batch, head, time, width of a head)."""
        cut = ops.reshape(x, (-1, ops.shape(x)[1], self.head_num, x.shape[-1] // self.head_num))
        return ops.transpose(cut, (0, 2, 1, 3))

    def _join(self, x: Any) -> Any:
        """The inverse of `_split`."""
        return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, ops.shape(x)[2], self.head_num * x.shape[-1]))

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return [query_mask(mask), None] if self.return_attention else query_mask(mask)

    def compute_output_shape(self, input_shape: Any) -> Shape | list[Shape]:
        query, key, value = query_key_value_shapes("MultiHeadAttention", input_shape)
        output: Shape = (*query[:-1], value[-1])
        return [output, (*query[:-1], self.head_num, key[1])] if self.return_attention else output

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "head_num": self.head_num,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
            "history_only": self.history_only,
            "return_attention": self.return_attention,
        }
