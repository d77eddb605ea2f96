"""What may stand in the place of the reference."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import mh_edge
from mh_edge.errors import InputError


class Late(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2, kernel_initializer="ones")

    def call(self, rows):
        return self.dense(rows)


def test_a_file_is_opened_as_export_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2)])
    model.save("model.keras")
    mh_edge.export(model, tmp_path, name="model", verify=False)
    result = mh_edge.verify("model.keras", ["model.onnx"])
    assert result.passed
    assert result.reference == "model.keras"


def test_a_missing_model_is_said(tmp_path):
    model = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2)])
    mh_edge.export(model, tmp_path, name="model", verify=False)
    with pytest.raises(InputError, match=r"nothing\.keras"):
        mh_edge.verify(tmp_path / "nothing.keras", [tmp_path / "model.onnx"])


def test_a_model_that_was_never_called_is_built_from_the_feeds(tmp_path):
    feeds = {"rows": np.random.default_rng(0).normal(size=(2, 3)).astype("float32")}
    mh_edge.export(Late(), tmp_path, name="late", feeds=feeds, verify=False)
    assert mh_edge.verify(Late(), [tmp_path / "late.onnx"], feeds=feeds).passed
