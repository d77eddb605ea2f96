from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from layers import forward
from layers.support import as_numpy, randomize
from mh_edge.layers import (
    MultiHead,
    MultiHeadAttention,
    ScaledDotProductAttention,
    SeqSelfAttention,
    SeqWeightedAttention,
)

ROOT = Path(__file__).parents[2]

LOAD = """
import sys
import numpy as np
import keras
import mh_edge.layers
model = keras.models.load_model(sys.argv[1])
np.save(sys.argv[2], model(np.load(sys.argv[3])))
"""


def run(arguments: list[str], **environment: str) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **environment}
    result = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def test_importing_the_layers_is_all_another_process_needs_to_load_a_file(tmp_path):
    ids = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(6, 4, mask_zero=True)(ids)
    x = keras.layers.TimeDistributed(keras.layers.Flatten())(
        MultiHead(keras.layers.LSTM(3, return_sequences=True), 2, hidden_dim=5, reg_index=1, reg_factor=0.1)(x)
    )
    x = MultiHead([SeqSelfAttention(3), MultiHeadAttention(2)])(x)[..., 0]
    x = ScaledDotProductAttention(history_only=True)(x)
    model = keras.Model(ids, SeqWeightedAttention()(x))
    randomize(model, scale=0.5)
    inputs = np.array([[1, 2, 3, 0], [4, 0, 0, 0]])
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "in.npy", inputs)
    run(["-c", LOAD, *(str(tmp_path / name) for name in ("model.keras", "out.npy", "in.npy"))])
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), as_numpy(model(inputs)), rtol=1e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_gives_the_same_numbers(tmp_path, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    run([str(Path(forward.__file__)), str(tmp_path / "out.npz")], KERAS_BACKEND=backend)
    found = np.load(tmp_path / "out.npz")
    expected = forward.outputs()
    assert set(found.files) == set(expected)
    for name, array in expected.items():
        # the wider tolerance is that of scores beside −10000 and −20000, which float32 holds in steps of .001 and .002
        np.testing.assert_allclose(found[name], array, rtol=2e-3, atol=2e-3, err_msg=name)
