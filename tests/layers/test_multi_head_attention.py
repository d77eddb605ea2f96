from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import formulas
from layers.support import (
    EXACT,
    MASK_KINDS,
    SINGLE,
    SINGLE_MASKED,
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
from mh_edge.layers import MultiHeadAttention


def identity_layer(**arguments):
    """Every projection is the identity, so that the numbers can be worked out by hand."""
    layer = MultiHeadAttention(activation=None, use_bias=False, **arguments)
    layer.build((None, 2, 2))
    for weight in layer.weights:
        weight.assign(np.eye(2))
    return layer


def test_hand_computed_two_heads_of_width_one():
    # x = [[1, 0], [0, 2]]; head 0 sees the column (1, 0), head 1 the column (0, 2); d = 1, so e = q k.
    # head 0: e = [[1, 0], [0, 0]], a = [[e/(e+1), 1/(e+1)], [1/2, 1/2]] = [[.7310586, .2689414], [.5, .5]]
    #         o = a (1, 0) = (.7310586, .5)
    # head 1: e = [[0, 0], [0, 4]], a = [[.5, .5], [1/(1+e^4), e^4/(1+e^4)]] = [[.5, .5], [.0179862, .9820138]]
    #         o = a (0, 2) = (1, 1.9640276)
    layer = identity_layer(head_num=2, return_attention=True)
    y, attention = layer(np.array([[[1.0, 0.0], [0.0, 2.0]]], dtype="float32"))
    np.testing.assert_allclose(as_numpy(y)[0], [[0.7310586, 1.0], [0.5, 1.9640276]], atol=1e-6)
    assert attention.shape == (1, 2, 2, 2)  # batch, query, head, key
    np.testing.assert_allclose(as_numpy(attention)[0, 0], [[0.7310586, 0.2689414], [0.5, 0.5]], atol=1e-6)
    np.testing.assert_allclose(as_numpy(attention)[0, 1], [[0.5, 0.5], [0.0179862, 0.9820138]], atol=1e-6)


def test_hand_computed_history_hides_the_second_step_from_the_first():
    # As above with one head, d = 2: e = x xᵀ / √2 = [[.7071068, 0], [0, 2.8284271]]; row 0 may see itself alone,
    # row 1: a = (1, e^2.8284271) / (1 + 16.9188) = (.0558073, .9441927); y = [[1, 0], [.0558073, 1.8883854]]
    y = identity_layer(head_num=1, history_only=True)(np.array([[[1.0, 0.0], [0.0, 2.0]]], dtype="float32"))
    np.testing.assert_allclose(as_numpy(y)[0], [[1.0, 0.0], [0.0558073, 1.8883854]], atol=1e-6)


def test_hand_computed_masked_past_and_hidden_future_compete():
    # history_only with the first step padded: row 0 has −10000 on both keys (masked past, hidden future), so it is the
    # softmax of its raw scores (.7071068, 0) = (.6697615, .3302385) and sees the future: y = (.6697615, .6604770).
    layer = identity_layer(head_num=1, history_only=True)
    y = layer(np.array([[[1.0, 0.0], [0.0, 2.0]]], dtype="float32"), mask=np.array([[False, True]]))
    np.testing.assert_allclose(as_numpy(y)[0, 0], [0.6697615, 0.6604770], **SINGLE_MASKED)
    np.testing.assert_allclose(as_numpy(y)[0, 1], [0.0, 2.0], atol=1e-6)


def test_the_activation_acts_on_the_projections_and_on_the_output():
    # relu with Wo = −1: q = k = v = relu(x) = x for x = 3, the output relu(−3) is 0 and not −3.
    layer = MultiHeadAttention(head_num=1, use_bias=False)
    layer.build((None, 1, 1))
    for weight, number in zip(layer.weights, (1.0, 1.0, 1.0, -1.0), strict=True):
        weight.assign([[number]])
    assert as_numpy(layer(np.array([[[3.0]]], dtype="float32")))[0, 0, 0] == 0.0


@pytest.mark.parametrize("kind", MASK_KINDS)
@pytest.mark.parametrize("history_only", [False, True])
@pytest.mark.parametrize("shared", [True, False], ids=["self", "query-key-value"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_against_the_formulas(kind, history_only, shared, dtype):
    source = rng(3)
    query = source.standard_normal((4, 5, 6))
    key, value = (query, query) if shared else (source.standard_normal((4, 7, 3)), source.standard_normal((4, 7, 8)))
    mask = mask_of(kind, 4, key.shape[1])
    layer = MultiHeadAttention(2, activation="tanh", history_only=history_only, return_attention=True, dtype=dtype)
    layer.build(query.shape if shared else [query.shape, key.shape, value.shape])
    randomize(layer)
    inputs = query if shared else [query, key, value]
    output, attention = layer(inputs, mask=mask if shared or mask is None else [None, mask, None])
    expected, expected_attention = formulas.multi_head_attention(
        query, key, value, named(layer), 2, "tanh", mask, history_only
    )
    some_row_sees_nothing = kind == "row" or (history_only and kind in ("left", "holes"))
    tolerance = EXACT if dtype == "float64" else SINGLE_MASKED if some_row_sees_nothing else SINGLE
    np.testing.assert_allclose(as_numpy(output), expected, **tolerance)
    np.testing.assert_allclose(as_numpy(attention), expected_attention, **tolerance)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    batch=st.integers(1, 3),
    lengths=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    widths=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    heads=st.sampled_from([(1, 1), (1, 3), (2, 2), (3, 2)]),
    activation=st.sampled_from([None, "relu", "sigmoid"]),
    use_bias=st.booleans(),
    history_only=st.booleans(),
    data=st.data(),
)
def test_any_shape_and_any_mask(batch, lengths, widths, heads, activation, use_bias, history_only, data):
    head_num, head_width = heads
    source = rng(data.draw(st.integers(0, 99)))
    query = source.standard_normal((batch, lengths[0], widths[0]))
    key = source.standard_normal((batch, lengths[1], widths[1]))
    value = source.standard_normal((batch, lengths[1], head_num * head_width))
    bits = st.lists(st.booleans(), min_size=batch * lengths[1], max_size=batch * lengths[1])
    mask = np.array(data.draw(bits)).reshape(batch, lengths[1])
    layer = MultiHeadAttention(head_num, activation, use_bias, history_only=history_only, dtype="float64")
    layer.build([query.shape, key.shape, value.shape])
    randomize(layer)
    expected, _ = formulas.multi_head_attention(
        query, key, value, named(layer), head_num, activation, mask, history_only
    )
    np.testing.assert_allclose(as_numpy(layer([query, key, value], mask=[None, mask, None])), expected, **EXACT)


def test_only_the_mask_of_the_key_acts_and_one_mask_serves_all():
    layer = MultiHeadAttention(2)
    x = rng().standard_normal((2, 4, 6)).astype("float32")
    mask, other = np.array([[1, 1, 0, 0], [0, 1, 1, 0]], bool), np.array([[0, 0, 1, 1], [1, 0, 0, 1]], bool)
    layer.build(x.shape)
    randomize(layer)
    expected = as_numpy(layer(x, mask=mask))
    np.testing.assert_array_equal(as_numpy(layer([x, x, x], mask=[other, mask, other])), expected)
    np.testing.assert_array_equal(as_numpy(layer([x, x, x], mask=mask)), expected)
    assert np.abs(as_numpy(layer([x, x, x], mask=[mask, None, mask])) - expected).max() > 0.01


def test_masks_of_keras_arrive_and_the_query_s_goes_on():
    ids, other = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")
    embedding = keras.layers.Embedding(9, 4, mask_zero=True)
    query, key = embedding(ids), embedding(other)
    y = MultiHeadAttention(2, name="attention")([query, key, key])
    model = keras.Model([ids, other], [y, keras.layers.GlobalAveragePooling1D()(y)])
    layer = model.get_layer("attention")
    randomize(model)
    q, k = np.array([[1, 2, 0], [3, 0, 0]]), np.array([[4, 0, 5, 0, 0], [0, 0, 0, 6, 7]])
    y, mean = (as_numpy(output) for output in model([q, k]))
    table = as_numpy(embedding.embeddings)
    expected, _ = formulas.multi_head_attention(table[q], table[k], table[k], named(layer), 2, key_mask=k != 0)
    np.testing.assert_allclose(y, expected, **SINGLE)
    # the mean over time counts the query's valid steps only, so the mask got there
    np.testing.assert_allclose(mean[0], expected[0, :2].mean(axis=0), **SINGLE)
    np.testing.assert_allclose(mean[1], expected[1, 0], **SINGLE)


def test_shapes_with_free_batch_and_lengths():
    query, key, value = keras.Input((None, 5)), keras.Input((None, 3)), keras.Input((None, 8))
    y, attention = MultiHeadAttention(4, return_attention=True)([query, key, value])
    assert y.shape == (None, None, 8)
    assert attention.shape == (None, None, 4, None)
    layer = MultiHeadAttention(4)
    assert layer.compute_output_shape((2, 7, 8)) == (2, 7, 8)
    assert layer.compute_output_shape([(2, 7, 5), (2, 6, 3), (2, 6, 8)]) == (2, 7, 8)
    assert layer(np.ones((2, 3, 8), "float32")).shape == (2, 3, 8)


def test_weights_start_different_from_each_other():
    layer = MultiHeadAttention(2, bias_initializer="random_normal")
    layer.build((None, 3, 4))
    starts = [as_numpy(weight) for weight in layer.weights]
    for kind in (starts[::2], starts[1::2]):
        assert len({start.tobytes() for start in kind}) == 4


@pytest.mark.parametrize("use_bias", [True, False])
def test_weights_in_order(use_bias):
    layer = MultiHeadAttention(2, use_bias=use_bias)
    layer.build([(None, None, 5), (None, None, 3), (None, None, 4)])
    order = ["Wq", "bq", "Wk", "bk", "Wv", "bv", "Wo", "bo"] if use_bias else ["Wq", "Wk", "Wv", "Wo"]
    shapes = {"Wq": (5, 4), "Wk": (3, 4), "Wv": (4, 4), "Wo": (4, 4)}
    assert [weight.name for weight in layer.weights] == order
    assert [weight.shape for weight in layer.weights] == [shapes.get(name, (4,)) for name in order]
    assert (layer.bq is None) is not use_bias


def test_config_round_trip_keeps_every_argument():
    layer = MultiHeadAttention(
        3,
        activation="gelu",
        use_bias=False,
        kernel_initializer=keras.initializers.HeNormal(seed=4),
        bias_initializer="ones",
        kernel_regularizer=keras.regularizers.L2(0.25),
        bias_regularizer=keras.regularizers.L1(0.5),
        kernel_constraint=keras.constraints.MaxNorm(3),
        bias_constraint="non_neg",
        history_only=True,
        return_attention=True,
        name="heads",
    )
    config = layer.get_config()
    again = MultiHeadAttention.from_config(config)
    assert again.get_config() == config
    assert again.activation is keras.activations.gelu
    assert (again.head_num, again.use_bias, again.history_only, again.return_attention) == (3, False, True, True)
    assert config["kernel_regularizer"]["config"]["l2"] == 0.25
    assert again.kernel_constraint.max_value == 3
    assert MultiHeadAttention.from_config(MultiHeadAttention(1, activation=None).get_config()).activation(-2.0) == -2.0
    assert MultiHeadAttention(1).activation is keras.activations.relu


def test_regularizers_and_constraints_act():
    layer = MultiHeadAttention(1, kernel_regularizer=keras.regularizers.L2(0.5), bias_constraint="non_neg")
    layer.build((None, None, 2))
    randomize(layer)
    expected = 0.5 * sum((value**2).sum() for name, value in named(layer).items() if name.startswith("W"))
    assert float(sum(layer.losses)) == pytest.approx(expected, rel=1e-5)
    assert layer.bv.constraint(np.array([-1.0, 2.0], "float32")).numpy().tolist() == [0.0, 2.0]


@pytest.mark.parametrize("return_attention", [False, True])
def test_saved_and_loaded(tmp_path, return_attention):
    x, mask = keras.Input((None, 6)), keras.Input((None, 3))
    outputs = MultiHeadAttention(3, history_only=True, return_attention=return_attention)([x, mask, x])
    model = keras.Model([x, mask], outputs)
    randomize(model)
    inputs = [rng().standard_normal((2, 4, width)).astype("float32") for width in (6, 3)]
    assert_same_predictions(model, reloaded(model, tmp_path), inputs)


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_float16", 0.02), ("float16", 0.02), ("mixed_bfloat16", 0.15)]
)
def test_narrow_policies_stay_close_also_where_every_key_is_masked(policy, tolerance):
    # The scores are masked in float32: at −10000 a float16 has steps of 8, which would make such rows uniform.
    x = rng(2).standard_normal((2, 5, 4))
    mask = np.array([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)
    layer = MultiHeadAttention(2, activation=None, history_only=True, return_attention=True, dtype=policy)
    layer.build(x.shape)
    randomize(layer)
    output, attention = layer(x.astype("float16"), mask=mask)
    assert keras.backend.standardize_dtype(output.dtype) == layer.compute_dtype
    expected, expected_attention = formulas.multi_head_attention(
        x, x, x, {k: v.astype("float64") for k, v in named(layer).items()}, 2, None, mask, history_only=True
    )
    np.testing.assert_allclose(as_numpy(output).astype("float64"), expected, atol=tolerance * np.abs(expected).max())
    np.testing.assert_allclose(as_numpy(attention).astype("float64"), expected_attention, atol=tolerance)


def test_every_weight_gets_a_gradient_and_training_helps():
    x = rng().standard_normal((8, 5, 4)).astype("float32")
    layer = MultiHeadAttention(2, activation="tanh")
    layer.build(x.shape)
    randomize(layer)
    found = gradients(layer, x, mask=mask_of("holes", 8, 5))
    assert len(found) == 8
    assert all(np.abs(gradient).max() > 0 for gradient in found)
    model = keras.Sequential([keras.Input((None, 4)), MultiHeadAttention(2, activation="tanh")])
    before, after = loss_before_and_after(model, x, 0.5 * np.tanh(x[:, ::-1]), epochs=40)
    assert after < 0.5 * before


def test_refusals_name_the_numbers():
    with pytest.raises(ValueError, match="head_num=3 does not divide 10, the width of value"):
        MultiHeadAttention(3).build((None, 4, 10))
    with pytest.raises(ValueError, match="head_num=3 does not divide 8"):
        MultiHeadAttention(3)([keras.Input((4, 9)), keras.Input((4, 9)), keras.Input((4, 8))])
    with pytest.raises(ValueError, match="head_num is 0; it must be at least 1"):
        MultiHeadAttention(0)
    with pytest.raises(ValueError, match=r"got 2 inputs; give one tensor, or the list \[query, key, value\]"):
        MultiHeadAttention(1)([np.ones((1, 2, 3)), np.ones((1, 2, 3))])
    with pytest.raises(ValueError, match="key has 4 steps, value has 5"):
        MultiHeadAttention(1).build([(None, 3, 2), (None, 4, 2), (None, 5, 2)])
    with pytest.raises(ValueError, match=r"query has shape \(None, 3\); it must be \(batch, time, width\)"):
        MultiHeadAttention(1).build((None, 3))
