"""Heads that became one operation: the numbers at every length and batch, what was chosen, and what stays apart."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest

import mh_edge_tflite
from mh_edge.layers import MultiHead
from mh_edge.program import program
from mh_edge.runtimes import open_session
from to_tflite.conversion import operations

layers = keras.layers

ROUNDING = 2e-6
"""Of 100 steps of a recurrence whose outputs lie in [-1, 1]."""


def model(layer, count=4, *, masked=True, **options):
    keras.utils.set_random_seed(1)
    x = keras.Input((None, 5), name="x")
    return keras.Model(x, MultiHead(layer, count, **options)(layers.Masking()(x) if masked else x))


def exported(model, path, *, merge=True, batch=1):
    """(the program, what the converter told) of a file."""
    source = program(model)
    converted = mh_edge_tflite.convert(source, source.signature.pin({"batch": batch}), merge=merge)
    converted.save(path)
    return source, converted


def feeds(lengths, batch=1):
    """Steps left out at random."""
    rng = np.random.default_rng(0)
    for length in lengths:
        left_out = rng.random(length) < 0.4
        yield {"x": np.where(left_out[:, None], 0, rng.normal(size=(batch, length, 5))).astype(np.float32)}


LIKE_KERAS = {
    "lstm": lambda: model(layers.LSTM(3, return_sequences=True)),
    "gru": lambda: model(layers.GRU(3, return_sequences=True, reset_after=False, zero_output_for_mask=True)),
    "last": lambda: model(layers.SimpleRNN(3, go_backwards=True)),
    "both": lambda: model(layers.Bidirectional(layers.GRU(2, return_sequences=True), merge_mode="mul"), 2),
    "hidden": lambda: model(layers.LSTM(3, return_sequences=True), hidden_dim=4),
}


@pytest.mark.parametrize(("name", "batch"), [*((name, 1) for name in LIKE_KERAS), ("lstm", 3), ("both", 3)])
def test_recurrent_heads_at_every_length(name, batch, tmp_path):
    """Beside and on the borders of the four steps of a turn and of the 32 of a block, on one session."""
    source, _ = exported(LIKE_KERAS[name](), tmp_path / "model.tflite", batch=batch)
    assert operations(tmp_path / "model.tflite")["BATCH_MATMUL"]
    with open_session(tmp_path / "model.tflite") as session:
        for feed in feeds((5, 70), batch):
            got, expected = session.run(feed), source.run(feed)
            for key in expected:
                np.testing.assert_allclose(got[key], expected[key], rtol=0, atol=ROUNDING)


def test_what_is_not_a_number_is_forgotten(tmp_path):
    """A state that outlives a call would stay NaN."""
    source, _ = exported(model(layers.LSTM(3)), tmp_path / "model.tflite")
    with open_session(tmp_path / "model.tflite") as session:
        feed = next(feeds([7]))
        (forgotten,) = session.run({"x": np.full_like(feed["x"], np.nan)}).values()
        assert np.isnan(forgotten).all()
        for name, expected in source.run(feed).items():
            np.testing.assert_allclose(session.run(feed)[name], expected, rtol=0, atol=ROUNDING)


def test_nothing_is_merged_when_told_so(tmp_path):
    built = model(layers.LSTM(3), 3)
    source, converted = exported(built, tmp_path / "apart.tflite", merge=False)
    assert operations(tmp_path / "apart.tflite")["WHILE"] == 3
    assert not converted.choices
    _, converted = exported(built, tmp_path / "merged.tflite")
    assert operations(tmp_path / "merged.tflite")["WHILE"] == 1
    assert "3 LSTM heads in 1 loop" in converted.choices[0].choice
    with open_session(tmp_path / "apart.tflite") as apart, open_session(tmp_path / "merged.tflite") as merged:
        for feed in feeds([9]):
            for session in (apart, merged):
                for name, expected in source.run(feed).items():
                    np.testing.assert_allclose(session.run(feed)[name], expected, rtol=0, atol=ROUNDING)


def test_as_many_heads_in_a_loop_as_the_cache_holds(tmp_path, monkeypatch):
    """Of five heads, two loops: three and two."""
    monkeypatch.setattr(importlib.import_module("mh_edge_tflite.merging"), "CACHE", 3 * 4 * 3 * 12)
    source, converted = exported(model(layers.LSTM(3), 5), tmp_path / "model.tflite")
    assert operations(tmp_path / "model.tflite")["WHILE"] == 2
    assert converted.choices[0].choice.startswith("5 LSTM heads in 2 loops")
    with open_session(tmp_path / "model.tflite") as session:
        for feed in feeds([6]):
            for name, expected in source.run(feed).items():
                np.testing.assert_allclose(session.run(feed)[name], expected, rtol=0, atol=ROUNDING)


def test_heads_that_are_too_large_stay_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("mh_edge_tflite.merging"), "CACHE", 4 * 3 * 12)
    _, converted = exported(model(layers.LSTM(3), 2), tmp_path / "model.tflite")
    assert operations(tmp_path / "model.tflite")["WHILE"] == 2
    assert converted.choices[0].choice == "2 LSTM heads apart"


CONVOLUTIONS = {
    "dilated": lambda: [layers.Conv1D(3, 3, dilation_rate=step, padding="same") for step in (1, 2)],
    "even": lambda: [layers.Conv1D(3, size, padding="same") for size in (2, 4)],
    "mixed": lambda: [layers.Conv1D(3, 3, padding=padding) for padding in ("same", "causal")],
    "strides": lambda: [layers.Conv1D(3, 3, strides=2, padding="same") for _ in range(2)],
    "strides_causal": lambda: [layers.Conv1D(3, size, strides=2, padding="causal") for size in (2, 3)],
    "valid": lambda: [layers.Conv1D(3, 3, padding="valid"), layers.SeparableConv1D(3, 3)],
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_at_every_length(name, tmp_path):
    heads = CONVOLUTIONS[name]()
    source, _ = exported(model(heads, masked=False), tmp_path / "model.tflite")
    for number, variable in enumerate(source.variables):
        variable.assign(np.random.default_rng(number).normal(size=variable.shape))
    exported(source.model, tmp_path / "model.tflite")
    kinds = {type(head) for head in heads}
    assert operations(tmp_path / "model.tflite")["CONV_2D"] == len(kinds)
    with open_session(tmp_path / "model.tflite") as session:
        for length in (5, 8):
            feed = {"x": np.random.default_rng(length).normal(size=(1, length, 5)).astype(np.float32)}
            for key, expected in source.run(feed).items():
                np.testing.assert_allclose(session.run(feed)[key], expected, rtol=0, atol=2e-5)
