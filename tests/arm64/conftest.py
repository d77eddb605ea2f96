"""A kit of real models, made here, and a Debian for ARM to prove it in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import pytest
from emulator import Device
from kit_models import attention, convolution, lstm_heads, stream

import mh_edge


@pytest.fixture(scope="session")
def device() -> Device:
    return Device(Path(os.environ["MH_EDGE_ARM64"]).resolve())


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
