"""Layers side by side on one input, their outputs stacked on a new last axis."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mh_edge.layers.attention import Shape
from mh_edge.layers.head_penalty import attach, decode_window, encode_window, per_index


@keras.saving.register_keras_serializable(package="mh_edge")
class MultiHead(keras.layers.Layer):  # type: ignore[misc]
    """y = stack([L_n(z_n) for n in 0..N-1], axis=-1), where z_n = x, or x W[:, n·h:(n+1)·h] + b[n·h:(n+1)·h].

    x: (batch, ..., in) -> y: the output shape of L followed by N. The second form of z, with W: (in, h·N) and
    b: (h·N,), holds when hidden_dim=h is given.

    layer: one layer, of which `layer_num` copies named `<name>_1` .. `<name>_N` are made, each initialised for itself
    (the one given is left alone), or a list or tuple of layers, which are used as they are.
    The mask and `training` go to each layer whose `call` takes them. The output mask is that of the first layer.

    Penalty, for each (reg_index i, reg_slice s, reg_factor c): c·Σ (V Vᵀ − I)² is part of `losses`, the rows of V being
    the flattened `layer.weights[i][s]` of each head as they are now. reg_index is an int or a list; reg_slice None, a
    slice, a tuple of slices (one for each axis), or a list of these; one slice or factor serves all indices. For
    Bidirectional(LSTM), indices 0, 1, 2 are kernel, recurrent kernel and bias forward, 3, 4, 5 backward.

    Attributes to read: layers, layer_num, hidden_dim, use_bias, and once built W, b (None where not used).
    Trainable weights are in the order W, b, then those of each layer; then those that do not train, in the same order.

    Raises ValueError when the heads give different shapes or several tensors, when a regularised weight is not there,
    or for an impossible argument.
    Source: keras-multi-head 0.29.0, `MultiHead`; the penalty: Lin et al., 2017, https://arxiv.org/abs/1703.03130.
    """

    def __init__(
        self,
        layer: Any,
        layer_num: int = 1,
        hidden_dim: int | None = None,
        use_bias: bool = True,
        reg_index: int | list[int] | None = None,
        reg_slice: Any = None,
        reg_factor: float | list[float] = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if hidden_dim is not None and hidden_dim < 1:
            raise ValueError(f"MultiHead: hidden_dim is {hidden_dim}; it must be at least 1, or None.")
        self.layers = _heads(layer, layer_num)
        self.layer_num = len(self.layers)
        self.hidden_dim = hidden_dim
        self.use_bias = use_bias
        indices = [] if reg_index is None else [reg_index] if isinstance(reg_index, int) else list(reg_index)
        self.reg_index = indices
        self.reg_slice = per_index("reg_slice", reg_slice, len(indices))
        self.reg_factor = per_index("reg_factor", reg_factor, len(indices))
        self.supports_masking = self.layers[0].supports_masking
        self.W = self.b = None

    def build(self, input_shape: Any) -> None:
        if self.hidden_dim is not None:
            width = input_shape[-1]
            if width is None:
                raise ValueError(f"MultiHead: hidden_dim needs a known last dimension, the input has {input_shape}.")
            size = self.hidden_dim * self.layer_num
            self.W = self.add_weight(shape=(width, size), name="W", initializer="random_uniform")
            if self.use_bias:
                self.b = self.add_weight(shape=(size,), name="b", initializer="zeros")
        head_shape = self._head_shape(input_shape)
        for layer in self.layers:
            if not layer.built:
                layer.build(head_shape)
        heads = [layer.weights for layer in self.layers]
        for index, window, factor in zip(self.reg_index, self.reg_slice, self.reg_factor, strict=True):
            attach(heads, index, window, factor)
        self.built = True

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if self.hidden_dim is None:
            hidden = [inputs] * self.layer_num
        else:
            product = ops.matmul(inputs, self.W)
            hidden = ops.split(product if self.b is None else product + self.b, self.layer_num, axis=-1)
        outputs = [
            layer(x, **accepted(layer, training=training, mask=mask))
            for layer, x in zip(self.layers, hidden, strict=True)
        ]
        _common_shape([_shape_of_one(number, output) for number, output in enumerate(outputs)])
        return ops.stack(outputs, axis=-1)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return self.layers[0].compute_mask(inputs, mask)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        head_shape = self._head_shape(input_shape)
        shapes = [tuple(layer.compute_output_shape(head_shape)) for layer in self.layers]
        return (*_common_shape(shapes), self.layer_num)

    def compute_output_spec(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        # Head by head, because each keeps its own dtype policy and may know its output shape only by being traced.
        x = inputs
        if self.hidden_dim is not None:
            x = keras.KerasTensor(self._head_shape(inputs.shape), dtype=self.compute_dtype)
        specs = [layer.compute_output_spec(x, **accepted(layer, training=training, mask=mask)) for layer in self.layers]
        shape = _common_shape([_shape_of_one(number, spec) for number, spec in enumerate(specs)])
        dtype = keras.backend.result_type(*(spec.dtype for spec in specs))
        return keras.KerasTensor((*shape, self.layer_num), dtype=dtype)

    def _head_shape(self, input_shape: Any) -> Any:
        return input_shape if self.hidden_dim is None else (*input_shape[:-1], self.hidden_dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "layers": [keras.saving.serialize_keras_object(layer) for layer in self.layers],
            "hidden_dim": self.hidden_dim,
            "use_bias": self.use_bias,
            "reg_index": list(self.reg_index),
            "reg_slice": [encode_window(window) for window in self.reg_slice],
            "reg_factor": list(self.reg_factor),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MultiHead:
        config = dict(config)
        # Keras 2 wrote no module; the layers it could write so are its own or known by name
        layers = [keras.layers.deserialize({"module": "keras.layers", **layer}) for layer in config.pop("layers")]
        windows = config.pop("reg_slice", None)
        if isinstance(windows, list):
            windows = [decode_window(window) for window in windows]
        return cls(layers, reg_slice=windows, **config)


def accepted(layer: Any, **arguments: Any) -> dict[str, Any]:
    """Those of the arguments that are given and that this layer's `call` names."""
    # asked of the class, because the `call` of an instance may be wrapped while it is traced
    names = inspect.signature(type(layer).call).parameters
    return {name: value for name, value in arguments.items() if value is not None and name in names}


