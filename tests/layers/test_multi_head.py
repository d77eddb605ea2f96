from __future__ import annotations

import keras
import numpy as np
import pytest
from keras.layers import GRU, LSTM, BatchNormalization, Bidirectional, Conv1D, Dense, Dropout, Embedding

import formulas
from layers.support import (
    SINGLE,
    as_numpy,
    assert_same_predictions,
    gradients,
    loss_before_and_after,
    mask_of,
    randomize,
    reloaded,
    rng,
    total,
)
from mh_edge.layers import MultiHead, SeqSelfAttention

IGNORES_MASK = "ignore:.*does not support masking.*:UserWarning"


def test_hand_computed_two_dense_heads():
    # x = (1, 2); head 0: (1·1 + 2·0, 1·0 + 2·1) + 0 = (1, 2); head 1: (1·3 + 2·4, 1·5 + 2·6) + (.5, −.5) = (11.5, 16.5)
    # y[unit, head] = [[1, 11.5], [2, 16.5]]
    layer = MultiHead(Dense(2), 2)
    layer.build((None, 2))
    layer.set_weights([np.eye(2), np.zeros(2), np.array([[3.0, 5.0], [4.0, 6.0]]), np.array([0.5, -0.5])])
    np.testing.assert_allclose(as_numpy(layer(np.array([[1.0, 2.0]]))), [[[1.0, 11.5], [2.0, 16.5]]])


def test_hand_computed_hidden_dim_wider_than_the_input():
    # x = (2), W = (1, 2, 3, 4), b = (0, 0, 1, 1): z_0 = (2, 4), z_1 = (7, 9);
    # heads sum with weights (1, 1) and (1, −1): y = (6, −2)
    layer = MultiHead(Dense(1, use_bias=False), 2, hidden_dim=2)
    layer.build((None, 1))
    kernel, bias = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([0.0, 0.0, 1.0, 1.0])
    layer.set_weights([kernel, bias, np.array([[1.0], [1.0]]), np.array([[1.0], [-1.0]])])
    np.testing.assert_allclose(as_numpy(layer(np.array([[2.0]]))), [[[6.0, -2.0]]])


@pytest.mark.parametrize("hidden_dim", [None, 5])
@pytest.mark.parametrize(
    "template",
    [
        lambda: Dense(3, activation="tanh"),
        lambda: LSTM(3),
        lambda: GRU(3, return_sequences=True),
        lambda: Bidirectional(LSTM(2, return_sequences=True)),
        lambda: Conv1D(3, 3, padding="same"),
        lambda: SeqSelfAttention(4),
        lambda: keras.Sequential([Dense(4, activation="relu"), LSTM(2)]),
    ],
    ids=["dense", "lstm", "gru", "bidirectional", "conv", "attention", "sequential"],
)
@pytest.mark.filterwarnings(IGNORES_MASK)
def test_is_the_stack_of_its_heads(template, hidden_dim):
    x, mask = rng().standard_normal((3, 6, 4)).astype("float32"), mask_of("right", 3, 6)
    layer = MultiHead(template(), 3, hidden_dim=hidden_dim)
    layer.build(x.shape)
    randomize(layer)

    def alone(head):
        takes_mask = not isinstance(head, (Dense, Conv1D))
        return lambda z: as_numpy(head(z.astype("float32"), **({"mask": mask} if takes_mask else {})))

    kernel, bias = (None, None) if hidden_dim is None else (as_numpy(layer.W), as_numpy(layer.b))
    expected = formulas.multi_head(x, [alone(head) for head in layer.layers], kernel, bias)
    got = as_numpy(layer(x, mask=mask))
    np.testing.assert_allclose(got, expected, **SINGLE)
    assert layer.compute_output_shape(x.shape) == got.shape
    assert np.abs(got[..., 0] - got[..., 1]).max() > 0.01


