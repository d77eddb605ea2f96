"""Every kind of bad input: a sentence that names it, the right exit code, no traceback, and nothing written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mh_edge
from mh_edge.machine import SQUARE_ONNX, SQUARE_TFLITE

keras = pytest.importorskip("keras")

Runner = Callable[..., Any]

MODELS = '''
import keras
import mh_edge

class Scale(keras.layers.Layer):
    """Not registered with Keras: a file with it needs --import."""

    def call(self, x):
        return 2 * x

class NeverCalled(keras.Model):
    def call(self, x):
        return x

class Noise(keras.layers.Layer):
    """Random at inference."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(1)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.generator)

def model(*layers, shape=(4,), batch=None):
    return keras.Sequential([keras.Input(shape, batch_size=batch), *layers])

def scaled():
    return model(Scale(), keras.layers.Dense(2))

def with_lambda():
    return model(keras.layers.Lambda(lambda x: x + 1), keras.layers.Dense(2))

def never_called():
    return NeverCalled()

def stateful():
    return model(keras.layers.LSTM(2, stateful=True), shape=(3, 4), batch=2)

def noisy():
    return model(Noise(), keras.layers.Dense(2))

def indivisible():
    return model(mh_edge.layers.MultiHeadAttention(head_num=3), shape=(5, 4))

def unlike_heads():
    return model(mh_edge.layers.MultiHead([keras.layers.Dense(31), keras.layers.Dense(32)]))

def no_model():
    return "a string"

def broken():
    raise RuntimeError("out of luck")

def leaving():
    raise SystemExit("no model today")
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the module above."""
    (tmp_path / "bad_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one good model in every format."""
    folder = tmp_path_factory.mktemp("saved")
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="y")], name="good")
    model.save(folder / "good.keras")
    model.save(folder / "good.h5")
    (folder / "good.onnx").write_bytes(SQUARE_ONNX)
    (folder / "good.tflite").write_bytes(SQUARE_TFLITE)
    return folder


def refused(run: Runner, *args: object, code: int = 3) -> str:
    """Run it for people and for programs -> the sentence, which both get."""
    keras.utils.clear_session(free_memory=False)  # names are counted, and are part of the sentences
    done = run(*args)
    assert (done.code, done.out) == (code, ""), done
    assert "Traceback" not in done.err
    keras.utils.clear_session(free_memory=False)
    error = run(*args, "--json").json["error"]
    assert done.err == "".join(f"{line}\n" for line in (f"mh-edge: {error['message']}", error["hint"]) if line)
    assert "fault in mh-edge" not in error["message"]
    return f"{error['message']} {error['hint']}"


@pytest.mark.parametrize("suffix", ["keras", "h5", "onnx", "tflite"])
@pytest.mark.parametrize("damage", ["missing", "folder", "empty", "truncated", "foreign"])
def test_files_that_are_not_what_they_should_be(run: Runner, here: Path, saved: Path, suffix: str, damage: str) -> None:
    path = here / f"model.{suffix}"
    good = (saved / f"good.{suffix}").read_bytes()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(
            {"empty": b"", "truncated": good[: len(good) // 2], "foreign": b"%PDF-1.4 something else"}[damage]
        )
    is_model = suffix in ("keras", "h5")
    assert path.name in refused(run, *(("export", path, "-o", "out") if is_model else ("inspect", path)))
    reference = (path, saved / "good.onnx") if is_model else (saved / "good.keras", path)
    assert path.name in refused(run, "verify", *reference)
    assert not (here / "out").exists()


def test_the_wrong_kind_of_file(run: Runner, here: Path, saved: Path) -> None:
    for good, bad in (("keras", "h5"), ("h5", "keras"), ("onnx", "keras"), ("tflite", "h5")):
        shutil.copy(saved / f"good.{good}", here / f"wrong.{bad}")
        assert f"wrong.{bad}" in refused(run, "export", f"wrong.{bad}")
    for good, bad in (("keras", "onnx"), ("onnx", "tflite"), ("h5", "tflite")):
        shutil.copy(saved / f"good.{good}", here / f"wrong.{bad}")
        assert f"wrong.{bad}" in refused(run, "inspect", f"wrong.{bad}")


@pytest.mark.parametrize(
    ("function", "parts"),
    [
        ("never_called", ["never called", "--feeds"]),
        ("stateful", ["stateful=True"]),
        ("noisy", ["random"]),
        ("indivisible", ["head_num", "3", "4"]),
        ("unlike_heads", ["31", "32"]),
        ("no_model", ["str"]),
        ("broken", ["RuntimeError: out of luck"]),
        ("leaving", ["SystemExit: no model today"]),
        ("gone", ["gone"]),
    ],
)
def test_models_that_cannot_be_exported(run: Runner, here: Path, function: str, parts: list[str]) -> None:
    sentence = refused(run, "export", f"bad_models:{function}", "-o", "out")
    for part in parts:
        assert part in sentence
    assert not (here / "out").exists()


def test_an_unknown_layer_is_named_and_imported(run: Runner, here: Path) -> None:
    import bad_models

    keras.utils.set_random_seed(1)
    bad_models.scaled().save("scaled.keras")
    sentence = refused(run, "export", "scaled.keras", "-o", "out")
    assert "Scale" in sentence
    assert "--import" in sentence
    assert run("export", "scaled.keras", "-o", "out", "--import", "bad_models").code == 0
    assert sorted(path.name for path in (here / "out").iterdir()) == ["scaled.onnx", "scaled.onnx.json"]
    assert "bad_modules" in refused(run, "export", "scaled.keras", "--import", "bad_modules")


def test_a_lambda_is_refused_unless_unsafe(run: Runner, here: Path) -> None:
    import bad_models

    keras.utils.set_random_seed(1)
    bad_models.with_lambda().save("lambda.keras")
    sentence = refused(run, "export", "lambda.keras", "-o", "out")
    assert "Lambda" in sentence
    assert "--unsafe" in sentence
    assert run("export", "lambda.keras", "-o", "out", "--unsafe").code == 0


def test_feeds_that_are_no_arrays(run: Runner, here: Path, saved: Path) -> None:
    for name in ("good.keras", "good.h5", "good.onnx"):
        sentence = refused(run, "export", saved / "good.keras", "-o", "out", "--feeds", saved / name)
        assert name in sentence
        assert "pickle" not in sentence


def test_failures_that_cannot_be_saved(run: Runner, here: Path, saved: Path) -> None:
    (here / "file").write_text("mine")
    keras.utils.set_random_seed(2)
    other = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="y")])
    other.save("other.keras")
    assert run("export", saved / "good.keras").code == 0
    sentence = refused(run, "verify", "other.keras", "good.onnx", "--failures", "file", code=4)
    assert "'file' cannot be written" in sentence


def test_never_called_is_built_from_feeds(run: Runner, here: Path) -> None:
    np.savez("x.npz", x=np.ones((2, 3), np.float32))
    done = run("export", "bad_models:never_called", "-o", "out", "--feeds", "x.npz", "--json")
    assert done.code == 0, done
    assert done.json["artifacts"][0]["inputs"][0]["shape"] == ["batch", 3]


def test_an_existing_file_is_replaced_after_success_only(run: Runner, here: Path, saved: Path) -> None:
    (here / "good.onnx").write_text("mine")
    assert run("export", "bad_models:noisy", "-o", "good.onnx").code == 3
    assert (here / "good.onnx").read_text() == "mine"
    assert run("export", saved / "good.keras", "-o", "good.onnx").code == 0
    assert mh_edge.inspect(here / "good.onnx").verified is not None
