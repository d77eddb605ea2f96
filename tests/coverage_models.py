"""One model for each built-in layer and activation of Keras that makes sense in a file, and why the others make none.

The name of an entry is the layer's, or `activations.<name>`, then what is special about it: "Conv1D, causal".
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers

Build = Callable[[], keras.Model]

SERIES = (None, 6)
IMAGE = (8, 9, 3)
ANY_IMAGE = (None, None, 3)
VOLUME = (5, 6, 7, 2)
FRAMES = (4, 8, 9, 3)
SOUND = (None,)


def on(layer: Callable[[], Any], *shape: int | None, dtype: str = "float32") -> Build:
    """A model of one layer on one input; (None, 6), a series, where no shape is given."""
    return lambda: keras.Sequential([keras.Input(shape or SERIES, dtype=dtype), layer()])


def of(function: Callable[..., Any], *shapes: Sequence[int | None]) -> Build:
    """A model of a function of several inputs, or of one under its own mask."""

    def build() -> keras.Model:
        inputs = [keras.Input(shape, name=f"input_{number}") for number, shape in enumerate(shapes)]
        return keras.Model(inputs, function(*inputs))

    return build


def masked(layer: Callable[[], Any]) -> Build:
    """A model of one layer behind Masking."""
    return of(lambda x: layer()(layers.Masking()(x)), SERIES)


def attended(layer: Callable[[], Any], **call: Any) -> Build:
    """Self-attention under a mask, of a layer that takes query and value apart."""

    def function(x: Any) -> Any:
        kept = layers.Masking()(x)
        return layer()(kept, kept, **call)

    return of(function, SERIES)


def _threshold() -> Any:
    return layers.Lambda(lambda x: keras.activations.threshold(x, 0.5, -1.0))


ACTIVATIONS: dict[str, Build] = {
    f"activations.{name}": on(lambda name=name: layers.Activation(name))  # type: ignore[misc]
    for name in (
        *("celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu"),
        *("hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu"),
        *("sigmoid", "silu", "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid"),
        *("sparsemax", "squareplus", "tanh", "tanh_shrink"),
    )
} | {"activations.threshold": on(_threshold)}

PROJECTIONS: dict[str, Build] = {
    "Activation": on(lambda: layers.Activation("relu")),
    "Dense": on(lambda: layers.Dense(4)),
    "Dense, of a vector": on(lambda: layers.Dense(4, activation="gelu"), 6),
    "EinsumDense": on(lambda: layers.EinsumDense("abc,cd->abd", output_shape=(None, 4), bias_axes="d")),
    "EinsumDense, to heads": on(lambda: layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3))),
    "Embedding": on(lambda: layers.Embedding(10, 4), None, dtype="int32"),
    "Embedding, masked, before LSTM": lambda: keras.Sequential(
        [keras.Input((None,), dtype="int32"), layers.Embedding(10, 4, mask_zero=True), layers.LSTM(3)]
    ),
    "ReversibleEmbedding": on(lambda: layers.ReversibleEmbedding(10, 4), None, dtype="int32"),
    "ReversibleEmbedding, reversed": of(lambda x: layers.ReversibleEmbedding(10, 6)(x, reverse=True), SERIES),
    "Lambda": on(lambda: layers.Lambda(lambda x: keras.ops.relu(x) + 1)),
    "TimeDistributed": on(lambda: layers.TimeDistributed(layers.Dense(4))),
    "TimeDistributed, of Conv2D": on(lambda: layers.TimeDistributed(layers.Conv2D(2, 3)), *FRAMES),
    "SpectralNormalization": on(lambda: layers.SpectralNormalization(layers.Dense(4))),
}

CONVOLUTIONS: dict[str, Build] = {
    "Conv1D": on(lambda: layers.Conv1D(4, 3)),
    "Conv1D, same": on(lambda: layers.Conv1D(4, 3, padding="same", activation="relu")),
    "Conv1D, causal and dilated": on(lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2)),
    "Conv1D, strided": on(lambda: layers.Conv1D(4, 3, strides=2, padding="same")),
    "Conv1D, grouped": on(lambda: layers.Conv1D(4, 3, groups=2)),
    "Conv2D": on(lambda: layers.Conv2D(4, 3, padding="same", activation="relu"), *ANY_IMAGE),
    "Conv2D, grouped": on(lambda: layers.Conv2D(6, 3, groups=3), *IMAGE),
    "Conv2D, dilated": on(lambda: layers.Conv2D(4, 3, dilation_rate=2), *IMAGE),
    "Conv3D": on(lambda: layers.Conv3D(4, 3), *VOLUME),
    "DepthwiseConv1D": on(lambda: layers.DepthwiseConv1D(3)),
    "DepthwiseConv2D": on(lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), *IMAGE),
    "SeparableConv1D": on(lambda: layers.SeparableConv1D(4, 3)),
    "SeparableConv2D": on(lambda: layers.SeparableConv2D(4, 3), *IMAGE),
    "Conv1DTranspose": on(lambda: layers.Conv1DTranspose(4, 3, strides=2)),
    "Conv2DTranspose": on(lambda: layers.Conv2DTranspose(4, 3, strides=2, padding="same"), *ANY_IMAGE),
    "Conv3DTranspose": on(lambda: layers.Conv3DTranspose(4, 3, strides=2), *VOLUME),
}

POOLING: dict[str, Build] = {
    f"{kind}Pooling{rank}D": on(lambda kind=kind, rank=rank: getattr(layers, f"{kind}Pooling{rank}D")(2), *shape)  # type: ignore[misc]
    for kind in ("Average", "Max")
    for rank, shape in ((1, SERIES), (2, ANY_IMAGE), (3, VOLUME))
} | {
    f"{kind}Pooling{rank}D": on(lambda kind=kind, rank=rank: getattr(layers, f"{kind}Pooling{rank}D")(), *shape)  # type: ignore[misc]
    for kind in ("GlobalAverage", "GlobalMax")
    for rank, shape in ((1, SERIES), (2, ANY_IMAGE), (3, (None, None, None, 2)))
} | {
    f"Adaptive{kind}Pooling{rank}D": on(  # type: ignore[misc]
        lambda kind=kind, rank=rank: getattr(layers, f"Adaptive{kind}Pooling{rank}D")(3), *shape
    )
    for kind in ("Average", "Max")
    for rank, shape in ((1, (8, 6)), (2, IMAGE), (3, VOLUME))
} | {
    "AveragePooling2D, same": on(lambda: layers.AveragePooling2D(2, padding="same"), *IMAGE),
    "GlobalAveragePooling1D, masked": masked(layers.GlobalAveragePooling1D),
}  # fmt: skip

NORMALISATION: dict[str, Build] = {
    "BatchNormalization": on(layers.BatchNormalization),
    "BatchNormalization, behind Dense": lambda: keras.Sequential(
        [keras.Input(SERIES), layers.Dense(4), layers.BatchNormalization()]
    ),
    "LayerNormalization": on(layers.LayerNormalization),
    "RMSNormalization": on(layers.RMSNormalization),
    "GroupNormalization": on(lambda: layers.GroupNormalization(3)),
    "UnitNormalization": on(layers.UnitNormalization),
    "Normalization": on(lambda: layers.Normalization(mean=[1.0] * 6, variance=[2.0] * 6)),
    "Rescaling": on(lambda: layers.Rescaling(1 / 255, offset=0.5)),
    "Discretization": on(lambda: layers.Discretization(bin_boundaries=[0.0, 1.0, 2.0])),
    "CategoryEncoding, multi_hot": on(lambda: layers.CategoryEncoding(5, "multi_hot"), 3, dtype="int32"),
    "CategoryEncoding, count": on(lambda: layers.CategoryEncoding(5, "count"), 3, dtype="int32"),
    "CategoryEncoding, one_hot": on(lambda: layers.CategoryEncoding(5, "one_hot"), 3, dtype="int32"),
    "Masking": on(layers.Masking),
    "Softmax": on(layers.Softmax),
    "Softmax, over time": on(lambda: layers.Softmax(axis=1)),
    "PReLU": on(lambda: layers.PReLU(shared_axes=[1])),
    "LeakyReLU": on(lambda: layers.LeakyReLU(0.3)),
    "ReLU": on(layers.ReLU),
    "ReLU, bent": on(lambda: layers.ReLU(max_value=6, negative_slope=0.1, threshold=0.2)),
    "ELU": on(lambda: layers.ELU(0.5)),
}

SHAPES: dict[str, Build] = {
    "Flatten": on(layers.Flatten, 4, 6),
    "Flatten, of a free length": on(layers.Flatten),
    "Reshape": on(lambda: layers.Reshape((-1, 3))),
    "Permute": on(lambda: layers.Permute((2, 1))),
    "RepeatVector": on(lambda: layers.RepeatVector(3), 6),
    "Cropping1D": on(lambda: layers.Cropping1D((1, 1))),
    "Cropping2D": on(lambda: layers.Cropping2D(1), *IMAGE),
    "Cropping3D": on(lambda: layers.Cropping3D(1), *VOLUME),
    "ZeroPadding1D": on(lambda: layers.ZeroPadding1D(2)),
    "ZeroPadding2D": on(lambda: layers.ZeroPadding2D(1), *ANY_IMAGE),
    "ZeroPadding3D": on(lambda: layers.ZeroPadding3D(1), *VOLUME),
    "UpSampling1D": on(lambda: layers.UpSampling1D(2)),
    "UpSampling2D": on(lambda: layers.UpSampling2D(2), *IMAGE),
    "UpSampling2D, bilinear": on(lambda: layers.UpSampling2D(2, interpolation="bilinear"), *IMAGE),
    "UpSampling3D": on(lambda: layers.UpSampling3D(2), *VOLUME),
    "Resizing": on(lambda: layers.Resizing(4, 5), *IMAGE),
    "CenterCrop": on(lambda: layers.CenterCrop(4, 4), *IMAGE),
    "Identity": on(layers.Identity),
    "ActivityRegularization": on(lambda: layers.ActivityRegularization(0.1)),
    "Dropout": on(lambda: layers.Dropout(0.5)),
    "AlphaDropout": on(lambda: layers.AlphaDropout(0.5)),
    "GaussianDropout": on(lambda: layers.GaussianDropout(0.5)),
    "GaussianNoise": on(lambda: layers.GaussianNoise(0.5)),
    "SpatialDropout1D": on(lambda: layers.SpatialDropout1D(0.5)),
    "SpatialDropout2D": on(lambda: layers.SpatialDropout2D(0.5), *IMAGE),
    "SpatialDropout3D": on(lambda: layers.SpatialDropout3D(0.5), *VOLUME),
    "STFTSpectrogram": on(lambda: layers.STFTSpectrogram(frame_length=16, frame_step=8), 64, 1),
    "MelSpectrogram": on(lambda: layers.MelSpectrogram(fft_length=32, sequence_stride=16, num_mel_bins=8), 128),
}

MERGING: dict[str, Build] = {
    **{
        name: of(lambda a, b, name=name: getattr(layers, name)()([a, b]), SERIES, SERIES)  # type: ignore[misc]
        for name in ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract")
    },
    "Concatenate, over time": of(lambda a, b: layers.Concatenate(axis=1)([a, b]), SERIES, SERIES),
    "Dot": of(lambda a, b: layers.Dot(axes=2)([a, b]), SERIES, SERIES),
}

ATTENTION: dict[str, Build] = {
    "MultiHeadAttention": of(lambda x: layers.MultiHeadAttention(2, 3)(x, x), SERIES),
    "MultiHeadAttention, causal": of(lambda x: layers.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True), SERIES),
    "MultiHeadAttention, masked and causal": attended(lambda: layers.MultiHeadAttention(2, 3), use_causal_mask=True),
    "MultiHeadAttention, query and value": of(lambda q, v: layers.MultiHeadAttention(2, 3)(q, v), SERIES, SERIES),
    "GroupQueryAttention": of(lambda x: layers.GroupQueryAttention(3, 4, 2)(x, x), SERIES),
    "GroupQueryAttention, masked and causal": attended(
        lambda: layers.GroupQueryAttention(3, 4, 2), use_causal_mask=True
    ),
    "Attention": of(lambda q, v: layers.Attention()([q, v]), SERIES, SERIES),
    "Attention, causal": of(lambda x: layers.Attention()([x, x], use_causal_mask=True), SERIES),
    "AdditiveAttention": of(lambda q, v: layers.AdditiveAttention()([q, v]), SERIES, SERIES),
}

_CONV = {"filters": 2, "kernel_size": 3}
RECURRENT: dict[str, Build] = {
    **{name: on(lambda name=name: getattr(layers, name)(3)) for name in ("LSTM", "GRU", "SimpleRNN")},  # type: ignore[misc]
    **{
        f"{name}, masked sequences": masked(lambda name=name: getattr(layers, name)(3, return_sequences=True))  # type: ignore[misc]
        for name in ("LSTM", "GRU", "SimpleRNN")
    },
    "LSTM, states given and returned": of(
        lambda x, h, c: layers.LSTM(3, return_state=True)(layers.Masking()(x), initial_state=[h, c]), SERIES, (3,), (3,)
    ),
    "LSTM, backwards": on(lambda: layers.LSTM(3, go_backwards=True, return_sequences=True)),
    "LSTM, gelu": on(lambda: layers.LSTM(3, activation="gelu")),
    "LSTM, unrolled": on(lambda: layers.LSTM(3, unroll=True), 5, 6),
    "GRU, reset before": masked(lambda: layers.GRU(3, reset_after=False)),
    "Bidirectional": masked(lambda: layers.Bidirectional(layers.LSTM(3, return_sequences=True))),
    "Bidirectional, GRU with states": of(
        lambda x, a, b: layers.Bidirectional(layers.GRU(3, return_state=True))(x, initial_state=[a, b]),
        *(SERIES, (3,), (3,)),
    ),
    "Bidirectional, of cells": on(lambda: layers.Bidirectional(layers.RNN(layers.LSTMCell(3)))),
    "RNN, GRUCell": on(lambda: layers.RNN(layers.GRUCell(3), return_sequences=True)),
    "RNN, LSTMCell masked": masked(lambda: layers.RNN(layers.LSTMCell(3))),
    "RNN, SimpleRNNCell": on(lambda: layers.RNN(layers.SimpleRNNCell(3))),
    "RNN, StackedRNNCells": on(lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)])),
    "ConvLSTM1D": on(lambda: layers.ConvLSTM1D(**_CONV), 4, 8, 3),
    "ConvLSTM1D, sequences": on(lambda: layers.ConvLSTM1D(**_CONV, return_sequences=True), None, 8, 3),
    "ConvLSTM2D": on(lambda: layers.ConvLSTM2D(**_CONV), *FRAMES),
    "ConvLSTM3D": on(lambda: layers.ConvLSTM3D(**_CONV), 3, *VOLUME),
}  # fmt: skip

MODELS: dict[str, Build] = {
    **ACTIVATIONS,
    **PROJECTIONS,
    **CONVOLUTIONS,
    **POOLING,
    **NORMALISATION,
    **SHAPES,
    **MERGING,
    **ATTENTION,
    **RECURRENT,
}
"""By name; in the order of the table."""

_RANDOM = "changes images at random while training"
_IMAGES = "prepares images for training; its result depends on the whole image, and a file has no use for it"
_TABLES = "looks up in tables of strings or hashes; a file takes ids"
_CELL = "one step of a layer: see RNN"
_BASE = "no layer by itself: what layers are made of"
_FOREIGN = "holds a program of another framework"

WITHOUT: dict[str, str] = {
    **dict.fromkeys(("Layer", "Wrapper", "InputSpec", "InputLayer"), _BASE),
    **dict.fromkeys(("GRUCell", "LSTMCell", "SimpleRNNCell", "StackedRNNCells"), _CELL),
    **dict.fromkeys(("FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"), _FOREIGN),
    **dict.fromkeys(("HashedCrossing", "Hashing", "IntegerLookup", "StringLookup", "TextVectorization"), _TABLES),
    **dict.fromkeys(("AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization", "Equalization"), _IMAGES),
    **dict.fromkeys(("MaxNumBoundingBoxes", "Pipeline"), "arranges what other layers of preprocessing do to data"),
    **dict.fromkeys(("AugMix", "CutMix", "MixUp", "RandAugment", "Solarization"), _RANDOM),
    **dict.fromkeys(
        (
            *("RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast", "RandomCrop"),
            *("RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale"),
            *("RandomHue", "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation"),
            *("RandomSaturation", "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom"),
        ),
        _RANDOM,
    ),
}
"""Layers of Keras that make no sense in a file, with the reason."""


def layer_of(name: str) -> str:
    """What an entry covers: "Conv1D, causal" -> "Conv1D"."""
    return name.partition(",")[0]


def keras_names() -> set[str]:
    """Every layer and activation of the Keras that is installed; aliases by the name of the class or function."""
    classes = {item for item in vars(layers).values() if isinstance(item, type)}
    found = {cls.__name__ if hasattr(layers, cls.__name__) else _exported(cls) for cls in classes}
    functions = {item for item in vars(keras.activations).values() if inspect.isfunction(item)}
    known = {function.__name__ for function in functions} - {"get", "serialize", "deserialize"}
    return found | {f"activations.{name}" for name in known}


def _exported(cls: type) -> str:
    return next(name for name, item in vars(layers).items() if item is cls)