def test_a_template_gives_copies_and_keeps_its_own_weights():
    template = Dense(2, name="template")
    template.build((None, 3))
    before = as_numpy(template.kernel)
    layer = MultiHead(template, 4)
    assert layer.layer_num == 4
    layer.build((None, 3))
    assert [head.name for head in layer.layers] == ["template_1", "template_2", "template_3", "template_4"]
    assert len(layer.weights) == 8
    assert all(template is not head for head in layer.layers)
    kernels = [as_numpy(head.kernel) for head in layer.layers]
    assert all(np.abs(one - other).max() > 0.01 for one in kernels for other in kernels if one is not other)
    np.testing.assert_array_equal(as_numpy(template.kernel), before)


@pytest.mark.parametrize("kind", [list, tuple])
def test_several_layers_are_used_as_they_are(kind):
    heads = [Conv1D(4, size, padding="same") for size in (3, 5, 7)]
    layer = MultiHead(kind(heads), layer_num=9)
    y = layer(rng().standard_normal((2, 8, 3)).astype("float32"))
    assert y.shape == (2, 8, 4, 3)
    assert layer.layer_num == 3
    assert all(one is other for one, other in zip(layer.layers, heads, strict=True))
    np.testing.assert_array_equal(as_numpy(y)[..., 2], as_numpy(heads[2](rng().standard_normal((2, 8, 3)))))


@pytest.mark.filterwarnings(IGNORES_MASK)
def test_each_layer_is_asked_whether_it_takes_a_mask():
    x, mask = rng().standard_normal((2, 5, 3)).astype("float32"), mask_of("left", 2, 5)
    lstm, conv = LSTM(4, return_sequences=True), Conv1D(4, 3, padding="same")
    for heads in ([lstm, conv], [conv, lstm]):
        y = as_numpy(MultiHead(heads)(x, mask=mask))
        np.testing.assert_allclose(y[..., heads.index(lstm)], as_numpy(lstm(x, mask=mask)), **SINGLE)
        np.testing.assert_allclose(y[..., heads.index(conv)], as_numpy(conv(x)), **SINGLE)


def test_the_mask_of_keras_arrives_and_goes_on():
    ids = keras.Input((None,), dtype="int32")
    x = Embedding(6, 4, mask_zero=True)(ids)
    sequences = MultiHead(LSTM(3, return_sequences=True), 2)
    y = sequences(x)
    flat = keras.layers.TimeDistributed(keras.layers.Flatten())(y)
    model = keras.Model(ids, [MultiHead(LSTM(3), 2)(x), keras.layers.GlobalAveragePooling1D()(flat)])
    padded, cut = np.array([[1, 2, 3, 0, 0]]), np.array([[1, 2, 3]])
    for got, expected in zip(model(padded), model(cut), strict=True):
        np.testing.assert_allclose(as_numpy(got), as_numpy(expected), **SINGLE)
    assert sequences.supports_masking
    assert sequences.compute_mask(x, "mask") == "mask"
    assert MultiHead(LSTM(3), 2).compute_mask(x, "mask") is None
    assert not MultiHead([Conv1D(2, 3), LSTM(2)]).supports_masking


def test_training_goes_to_the_heads_that_take_it():
    x = np.ones((4, 50), "float32")
    layer = MultiHead([Dropout(0.5), keras.layers.Activation("linear")])
    np.testing.assert_array_equal(as_numpy(layer(x)), np.ones((4, 50, 2)))
    trained = as_numpy(layer(x, training=True))
    assert set(np.unique(trained[..., 0])) == {0.0, 2.0}
    np.testing.assert_array_equal(trained[..., 1], x)


def test_shapes_with_free_batch_and_length():
    x = keras.Input((None, 3))
    assert MultiHead(Bidirectional(LSTM(4, return_sequences=True)), 5, hidden_dim=7)(x).shape == (None, None, 8, 5)
    assert MultiHead(LSTM(4), 2)(x).shape == (None, 4, 2)
    assert MultiHead(Embedding(9, 4), 3)(keras.Input((None,), dtype="int32")).shape == (None, None, 4, 3)
    assert MultiHead(Dense(2), 3).compute_output_shape((None, 6, 3)) == (None, 6, 2, 3)


