"""Any Keras model as named arrays: names of inputs and outputs, which sizes are free, and what is refused."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from mh_edge.errors import InputError
from mh_edge.layers import MultiHead, MultiHeadAttention
from mh_edge.program import program


def shapes(tensors):
    return {tensor.name: tensor.shape for tensor in tensors}


def assert_runs_like(source, model, *args, **kwargs):
    """The program gives the numbers of the model called directly."""
    feeds = {
        tensor.name: array
        for tensor, array in zip(source.signature.inputs, keras.tree.flatten([args, kwargs]), strict=True)
    }
    direct = keras.tree.flatten(model(*args, **kwargs))
    for got, expected in zip(source.run(feeds).values(), direct, strict=True):
        np.testing.assert_array_equal(got, expected)


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def test_one_free_length_is_called_sequence():
    model = keras.Sequential([layers.Input((None, 4), name="x"), layers.LSTM(3, return_sequences=True, name="y")])
    source = program(model)
    assert shapes(source.signature.inputs) == {"x": ("batch", "sequence", 4)}
    assert shapes(source.signature.outputs) == {"y": ("batch", "sequence", 3)}
    assert_runs_like(source, model, noise(2, 5, 4))


def test_lengths_that_may_differ_are_named_after_their_input():
    query, key = keras.Input((None, 4), name="query"), keras.Input((None, 4), name="key")
    apart = program(keras.Model([query, key], MultiHeadAttention(2)([query, key, key])))
    assert shapes(apart.signature.inputs) == {
        "query": ("batch", "query_sequence", 4),
        "key": ("batch", "key_sequence", 4),
    }
    assert apart.signature.outputs[0].shape == ("batch", "query_sequence", 4)
    together = program(keras.Model([query, key], layers.Add()([query, key])))
    assert {tensor.shape for tensor in together.signature.inputs} == {("batch", "sequence", 4)}


def test_free_sizes_of_images_and_of_what_a_layer_computes():
    image = keras.Input((None, None, 3), name="image")
    source = program(keras.Model(image, layers.Conv2D(2, 3, strides=2, name="y")(image)))
    assert source.signature.inputs[0].shape == ("batch", "height", "width", 3)
    assert source.signature.outputs[0].shape == ("batch", "y_dim_1", "y_dim_2", 2)


def test_a_minimum_length_is_found():
    x = keras.Input((None, 2), name="x")
    source = program(keras.Model(x, layers.Conv1D(2, 40, name="y")(x)))
    assert source.signature.outputs[0].shape == ("batch", "y_dim_1", 2)


def test_dicts_keep_their_keys():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    model = keras.Model({"a": a, "b": b}, {"sum": layers.Add()([a, b]), "first": layers.Dense(2)(a)})
    source = program(model)
    assert [tensor.name for tensor in source.signature.inputs] == ["a", "b"]
    assert [tensor.name for tensor in source.signature.outputs] == ["first", "sum"]
    assert_runs_like(source, model, {"a": noise(2, 4), "b": noise(2, 4) + 1})


def test_shared_layers_and_passed_through_inputs_get_names_of_their_own():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    twice = layers.Dense(2, name="twice")
    source = program(keras.Model([a, b], [twice(a), twice(b), b]))
    assert [tensor.name for tensor in source.signature.outputs] == ["twice", "twice_1", "b_1"]


def test_nested_models():
    inner = keras.Sequential([layers.Input((None, 4)), layers.GRU(4, return_sequences=True)], name="inner")
    x = keras.Input((None, 4), name="x")
    model = keras.Model(x, inner(inner(x)))
    source = program(model)
    assert [tensor.name for tensor in source.signature.outputs] == ["inner"]
    assert_runs_like(source, model, noise(3, 4, 4))


class Tagger(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.heads = MultiHead(layers.LSTM(3), 2)
        self.mask = layers.Masking()

    def call(self, rows, training=False):
        return {"states": self.heads(self.mask(rows)), "inner": {"double": rows * 2}}


def test_subclassed_model_that_was_called():
    model = Tagger()
    model(noise(2, 5, 4))
    source = program(model)
    assert shapes(source.signature.inputs) == {"rows": ("batch", 5, 4)}
    assert shapes(source.signature.outputs) == {"inner_double": ("batch", 5, 4), "states": ("batch", 3, 2)}
    assert_runs_like(source, model, noise(3, 5, 4))


def test_models_that_were_never_called_are_built_from_feeds():
    source = program(Tagger(), {"rows": noise(2, 6, 4)})
    assert shapes(source.signature.inputs) == {"rows": ("batch", 6, 4)}
    sequential = program(keras.Sequential([layers.Dense(2)]), {"x": noise(2, 3)})
    assert shapes(sequential.signature.inputs) == {"x": ("batch", 3)}


def test_a_call_does_not_fix_the_batch_of_a_sequential_model():
    model = keras.Sequential([layers.Dense(2)])
    model(noise(2, 3))
    assert program(model).signature.inputs[0].shape == ("batch", 3)


def test_functional_models_need_no_call():
    x = keras.Input((None,), dtype="int32", name="ids")
    source = program(keras.Model(x, layers.Embedding(9, 4, mask_zero=True)(x)))
    assert (source.signature.inputs[0].dtype, source.signature.inputs[0].shape) == ("int32", ("batch", "sequence"))


class TwoArguments(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, left, right):
        return self.dense(left) - self.dense(right)


def test_several_arguments_come_from_feeds():
    model = TwoArguments()
    source = program(model, {"right": noise(2, 5), "left": noise(2, 5)})
    assert shapes(source.signature.inputs) == {"right": ("batch", 5), "left": ("batch", 5)}
    left, right = noise(3, 5), noise(3, 5) + 1
    np.testing.assert_array_equal(next(iter(source.run({"left": left, "right": right}).values())), model(left, right))


def never_called():
    return Tagger()


def stateful():
    x = keras.Input(batch_shape=(2, 3, 4))
    return keras.Model(x, layers.Bidirectional(layers.LSTM(3, stateful=True))(x))


@pytest.mark.parametrize(
    ("model", "feeds", "said"),
    [
        (never_called, None, "was never called"),
        (lambda: keras.Sequential([layers.Dense(2)]), None, "was never called"),
        (TwoArguments, None, "left, right"),
        (TwoArguments, {"left": np.zeros((1, 5), "float32")}, "no array 'right'"),
        (stateful, None, "stateful=True"),
    ],
)
def test_refusals_say_what_to_do(model, feeds, said):
    with pytest.raises(InputError, match=said) as raised:
        program(model(), feeds)
    assert raised.value.hint


def test_an_output_without_a_number_is_refused():
    x = keras.Input((3, 0), name="x")
    with pytest.raises(InputError, match="output 'y' has the shape") as caught:
        program(keras.Model(x, layers.Activation("relu", name="y")(x)))
    assert caught.value.hint
