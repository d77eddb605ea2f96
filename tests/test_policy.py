"""Clones in another precision: every kind of model, the same numbers, nothing shared with the original."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

from mh_edge.errors import InputError
from mh_edge.policy import computing, is_float32, with_policy

X = np.random.default_rng(0).standard_normal((3, 7, 6)).astype("float32")


class Scaled(layers.Layer):
    """A class that no registry knows, with a function of its own."""

    def __init__(self, factor: float = 2.0, activation: Callable[[object], object] | None = None, **kw: object) -> None:
        super().__init__(**kw)
        self.factor = factor
        self.activation = keras.activations.get(activation)

    def call(self, inputs: object) -> object:
        return self.activation(inputs * self.factor)

    def get_config(self) -> dict[str, object]:
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "factor": self.factor, "activation": activation}


class Subclassed(keras.Model):
    def __init__(self, units: int = 4, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.first = layers.Dense(units, activation="tanh")
        self.second = layers.LSTM(units)

    def call(self, inputs: object) -> object:
        return self.second(self.first(inputs))

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "units": self.units}


def sequential() -> keras.Model:
    return keras.Sequential([keras.Input((None, 6)), layers.Masking(), layers.GRU(4), layers.Dense(2)])


def shared_and_nested() -> keras.Model:
    inner = keras.Sequential([keras.Input((None, 6)), layers.Dense(6, activation="gelu"), layers.BatchNormalization()])
    x = keras.Input((None, 6))
    shared = layers.Dense(6)
    return keras.Model(x, inner(shared(inner(shared(x)))) + keras.ops.sin(x) * 0.5)


def subclassed() -> keras.Model:
    model = Subclassed()
    model(X)
    return model


def own_layer() -> keras.Model:
    def bent(x: object) -> object:
        return keras.ops.where(x > 0, x, x * 0.1)

    return keras.Sequential([keras.Input((None, 6)), Scaled(3.0, activation=bent), layers.Dense(2)])


def wrapped() -> keras.Model:
    model = keras.Sequential([keras.Input((None, 6)), layers.Bidirectional(layers.LSTM(3, return_sequences=True))])
    model.add(layers.TimeDistributed(layers.Dense(2)))
    return model


def lambda_layer() -> keras.Model:
    return keras.Sequential([keras.Input((None, 6)), layers.Lambda(lambda x: x * 2.0), layers.Dense(2)])


@pytest.mark.parametrize(
    "build", [sequential, shared_and_nested, subclassed, own_layer, wrapped, lambda_layer], ids=lambda b: b.__name__
)
def test_a_float64_clone_computes_the_same_function_more_exactly(build: Callable[[], keras.Model]) -> None:
    keras.utils.set_random_seed(3)
    model = build()
    before = [value.copy() for value in model.get_weights()]
    clone = with_policy(model, "float64")
    assert {variable.dtype for variable in clone.weights} == {"float64"}
    assert len(clone.weights) == len(model.weights)  # shared layers are still shared
    with computing("float64"):
        truth = keras.ops.convert_to_numpy(clone(X.astype("float64")))
    plain = keras.ops.convert_to_numpy(model(X))
    assert truth.dtype == np.float64
    assert plain.dtype == np.float32
    np.testing.assert_allclose(truth, plain, rtol=0, atol=3e-6)
    assert (truth != plain).any()
    clone.set_weights([value + 1 for value in clone.get_weights()])
    for value, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, kept)
    assert keras.config.floatx() == "float32"
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_a_mixed_precision_model_has_a_float32_clone(policy: str) -> None:
    x = keras.Input((None, 6), dtype="float32")
    h = layers.Dense(5, activation="relu", dtype=policy)(x)
    model = keras.Model(x, layers.LSTM(4, dtype=policy)(h))
    assert not is_float32(model)
    clone = with_policy(model, "float32")
    assert is_float32(clone)
    result = keras.ops.convert_to_numpy(clone(X))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.asarray(keras.ops.cast(model(X), "float32")), atol=0.05)
    for ours, theirs in zip(clone.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs.astype("float32"))


def test_integer_inputs_stay_integers() -> None:
    ids = keras.Input((None,), dtype="int32")
    clone = with_policy(keras.Model(ids, layers.Embedding(5, 3, mask_zero=True)(ids)), "float64")
    assert clone.inputs[0].dtype == "int32"
    assert clone.output.dtype == "float64"


def test_a_model_whose_config_does_not_describe_it_is_refused_in_a_sentence() -> None:
    class Hidden(keras.Model):
        def __init__(self, units: int) -> None:
            super().__init__(name="hidden")
            self.dense = layers.Dense(units)

        def call(self, inputs: object) -> object:
            return self.dense(inputs)

    model = Hidden(4)
    model(X)
    with pytest.raises(InputError, match=r"the model 'hidden' \(Hidden\) cannot be cloned in float64") as caught:
        with_policy(model, "float64")
    assert "get_config" in caught.value.hint
    assert keras.config.floatx() == "float32"


def test_a_clone_with_other_weights_is_refused() -> None:
    class Grows(layers.Layer):
        def __init__(self, **kwargs: object) -> None:
            super().__init__(**kwargs)
            self.rows = 2

        def build(self, shape: tuple[int, ...]) -> None:
            self.kernel = self.add_weight(shape=(self.rows, shape[-1]), name="kernel")

        def call(self, inputs: object) -> object:
            return keras.ops.matmul(inputs, keras.ops.transpose(self.kernel))

    grown = Grows()
    grown.rows = 5  # not in its config
    model = keras.Sequential([keras.Input((None, 6)), grown])
    with pytest.raises(InputError, match="has 1 weights instead of 1, or other shapes"):
        with_policy(model, "float64")


def test_a_quantized_model_is_refused() -> None:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    model.quantize("int8")
    with pytest.raises(InputError, match="is quantized"):
        with_policy(model, "float64")


def test_layers_of_integers_do_not_make_a_model_of_another_precision():
    words = keras.Input((1,), dtype="int32")
    hashed = keras.layers.Hashing(5)(words)
    assert is_float32(keras.Model(words, keras.layers.Embedding(5, 2)(hashed)))