def _heads(layer: Any, layer_num: int) -> list[Any]:
    """The layers of a list, or copies of one layer, which bring their own weights."""
    several = isinstance(layer, (list, tuple))
    given: Sequence[Any] = layer if several else [layer]
    for number, one in enumerate(given):
        if not isinstance(one, keras.layers.Layer):
            raise ValueError(f"MultiHead: layer {number} is {one!r} ({type(one).__name__}); it must be a Keras layer.")
    if several:
        if not given:
            raise ValueError("MultiHead: the list of layers is empty; give at least one layer.")
        return list(given)
    if layer_num < 1:
        raise ValueError(f"MultiHead: layer_num is {layer_num}; it must be at least 1.")
    return [_copy(layer, f"{layer.name}_{number + 1}") for number in range(layer_num)]


def _copy(layer: Any, name: str) -> Any:
    return type(layer).from_config({**layer.get_config(), "name": name})


def _shape_of_one(number: int, output: Any) -> Shape:
    if isinstance(output, (list, tuple)):
        raise ValueError(f"MultiHead: head {number} returns {len(output)} tensors; each head must return one.")
    return tuple(output.shape)


def _common_shape(shapes: Sequence[Shape]) -> Shape:
    """The shape of every head, an unknown length taken from a head that knows it; ValueError where two differ."""
    common = shapes[0]
    for number, shape in enumerate(shapes):
        pairs = list(zip(common, shape, strict=False))
        if len(shape) != len(common) or any(None not in pair and pair[0] != pair[1] for pair in pairs):
            raise ValueError(
                f"MultiHead: head {number} gives shape {shape}, head 0 gives {shapes[0]}; "
                "all heads must give the same shape."
            )
        common = tuple(one if other is None else other for one, other in pairs)
    return common
