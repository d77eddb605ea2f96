from __future__ import annotations

import keras
import numpy as np
import pytest

import formulas
from layers.support import (
    EXACT,
    MASK_KINDS,
    SINGLE,
    as_numpy,
    assert_same_predictions,
    gradients,
    loss_before_and_after,
    mask_of,
    named,
    randomize,
    reloaded,
    rng,
)
from mh_edge.layers import SeqSelfAttention


def test_hand_computed_multiplicative():
    # Wa = 2, ba = 1, x = (1, −1): e = 2 x_t x_t' + 1 = [[3, −1], [−1, 3]]; a = (1, e^−4) / 1.0183156
    # = (.9820138, .0179862); y_0 = .9820138 − .0179862 = .9640276, y_1 = −.9640276
    layer = SeqSelfAttention(attention_type="multiplicative", return_attention=True)
    layer.build((None, 2, 1))
    layer.set_weights([np.array([[2.0]]), np.array([1.0])])
    y, a = layer(np.array([[[1.0], [-1.0]]], dtype="float32"))
    np.testing.assert_allclose(as_numpy(a)[0], [[0.9820138, 0.0179862], [0.0179862, 0.9820138]], atol=1e-6)
    np.testing.assert_allclose(as_numpy(y)[0], [[0.9640276], [-0.9640276]], atol=1e-6)


def test_hand_computed_additive():
    # One unit, Wt = 1, Wx = 2, bh = .5, Wa = 3, ba = −1, x = (0, 1): h[t, t'] = tanh(x_t + 2 x_t' + .5)
    # = [[tanh .5, tanh 2.5], [tanh 1.5, tanh 3.5]] = [[.4621172, .9866143], [.9051483, .9981779]]
    # e = 3 h − 1; a_0 = softmax(.3863515, 1.9598429) = (.1717192, .8282808)
    # a_1 = softmax(1.7154448, 1.9945337) = (.4306771, .5693229); y = a x = (.8282808, .5693229)
    layer = SeqSelfAttention(units=1)
    layer.build((None, 2, 1))
    layer.set_weights([np.array(w) for w in ([[1.0]], [[2.0]], [0.5], [[3.0]], [-1.0])])
    y = layer(np.array([[[0.0], [1.0]]], dtype="float32"))
    np.testing.assert_allclose(as_numpy(y)[0, :, 0], [0.8282808, 0.5693229], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        # all scores equal, so every step attends alike to what its window holds; x = 1, 2, 3, 4
        ({"attention_width": 3}, [1.5, 2.0, 3.0, 3.5]),  # t−1 .. t+1
        ({"attention_width": 2}, [1.0, 1.5, 2.5, 3.5]),  # t−1 .. t
        ({"attention_width": 2, "history_only": True}, [1.0, 1.5, 2.5, 3.5]),
        ({"attention_width": 3, "history_only": True}, [1.0, 1.5, 2.0, 3.0]),  # t−2 .. t
        ({"history_only": True}, [1.0, 1.5, 2.0, 2.5]),
        ({}, [2.5, 2.5, 2.5, 2.5]),
    ],
)
def test_hand_computed_windows(arguments, rows):
    layer = SeqSelfAttention(attention_type="multiplicative", kernel_initializer="zeros", **arguments)
    y = layer(np.array([[[1.0], [2.0], [3.0], [4.0]]], dtype="float32"))
    np.testing.assert_allclose(as_numpy(y)[0, :, 0], rows, atol=1e-6)


@pytest.mark.parametrize("kind", MASK_KINDS)
@pytest.mark.parametrize("attention_type", ["additive", "multiplicative"])
@pytest.mark.parametrize("attention_width", [None, 1, 4])
@pytest.mark.parametrize("history_only", [False, True])
def test_against_the_formulas(kind, attention_type, attention_width, history_only):
    x, mask = rng(6).standard_normal((3, 6, 4)), mask_of(kind, 3, 6)
    layer = SeqSelfAttention(
        5, attention_width, attention_type, True, history_only, attention_activation="sigmoid", dtype="float64"
    )
    layer.build(x.shape)
    randomize(layer)
    output, attention = layer(x, mask=mask)
    expected, expected_attention = formulas.seq_self_attention(
        x, named(layer), attention_type, attention_width, history_only, "sigmoid", mask
    )
    np.testing.assert_allclose(as_numpy(output), expected, **EXACT)
    np.testing.assert_allclose(as_numpy(attention), expected_attention, **EXACT)


@pytest.mark.parametrize("additive_bias", [True, False])
@pytest.mark.parametrize("attention_bias", [True, False])
def test_weights_in_order(additive_bias, attention_bias):
    biases = {"use_additive_bias": additive_bias, "use_attention_bias": attention_bias}
    layer, product = SeqSelfAttention(5, **biases), SeqSelfAttention(5, attention_type="multiplicative", **biases)
    layer.build((None, None, 3))
    product.build((None, None, 3))
    shapes = {"Wt": (3, 5), "Wx": (3, 5), "bh": (5,), "Wa": (5, 1), "ba": (1,)}
    order = [n for n in shapes if (n != "bh" or additive_bias) and (n != "ba" or attention_bias)]
    assert [(weight.name, weight.shape) for weight in layer.weights] == [(name, shapes[name]) for name in order]
    assert [weight.name for weight in product.weights] == (["Wa", "ba"] if attention_bias else ["Wa"])
    assert (layer.bh is None, layer.ba is None) == (not additive_bias, not attention_bias)
    x = rng().standard_normal((2, 4, 3)).astype("float32")
    randomize(layer)
    np.testing.assert_allclose(as_numpy(layer(x)), formulas.seq_self_attention(x, named(layer))[0], **SINGLE)


