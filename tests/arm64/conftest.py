"""A kit of real models, made here, and a Debian for ARM to prove it in."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import mh_edge
from mh_edge.quiet import quiet

with quiet():
    import keras

    from mh_edge.layers import MultiHead, MultiHeadAttention

LIMIT = 300  # seconds; a self-test takes about ten, most of them for importing numpy

BIAS = (0.25, -1.5, 0.75, 2.0)
"""Of the last layer of `lstm_heads`: to be found in the bytes of a file."""


@dataclass(frozen=True)
class Device:
    """An emulated machine. root: made by tree.sh."""

    root: Path

    def run(self, cpu: str, runtime: str, *command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
        """Python there, with one runtime and numpy and nothing else."""
        emulator = [self.root / "qemu-aarch64", "-cpu", cpu, "-L", self.root / "debian"]
        return subprocess.run(
            [*emulator, self.root / "debian/usr/bin/python3.11", *command],
            cwd=folder,
            env={"PATH": "/usr/bin", "PYTHONPATH": str(self.root / runtime)},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )


@pytest.fixture(scope="session")
def device() -> Device:
    return Device(Path(os.environ["MH_EDGE_ARM64"]).resolve())


def attention() -> keras.Model:
    """(batch, steps, 6), zeros are masked -> (batch, 4)."""
    rows = keras.Input((None, 6), name="rows")
    seen = MultiHeadAttention(head_num=2, activation="tanh")(keras.layers.Masking()(rows))
    return keras.Model(rows, keras.layers.Dense(4)(keras.layers.GlobalMaxPooling1D()(seen)), name="attention")


def lstm_heads() -> keras.Model:
    """(batch, steps, 6), zeros are masked -> (batch, 4)."""
    rows = keras.Input((None, 6), name="rows")
    heads = MultiHead(keras.layers.LSTM(8), layer_num=3)(keras.layers.Masking()(rows))
    last = keras.layers.Dense(4, name="last")
    model = keras.Model(rows, last(keras.layers.Flatten()(heads)), name="lstm_heads")
    last.bias.assign(BIAS)
    return model


def stream() -> keras.Model:
    """(batch, steps, 3) -> (batch, steps, 5)."""
    x = keras.Input((None, 3), name="x")
    return keras.Model(x, keras.layers.LSTM(5, return_sequences=True, name="lstm")(x), name="stream")


def convolution() -> keras.Model:
    """(1, 12, 6) -> (1, 4)."""
    x = keras.Input((12, 6), batch_size=1, name="x")
    seen = keras.layers.Conv1D(8, 3, padding="same", activation="relu")(x)
    seen = keras.layers.Dense(8, activation="relu")(seen)
    return keras.Model(x, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling1D()(seen)), name="convolution")


@pytest.fixture(scope="session")
def steps() -> Mapping[str, np.ndarray]:
    """What the stream is given: five calls of two steps each; and what Keras makes of all ten in one call."""
    keras.utils.set_random_seed(1)
    x = np.random.default_rng(0).normal(size=(5, 1, 2, 3)).astype("float32")
    y = stream()(x.reshape(1, 10, 3)).numpy()
    return {"x": x, "y": y.reshape(5, 1, 2, 5)}


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit, as it was made: masked attention, LSTM heads and a stream as .onnx and .tflite, and int8."""
    folder = tmp_path_factory.mktemp("made")
    files: list[Path] = []
    for build in (attention, lstm_heads, convolution):
        keras.utils.set_random_seed(1)
        files += [one.path for one in mh_edge.export(build(), folder, formats=("onnx", "tflite")).artifacts]
    keras.utils.set_random_seed(1)
    made = mh_edge.export(stream(), folder, formats=("onnx", "tflite"), state_io=True)
    files += [one.path for one in made.artifacts]

    calibration = {"x": np.random.default_rng(0).normal(size=(64, 12, 6)).astype("float32")}
    for kind, scale in (("onnx", True), ("tflite", False), ("tflite", True)):
        target = folder / f"convolution.int8{'-per-channel' if scale and kind == 'tflite' else ''}.{kind}"
        mh_edge.quantize(
            folder / f"convolution.{kind}",
            target,
            scheme="int8",
            calibration=calibration,
            per_channel=scale,
            timed=False,
        )
        files.append(target)
    mh_edge.bundle(files, "linux-arm64", folder / "kit")
    return folder / "kit"


@pytest.fixture
def kit(packed: Path, tmp_path: Path) -> Path:
    """A copy of it, which may be damaged."""
    return shutil.copytree(packed, tmp_path / "kit")
