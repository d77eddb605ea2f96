"""Domains: which values each input may take, found in models of every kind."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from mh_edge.program import program
from mh_edge.signature import Domain
from mh_edge.verification.domains import derive


def domains(model: keras.Model, feeds: dict[str, np.ndarray] | None = None) -> dict[str, Domain]:
    return {tensor.name: tensor.domain for tensor in derive(program(model, feeds)).signature.inputs}


def test_ids_and_masks_of_a_functional_model() -> None:
    ids = keras.Input((None,), dtype="int32", name="ids")
    other = keras.Input((None,), dtype="int64", name="other")
    x = keras.Input((None, 3), name="x")
    plain = keras.Input((3,), name="plain")
    both = layers.concatenate(
        [
            layers.GlobalAveragePooling1D()(layers.Embedding(11, 4, mask_zero=True)(ids)),
            layers.GlobalAveragePooling1D()(layers.Embedding(5, 4)(other)),
            layers.LSTM(2)(layers.Masking(mask_value=-1.0)(x)),
            plain,
        ]
    )
    assert domains(keras.Model([ids, other, x, plain], layers.Dense(1)(both))) == {
        "ids": Domain(ids_below=11, mask_value=0.0),
        "other": Domain(ids_below=5),
        "x": Domain(mask_value=-1.0),
        "plain": Domain(),
    }


def test_the_smallest_vocabulary_that_an_input_is_looked_up_in() -> None:
    ids = keras.Input((4,), dtype="int32", name="ids")
    first, second = layers.Embedding(20, 3)(ids[:, :2]), layers.Embedding(6, 3)(ids[:, 2:])
    assert domains(keras.Model(ids, first + second))["ids"] == Domain(ids_below=6)


def test_float_ids_of_a_sequential_model() -> None:
    model = keras.Sequential([keras.Input((None,), name="ids"), layers.Embedding(9, 3, mask_zero=True), layers.GRU(2)])
    assert domains(model)["ids"] == Domain(ids_below=9, mask_value=0.0)


def test_a_nested_and_a_subclassed_model() -> None:
    inner = keras.Sequential([keras.Input((None, 3)), layers.Masking(2.0), layers.GRU(4)])
    x = keras.Input((None, 3), name="x")
    assert domains(keras.Model(x, inner(x)))["x"] == Domain(mask_value=2.0)

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = layers.Embedding(7, 3, mask_zero=True)
            self.head = layers.Dense(2)

        def call(self, ids: object) -> object:
            return self.head(keras.ops.mean(self.embedding(ids), axis=1))

    model = Model()
    ids = np.ones((2, 5), "int32")
    model(ids)
    assert domains(model, {"ids": ids})["ids"] == Domain(ids_below=7, mask_value=0.0)


def test_masking_of_computed_values_is_not_written_into_the_data() -> None:
    x = keras.Input((None, 3), name="x")
    model = keras.Model(x, layers.GRU(2)(layers.Masking()(layers.Dense(3, activation="relu")(x))))
    assert domains(model)["x"] == Domain()


def test_the_model_is_as_it_was() -> None:
    model = keras.Sequential([keras.Input((None,), dtype="int32"), layers.Embedding(9, 3)])
    derive(program(model))
    assert all("call" not in vars(layer) for layer in model.layers)
    with pytest.raises(AttributeError):
        del model.layers[0].call
