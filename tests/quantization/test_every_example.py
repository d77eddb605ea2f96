"""Every scheme on the model of every example: a file that is checked, opened, run, and computes much the same."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest

import mh_edge
from mh_edge.artifact import Artifact
from mh_edge.errors import ConversionError, InputError
from mh_edge.inspection import inspect
from mh_edge.quantization.scheme import schemes_for
from program_on_path import ROOT
from tests.quantization.test_onnx_kernels import dequantized

if TYPE_CHECKING:
    import keras

LENGTH = 8

LEAST_DB = {"fp16": 40.0, "int16x8": 25.0, "int8-a16": 25.0, "qnn-a16w8": 25.0, "int4": 8.0}
"""Of signal to noise, on random numbers in a model that was not trained; int8 and int8-dynamic have the usual."""

USUAL_DB = 18.0

TINY_BYTES = 20_000
"""A file below that may hold no weight that is worth an integer."""

NOT_FOR = {
    ("qnn-a16w8", "free"): (InputError, "free size"),
}
"""What a scheme refuses of a model with a free length."""


def script(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "examples" / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODELS: dict[str, Callable[[], keras.Model]] = {
    "digits attention": lambda: script("00_digits/digits.py").attention(),
    "digits LSTM": lambda: script("00_digits/digits.py").lstm_heads(),
    "one layer repeated": lambda: script("01_one_layer_repeated/lstm_heads.py").build(),
    "different layers": lambda: script("02_different_layers/conv_heads.py").build(),
    "hidden_dim": lambda: script("03_hidden_dim/hidden_heads.py").build(),
    "regularization": lambda: script("04_regularization/different_heads.py").build(0.0),
    "self attention": lambda: script("05_multi_head_attention/attention.py").self_attention(),
    "lookup": lambda: script("05_multi_head_attention/attention.py").lookup(),
}


@pytest.fixture(scope="module", params=list(MODELS))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, ...]:
    import keras

    keras.utils.set_random_seed(1)
    model = MODELS[request.param]()
    folder = tmp_path_factory.mktemp("example")
    made = mh_edge.export(model, folder, formats=("onnx", "tflite"), name="example", verify=False)
    return tuple(inspect(artifact.path) for artifact in made.artifacts)


def samples(source: Artifact, count: int) -> dict[str, np.ndarray]:
    """Random steps, of which those at the end of each sample are zeros, as padding is; never a whole sample of them."""
    rng = np.random.default_rng(0)
    there = np.arange(LENGTH) < rng.integers(3, LENGTH + 1, size=(count, 1))
    return {
        tensor.name: (rng.normal(size=(count, LENGTH, tensor.shape[-1])) * there[..., None]).astype("float32")
        for tensor in source.signature.inputs
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_every_scheme_takes_it_or_says_why_not(exported: tuple[Artifact, ...], kind: str, tmp_path: Path) -> None:
    (source,) = (artifact for artifact in exported if artifact.format == kind)
    free = "free" if any(isinstance(size, str) for tensor in source.inputs for size in tensor.shape) else "fixed"
    for name in schemes_for(kind):
        given = {"scheme": name, "calibration": samples(source, 64), "timed": False}
        if (name, free) in NOT_FOR:
            error, message = NOT_FOR[name, free]
            with pytest.raises(error, match=message):
                mh_edge.quantize(source.path, tmp_path, **given)
            continue
        try:
            result = mh_edge.quantize(source.path, tmp_path, evaluation=samples(source, 96), **given)
        except ConversionError as refusal:
            tiny = source.bytes < TINY_BYTES
            assert tiny, f"{name}: {refusal}"  # noqa: PT017 - all others are taken
            assert re.search("has nothing that|holds no", str(refusal)), name  # noqa: PT017
            continue
        assert result.artifact is not None
        assert result.verdict.sqnr_db > LEAST_DB.get(name, USUAL_DB), name
        assert np.isfinite(result.verdict.sqnr_db), name
        if (kind, name) == ("onnx", "int8"):
            assert dequantized(result.artifact.path, tmp_path) == []
