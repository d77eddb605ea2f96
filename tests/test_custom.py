"""Models and layers from the user's own modules, which lie in the working directory."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from mh_edge.layers import MultiHead
from mh_edge.models import load_model, resolve_model
from refusal import refused

REFERENCE = Path(__file__).parent / "fixtures" / "reference"
OWN_MODULES = ("zoo", "broken", "doubling")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; modules imported from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in OWN_MODULES]:
        del sys.modules[name]


def test_resolve_takes_a_path_or_a_function(workplace: Path) -> None:
    path = REFERENCE / "heads_dense.h5"
    assert isinstance(resolve_model(str(path)), keras.Model)
    assert isinstance(resolve_model(path), keras.Model)
    (workplace / "zoo").mkdir()
    (workplace / "zoo" / "small.py").write_text(
        "import keras\n"
        "class Zoo:\n"
        "    @staticmethod\n"
        "    def make(): return keras.Sequential([keras.Input((3,))], name='zoo')\n"
        "make = Zoo.make\n"
    )
    assert resolve_model("zoo.small:make").name == "zoo"
    assert resolve_model("zoo.small:Zoo.make").name == "zoo"
    assert str(workplace) not in sys.path


DOUBLE = """
import keras

class Double(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x
"""


def test_own_layer_is_named_and_found_when_imported(workplace: Path) -> None:
    (workplace / "doubling.py").write_text(DOUBLE)
    sys.path.insert(0, str(workplace))
    try:
        doubling = importlib.import_module("doubling")
    finally:
        sys.path.remove(str(workplace))
    keras.Sequential([keras.Input((3,)), MultiHead(doubling.Double(), layer_num=2)]).save("own.keras")
    keras.Sequential([keras.Input((3,)), doubling.Double()]).save("own.h5")
    with h5py.File("old.h5", "w") as old, h5py.File("own.h5") as own:
        old.attrs["model_config"] = own.attrs["model_config"]
        old.attrs["keras_version"] = "2.12.0"
        own.copy("model_weights", old)
    for name in ("own.keras", "own.h5", "old.h5"):
        error = refused(lambda name=name: load_model(name))
        assert "holds the layer Double" in error.message
        assert "--import " in error.hint
    assert "--import doubling" in refused(lambda: load_model("own.keras")).hint
    x = np.ones((1, 3), "float32")
    for name in ("own.keras", "own.h5", "old.h5"):
        got = keras.ops.convert_to_numpy(load_model(name, custom_modules=["doubling"])(x))
        assert got.ravel().tolist() == [2.0] * got.size


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("absent:make", "there is no module 'absent': 'absent' is not found."),
        ("zoo.absent:make", "there is no module 'zoo.absent': 'zoo.absent' is not found."),
        ("zoo:absent", "'zoo:absent': 'zoo' has no 'absent'."),
        ("zoo:number", "'zoo:number' is an object of type int, not a function."),
        ("zoo:three", "'zoo:three' returns a builtins.int, not a Keras 3 model."),
        ("zoo:fails", "zoo:fails raised ZeroDivisionError: division by zero"),
        ("zoo:wants", "zoo:wants raised TypeError: wants() missing 1 required positional argument: 'x'"),
        ("broken:make", "importing 'broken' raised ModuleNotFoundError: No module named 'not_installed_anywhere'"),
    ],
)
def test_function_that_gives_no_model(spec: str, sentence: str, workplace: Path) -> None:
    (workplace / "zoo").mkdir()
    (workplace / "zoo" / "__init__.py").write_text(
        "number = 3\ndef three(): return 3\ndef fails(): return 1 / 0\ndef wants(x): return x\n"
    )
    (workplace / "broken.py").write_text("import not_installed_anywhere\n")
    assert refused(lambda: resolve_model(spec)).message == sentence


def test_module_to_import_that_is_not_there() -> None:
    error = refused(lambda: load_model(REFERENCE / "heads_dense.h5", custom_modules=["no.such.module"]))
    assert error.message == "there is no module 'no.such.module': 'no' is not found."
