"""Layers of Keras itself: those without a rule go through the default conversion, and come out equal all the same."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from to_onnx.conversion import operations, proven

IMAGE, FREE_IMAGE, ROWS = (8, 8, 3), (None, None, 3), (None, 6)

# fmt: off
ACTIVATIONS = [
    "celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu",
    "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink",
    "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax", "squareplus", "tanh",
    "tanh_shrink",
]
# fmt: on

SINGLE = {
    "dense": (layers.Dense, (4,), {}, (6,)),
    "einsum_dense": (layers.EinsumDense, ("abc,cd->abd",), {"output_shape": (None, 4), "bias_axes": "d"}, ROWS),
    "conv1d": (layers.Conv1D, (4, 3), {"padding": "causal", "dilation_rate": 2}, ROWS),
    "conv1d_stride": (layers.Conv1D, (4, 3), {"padding": "same", "strides": 2}, ROWS),
    "conv2d": (layers.Conv2D, (4, 3), {"padding": "same", "activation": "relu"}, FREE_IMAGE),
    "conv2d_groups": (layers.Conv2D, (6, 3), {"groups": 3}, IMAGE),
    "conv3d": (layers.Conv3D, (4, 3), {}, (5, 6, 7, 2)),
    "depthwise2d": (layers.DepthwiseConv2D, (3,), {"depth_multiplier": 2}, IMAGE),
    "separable1d": (layers.SeparableConv1D, (4, 3), {}, ROWS),
    "transposed2d": (layers.Conv2DTranspose, (4, 3), {"strides": 2, "padding": "same"}, FREE_IMAGE),
    "max_pooling": (layers.MaxPooling2D, (2,), {}, FREE_IMAGE),
    "average_pooling": (layers.AveragePooling2D, (2,), {"padding": "same"}, IMAGE),
    "global_average": (layers.GlobalAveragePooling1D, (), {}, ROWS),
    "global_max": (layers.GlobalMaxPooling1D, (), {}, ROWS),
    "batch_norm": (layers.BatchNormalization, (), {}, ROWS),
    "layer_norm": (layers.LayerNormalization, (), {}, ROWS),
    "rms_norm": (layers.RMSNormalization, (), {}, ROWS),
    "group_norm": (layers.GroupNormalization, (3,), {}, ROWS),
    "normalization": (layers.Normalization, (), {"mean": [1.0] * 6, "variance": [2.0] * 6}, ROWS),
    "rescaling": (layers.Rescaling, (1 / 255,), {"offset": 0.5}, ROWS),
    "discretization": (layers.Discretization, (), {"bin_boundaries": [-1.0, 0.0, 2.0]}, ROWS),
    "masking": (layers.Masking, (), {}, ROWS),
    "flatten": (layers.Flatten, (), {}, (4, 6)),
    "reshape": (layers.Reshape, ((-1, 3),), {}, ROWS),
    "permute": (layers.Permute, ((2, 1),), {}, ROWS),
    "repeat_vector": (layers.RepeatVector, (3,), {}, (6,)),
    "zero_padding": (layers.ZeroPadding2D, (1,), {}, IMAGE),
    "cropping": (layers.Cropping1D, (1,), {}, (8, 6)),
    "up_sampling": (layers.UpSampling2D, (2,), {"interpolation": "bilinear"}, IMAGE),
    "dropout": (layers.Dropout, (0.5,), {}, ROWS),
    "gaussian_noise": (layers.GaussianNoise, (0.5,), {}, ROWS),
    "prelu": (layers.PReLU, (), {"shared_axes": [1]}, ROWS),
    "softmax": (layers.Softmax, (), {"axis": 1}, ROWS),
    "conv_lstm": (layers.ConvLSTM1D, (2, 3), {}, (4, 8, 3)),
    "lstm_gelu": (layers.LSTM, (3,), {"activation": "gelu"}, ROWS),
    "rnn_of_a_cell": (lambda: layers.RNN(layers.GRUCell(3), return_sequences=True), (), {}, ROWS),
}


def randomized(model):
    """The model with weights that are not where initialisers put them; statistics of normalisation stay valid."""
    random = np.random.default_rng(3)
    for variable in model.variables:
        if "float" in variable.dtype and "norm" not in variable.path:
            variable.assign(random.normal(size=variable.shape) * 0.5)
    return model


def single(make, args, options, shape, dtype="float32"):
    return randomized(keras.Sequential([keras.Input(shape, dtype=dtype), make(*args, **options)]))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name, tmp_path):
    result = proven(single(layers.Activation, (name,), {}, ROWS), tmp_path / "x.onnx")
    assert result.passed, result.to_json()


@pytest.mark.parametrize("name", SINGLE)
def test_layer(name, tmp_path):
    result = proven(single(*SINGLE[name]), tmp_path / "x.onnx")
    assert result.passed, result.to_json()


def several(build, *input_shapes):
    inputs = [keras.Input(shape, name=f"in{index}") for index, shape in enumerate(input_shapes)]
    return randomized(keras.Model(inputs, build(*inputs)))


def present(x):
    """A mask with holes; Keras hands on none of its own beside an initial state."""
    return keras.ops.any(x > 0.9, axis=-1)


SEVERAL = {
    "concatenate_time": (lambda a, b: layers.Concatenate(axis=1)([a, b]), ROWS, ROWS),
    "dot": (lambda a, b: layers.Dot(axes=2)([a, b]), ROWS, ROWS),
    "keras_attention": (lambda a, b: layers.MultiHeadAttention(2, 3)(a, b), ROWS, ROWS),
    "keras_causal": (lambda a: layers.MultiHeadAttention(2, 3)(a, a, use_causal_mask=True), ROWS),
    "keras_masked": (lambda a: layers.MultiHeadAttention(2, 3)(*[layers.Masking()(a)] * 2), ROWS),
    "grouped_query": (lambda a: layers.GroupQueryAttention(4, 4, 2)(a, a), ROWS),
    "additive_attention": (lambda a, b: layers.AdditiveAttention()([a, b]), ROWS, ROWS),
    "lstm_initial_state": (
        lambda x, h, c: layers.LSTM(3, return_state=True)(x, initial_state=[h, c], mask=present(x)),
        ROWS,
        (3,),
        (3,),
    ),
    "gru_initial_state_backwards": (
        lambda x, h: layers.GRU(3, return_sequences=True, return_state=True, go_backwards=True)(
            x, initial_state=[h], mask=present(x)
        ),
        ROWS,
        (3,),
    ),
    "bidirectional_initial_state": (
        lambda x, a, b: layers.Bidirectional(layers.GRU(3, return_state=True))(
            x, initial_state=[a, b], mask=present(x)
        ),
        ROWS,
        (3,),
        (3,),
    ),
    "argmax": (lambda a: keras.ops.argmax(a, axis=-1), ROWS),
    "where_and_cumsum": (lambda a: keras.ops.where(a > 0, keras.ops.cumsum(a, axis=1), keras.ops.exp(a)), ROWS),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_layers_of_several_inputs_and_operations(name, tmp_path):
    build, *input_shapes = SEVERAL[name]
    result = proven(several(build, *input_shapes), tmp_path / "x.onnx")
    assert result.passed, result.to_json()


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN", "Bidirectional"])
def test_embedding_mask_reaches_a_recurrent_layer(kind, tmp_path):
    make = layers.Bidirectional(layers.LSTM(3)) if kind == "Bidirectional" else getattr(layers, kind)(3)
    ids = keras.Input((None,), dtype="int32")
    model = randomized(keras.Model(ids, make(layers.Embedding(7, 4, mask_zero=True)(ids))))
    result = proven(model, tmp_path / "x.onnx")
    assert result.passed, result.to_json()
    assert not {"Loop", "Scan", "If"} & set(operations(tmp_path / "x.onnx"))