class Composite(keras.layers.Layer):
    """As users write them, without compute_output_shape."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.inner = Dense(3)

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, inputs):
        return keras.ops.concatenate([self.inner(inputs), inputs], axis=-1)


def test_heads_that_tell_their_shape_only_when_traced():
    layer = MultiHead(Composite(), 2, hidden_dim=5)
    assert layer(keras.Input((None, 4))).shape == (None, None, 8, 2)
    assert layer(np.ones((2, 6, 4), "float32")).shape == (2, 6, 8, 2)
    assert len(layer.weights) == 6


def test_heads_of_heads():
    layer = MultiHead(MultiHead(Dense(3), 2), 4)
    assert layer(keras.Input((5,))).shape == (None, 3, 2, 4)
    assert len(layer.weights) == 16


def test_weights_in_order_with_those_that_do_not_train_last():
    layer = MultiHead(BatchNormalization(), 2, hidden_dim=3)
    layer.build((None, 4))
    order = [weight.name for weight in layer.trainable_weights + layer.non_trainable_weights]
    statistics = ["moving_mean", "moving_variance"] * 2
    assert order == ["W", "b", "gamma", "beta", "gamma", "beta", *statistics]
    assert layer.W.shape == (4, 6)
    assert layer.b.shape == (6,)
    assert float(np.abs(as_numpy(layer.W)).max()) <= 0.05
    plain = MultiHead(Dense(2), 2, hidden_dim=3, use_bias=False)
    plain.build((None, 4))
    assert plain.b is None
    assert len(plain.weights) == 5


# Files and policies


@pytest.mark.parametrize(
    "make",
    [
        lambda: MultiHead(LSTM(3), 2, reg_index=[0, 1], reg_slice=slice(0, 2), reg_factor=0.1),
        lambda: MultiHead([Conv1D(2, 3), Conv1D(2, 3, activation="relu")], hidden_dim=4, use_bias=False),
        lambda: MultiHead(
            Dense(4), 2, reg_index=[0, 1], reg_slice=[(slice(None), slice(1, 3)), None], reg_factor=[0.1, 0.2]
        ),
    ],
)
@pytest.mark.parametrize("built", [False, True])
def test_config_round_trip(make, built):
    layer = make()
    if built:
        layer.build((None, 6, 3))
    config = layer.get_config()
    assert set(config) == {
        *("name", "trainable", "dtype", "layers", "hidden_dim", "use_bias", "reg_index", "reg_slice", "reg_factor")
    }
    again = MultiHead.from_config(config)
    assert again.get_config() == config
    assert [head.name for head in again.layers] == [head.name for head in layer.layers]
    again.build((None, 6, 3))
    layer.built or layer.build((None, 6, 3))
    again.set_weights(layer.get_weights())
    assert total(again) == pytest.approx(total(layer), rel=1e-6)


@pytest.mark.parametrize(
    ("encoded", "decoded"),
    [
        (None, [None, None]),
        ([None, [32, 48, None]], [None, slice(32, 48, None)]),
        ([[[None, None, None], [1, 3, 2]], [0, 2, None]], [(slice(None), slice(1, 3, 2)), slice(0, 2)]),
    ],
)
def test_the_config_of_an_old_file(encoded, decoded):
    config = {
        "name": "Multi-Dense",
        "trainable": True,
        "dtype": "float32",
        "layers": [{"class_name": "Dense", "config": {"name": f"d{n}", "units": 64}} for n in range(2)],
        "hidden_dim": None,
        "use_bias": True,
        "reg_index": [0, 1],
        "reg_slice": encoded,
        "reg_factor": [0.1, 0.2],
    }
    layer = MultiHead.from_config(config)
    assert layer.reg_slice == decoded
    assert [head.units for head in layer.layers] == [64, 64]
    assert MultiHead.from_config({**config, "reg_index": None, "reg_slice": None, "reg_factor": 0.0}).reg_index == []


@pytest.mark.parametrize(
    "template",
    [lambda: Bidirectional(LSTM(2, return_sequences=True)), lambda: SeqSelfAttention(3), lambda: BatchNormalization()],
    ids=["bidirectional", "attention", "normalization"],
)
def test_saved_and_loaded(tmp_path, template):
    ids = keras.Input((None,), dtype="int32")
    x = Embedding(6, 4, mask_zero=True)(ids)
    model = keras.Model(ids, MultiHead(template(), 3, hidden_dim=5, reg_index=0, reg_factor=0.1)(x))
    randomize(model, scale=0.3)
    loaded = reloaded(model, tmp_path)
    assert_same_predictions(model, loaded, np.array([[1, 2, 3, 0], [4, 0, 0, 0]]))
    assert len(loaded.weights) == len(model.weights)
    assert total(loaded) == pytest.approx(total(model), rel=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_narrow_policies(policy):
    x = rng().standard_normal((2, 5, 3)).astype("float32")
    layer = MultiHead(LSTM(4, dtype=policy), 2, hidden_dim=3, reg_index=0, reg_factor=0.5, dtype=policy)
    symbolic = layer(keras.Input((None, 3)))
    randomize(layer, scale=0.5)
    wide = MultiHead(LSTM(4), 2, hidden_dim=3)
    wide.build(x.shape)
    wide.set_weights(layer.get_weights())
    y = layer(x, mask=mask_of("right", 2, 5))
    assert keras.backend.standardize_dtype(y.dtype) == symbolic.dtype == layer.compute_dtype
    np.testing.assert_allclose(as_numpy(y).astype("float32"), as_numpy(wide(x, mask=mask_of("right", 2, 5))), atol=0.05)
    kernels = [as_numpy(head.cell.kernel) for head in layer.layers]
    assert total(layer) == pytest.approx(formulas.head_penalty(kernels, 0.5), rel=1e-4)


def test_the_type_is_that_of_the_heads():
    assert MultiHead(Dense(2, dtype="float16"), 2)(keras.Input((3,))).dtype == "float16"


def test_every_weight_gets_a_gradient_and_training_helps():
    x = rng().standard_normal((8, 5, 4)).astype("float32")
    layer = MultiHead(GRU(3), 2, hidden_dim=5)
    layer.build(x.shape)
    randomize(layer)
    found = gradients(layer, x, mask=mask_of("right", 8, 5))
    assert len(found) == 2 + 2 * 3
    assert all(np.abs(gradient).max() > 0 for gradient in found)
    model = keras.Sequential([keras.Input((None, 4)), MultiHead(GRU(3), 2, hidden_dim=5)])
    before, after = loss_before_and_after(model, x, 0.5 * np.tanh(x[:, -2:, :3]).swapaxes(1, 2), epochs=60)
    assert after < 0.5 * before


# Refusals


def test_refusals_name_the_values():
    x = np.ones((2, 4), "float32")
    with pytest.raises(ValueError, match=r"head 2 gives shape \(2, 31\), head 0 gives \(2, 32\); all heads must give"):
        MultiHead([Dense(32), Dense(32), Dense(31)])(x)
    with pytest.raises(ValueError, match=r"head 1 gives shape \(None, 5\), head 0 gives \(None, 4\)"):
        MultiHead([Dense(4), Dense(5)])(keras.Input((4,)))
    with pytest.raises(ValueError, match="head 0 returns 3 tensors; each head must return one"):
        MultiHead(LSTM(2, return_state=True), 2)(np.ones((1, 2, 3), "float32"))
    with pytest.raises(ValueError, match=r"layer 1 is 3 \(int\); it must be a Keras layer"):
        MultiHead([Dense(2), 3])
    with pytest.raises(ValueError, match="the list of layers is empty"):
        MultiHead([])
    with pytest.raises(ValueError, match="layer_num is 0; it must be at least 1"):
        MultiHead(Dense(2), 0)
    with pytest.raises(ValueError, match="hidden_dim is 0; it must be at least 1, or None"):
        MultiHead(Dense(2), 2, hidden_dim=0)
    with pytest.raises(ValueError, match=r"hidden_dim needs a known last dimension, the input has \(None, None\)"):
        MultiHead(Dense(2), 2, hidden_dim=3).build((None, None))
