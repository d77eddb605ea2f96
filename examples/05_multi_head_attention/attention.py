"""Attention with several heads: the rows of a digit on each other, then a query on keys and values of other widths."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import mh_edge
from mh_edge.quiet import quiet

with quiet():  # TensorFlow prints a page when it is loaded
    import keras

    from mh_edge.layers import MultiHeadAttention

SYMBOLS, QUERIES, STORED = 6, 3, 5


def self_attention() -> keras.Model:
    """(batch, 8, 8): every row looks at every row -> (batch, 8, 8) -> (batch, 10)."""
    rows = keras.Input((8, 8), name="rows")
    seen = MultiHeadAttention(head_num=4, activation="tanh")(rows)
    digit = keras.layers.Dense(10, activation="softmax", name="digit")(keras.layers.Flatten()(seen))
    return keras.Model(rows, digit, name="self_attention")


def lookup() -> keras.Model:
    """query: (batch, Tq, 6), key: (batch, Tk, 7), value: (batch, Tk, 4) -> what was asked for: (batch, Tq, 4)."""
    query = keras.Input((None, SYMBOLS), name="query")
    key = keras.Input((None, SYMBOLS + 1), name="key")
    value = keras.Input((None, 4), name="value")
    found = MultiHeadAttention(head_num=2, activation=None, name="found")([query, key, value])
    return keras.Model([query, key, value], found, name="lookup")


def questions(count: int, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Made up: each sequence stores five of six symbols with a random value each, and asks for three of them."""
    order = np.argsort(rng.random((count, SYMBOLS)))[:, :STORED]
    value = rng.normal(size=(count, STORED, 4))
    asked = np.argsort(rng.random((count, STORED)))[:, :QUERIES]
    key = np.concatenate([np.eye(SYMBOLS)[order], rng.normal(size=(count, STORED, 1))], axis=2)
    query = np.eye(SYMBOLS)[np.take_along_axis(order, asked, axis=1)]
    answer = np.take_along_axis(value, asked[:, :, None], axis=1)
    feeds = {"query": query, "key": key, "value": value}
    return {name: array.astype("float32") for name, array in feeds.items()}, answer.astype("float32")


def proven(model: keras.Model, folder: str, feeds: Mapping[str, np.ndarray]) -> None:
    for made in mh_edge.export(model, folder, formats=("onnx", "tflite"), feeds=feeds).artifacts:
        error = made.verified["required_tolerance"]["abs"]
        print(f"{made.path}: {made.bytes} bytes, equal on {made.verified['feeds']} feeds, greatest error {error:.1e}")


def main(folder: str) -> None:
    keras.utils.set_random_seed(0)
    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        (digits.images / 16).astype("float32"), digits.target, test_size=360, random_state=0
    )
    model = self_attention()
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train_x, train_y, batch_size=64, epochs=15, verbose=0)
    print(f"self_attention, right of {len(test_x)} test digits: {model.evaluate(test_x, test_y, verbose=0)[1]:.1%}")
    proven(model, folder, {"rows": test_x[:8]})

    rng = np.random.default_rng(0)
    feeds, answers = questions(8000, rng)
    model = lookup()
    model.compile(keras.optimizers.Adam(0.02), "mse")
    model.fit(feeds, answers, batch_size=128, epochs=8, verbose=0)
    feeds, answers = questions(500, rng)
    left = model.evaluate(feeds, answers, verbose=0) / np.var(answers)
    print(f"lookup, share of the variance that is not explained: {left:.1%}")
    proven(model, folder, {name: array[:8] for name, array in feeds.items()})


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "out")
