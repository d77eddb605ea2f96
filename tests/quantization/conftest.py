"""One small model of ours in both formats: attention with a mask, parallel heads apart and merged."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from mh_edge.artifact import Artifact
from mh_edge.inspection import inspect

TIME, CLASSES = 6, 4


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Artifact]:
    """Format -> the file: x (6, 8) and valid (6,) -> embed, attention with 2 heads, heads (two apart), wide (three
    convolutions in one), classes.
    """
    import keras

    import mh_edge
    from mh_edge.layers import MultiHead, MultiHeadAttention

    layers = keras.layers
    keras.utils.set_random_seed(0)
    x, valid = keras.Input((TIME, 8), name="x"), keras.Input((TIME,), dtype="bool", name="valid")
    h = layers.Dense(64, name="embed")(x)
    h = MultiHeadAttention(head_num=2, name="attention")(h, mask=valid)
    apart = [layers.Conv1D(4, 3, padding="same", activation=name, name=f"{name}_head") for name in ("relu", "tanh")]
    h = MultiHead(apart, name="heads")(h)
    h = layers.Reshape((TIME, 8))(h)
    h = MultiHead([layers.Conv1D(16, size, padding="same") for size in (1, 3, 5)], name="wide")(h)
    y = layers.Dense(CLASSES, activation="softmax", name="classes")(layers.Flatten()(h))
    folder = tmp_path_factory.mktemp("exported")
    model = keras.Model([x, valid], y, name="small")  # its name is in those of TFLite tensors
    made = mh_edge.export(model, folder, formats=("onnx", "tflite"), verify=False)
    return {artifact.format: inspect(artifact.path) for artifact in made.artifacts}


@pytest.fixture(scope="session")
def samples() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(64, TIME, 8)).astype("float32"),
        "valid": np.arange(TIME) < rng.integers(1, TIME + 1, size=(64, 1)),
    }