def test_the_penalty_is_the_formula_s_and_does_not_pile_up():
    x = rng().standard_normal((3, 4, 2)).astype("float32")
    layer = SeqSelfAttention(4, attention_regularizer_weight=0.3, return_attention=True)
    for _ in range(3):
        _, attention = layer(x)
    assert len(layer.losses) == 1
    assert float(layer.losses[0]) == pytest.approx(formulas.attention_penalty(as_numpy(attention), 0.3), rel=1e-5)
    model = keras.Sequential([keras.Input((None, 2)), SeqSelfAttention(4, attention_regularizer_weight=0.3)])
    model.compile(optimizer="sgd", loss=lambda y, p: 0.0 * keras.ops.mean(p))
    assert model.evaluate(x, x, verbose=0) > 0.1


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("attention_type", ["additive", "multiplicative"])
def test_narrow_policies(policy, attention_type):
    x, mask = rng().standard_normal((3, 5, 4)), mask_of("row", 3, 5)
    layer = SeqSelfAttention(6, attention_type=attention_type, attention_regularizer_weight=0.1, dtype=policy)
    layer.build(x.shape)
    randomize(layer, scale=0.3)
    output = layer(x, mask=mask)
    assert keras.backend.standardize_dtype(output.dtype) == layer.compute_dtype
    expected, _ = formulas.seq_self_attention(x, named(layer), attention_type, mask=mask)
    np.testing.assert_allclose(as_numpy(output).astype("float64"), expected, atol=0.06)


def test_shapes_mask_config_and_file(tmp_path):
    ids = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(5, 4, mask_zero=True)(ids)
    y, a = SeqSelfAttention(6, attention_width=3, return_attention=True, name="attention")(x)
    assert (y.shape, a.shape) == ((None, None, 4), (None, None, None))
    model = keras.Model(ids, [keras.layers.GlobalAveragePooling1D()(y), a])
    randomize(model)
    loaded = reloaded(model, tmp_path)
    assert loaded.get_layer("attention").get_config() == model.get_layer("attention").get_config()
    inputs = np.array([[1, 2, 0], [3, 0, 0]])
    assert_same_predictions(model, loaded, inputs)
    table = as_numpy(model.layers[1].embeddings)[inputs]
    expected, _ = formulas.seq_self_attention(
        table, named(model.get_layer("attention")), attention_width=3, mask=inputs != 0
    )
    np.testing.assert_allclose(as_numpy(model(inputs)[0])[0], expected[0, :2].mean(axis=0), **SINGLE)


def test_config_round_trip_keeps_every_argument():
    layer = SeqSelfAttention(
        units=7,
        attention_type="multiplicative",
        return_attention=True,
        history_only=True,
        kernel_initializer=keras.initializers.HeNormal(seed=4),
        bias_initializer="ones",
        kernel_regularizer=keras.regularizers.L2(0.25),
        bias_regularizer="l1",
        kernel_constraint=keras.constraints.MaxNorm(3),
        bias_constraint="non_neg",
        use_additive_bias=False,
        use_attention_bias=False,
        attention_activation="tanh",
        attention_regularizer_weight=0.5,
    )
    config = layer.get_config()
    again = SeqSelfAttention.from_config(config)
    assert again.get_config() == config
    assert again.attention_activation is keras.activations.tanh
    assert (again.units, again.attention_width, again.attention_regularizer_weight) == (7, 1_000_000_000, 0.5)


@pytest.mark.parametrize("attention_type", ["additive", "multiplicative"])
def test_gradients_and_training(attention_type):
    x = rng().standard_normal((8, 5, 3)).astype("float32")
    layer = SeqSelfAttention(4, attention_type=attention_type)
    layer.build(x.shape)
    randomize(layer)
    *found, attention_bias = gradients(layer, x, mask=mask_of("right", 8, 5))
    assert all(np.abs(gradient).max() > 1e-4 for gradient in found)
    assert np.abs(attention_bias).max() < 1e-4  # a shift of all scores does not change a softmax
    model = keras.Sequential([keras.Input((None, 3)), SeqSelfAttention(8, attention_type=attention_type)])
    before, after = loss_before_and_after(model, x, as_numpy(layer(x)), epochs=60)  # learns what the other layer does
    assert after < 0.5 * before


def test_refusals_name_the_values():
    with pytest.raises(ValueError, match="attention_type is 'dot'; it must be 'additive' or 'multiplicative'"):
        SeqSelfAttention(attention_type="dot")
    with pytest.raises(ValueError, match=r"the input has shape \(None, 4, None\)"):
        SeqSelfAttention().build((None, 4, None))
