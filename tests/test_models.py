"""Opening, resolving and upgrading model files: what works, and each way a file can be wrong with its sentence."""

from __future__ import annotations

import errno
import json
import marshal
import os
import resource
import shutil
import zipfile
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow

from mh_edge import commit
from mh_edge.errors import ConversionError, UsageError
from mh_edge.layers import MultiHead, MultiHeadAttention
from mh_edge.modelfile import readable
from mh_edge.models import load_model, load_weights, resolve_model, upgrade
from refusal import refused

REFERENCE = Path(__file__).parent / "fixtures" / "reference"
OLD = REFERENCE / "heads_dense.h5"


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [MultiHeadAttention(2), MultiHead(keras.layers.Dense(3), layer_num=2)]
    return keras.Sequential([keras.Input((5, 8), name="x"), *layers])


@pytest.fixture(scope="module")
def saved(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model as model.keras and, as Keras 3 writes it, model.h5."""
    folder = tmp_path_factory.mktemp("saved")
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    return folder


def outputs(model: keras.Model) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    return keras.ops.convert_to_numpy(model(x))


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy of a .keras archive with each member changed; None leaves one out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


# what works


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_files_of_keras_3_compute_the_same_and_are_not_compiled(name: str, model: keras.Model, saved: Path) -> None:
    loaded = load_model(saved / name)
    np.testing.assert_array_equal(outputs(loaded), outputs(model))
    assert not loaded.compiled


def test_h5_of_keras_3_with_a_mask_that_keras_cannot_find_again(tmp_path: Path) -> None:
    """Keras writes the operations of a mask (NotEqual, Any) among the layers, and does not know them when it reads."""
    x = keras.Input((None, 3), name="x")
    masked = keras.Model(x, keras.layers.LSTM(2)(keras.layers.Masking()(x)))
    masked.save(tmp_path / "masked.h5")
    steps = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    steps[0, 2:] = 0
    np.testing.assert_array_equal(load_model(tmp_path / "masked.h5")(steps), masked(steps))


def test_a_file_that_was_trained_needs_no_optimizer_state() -> None:
    with h5py.File(REFERENCE / "heads_lstm.h5") as file:
        assert "optimizer_weights" in file
        assert "training_config" in file.attrs
    assert not load_model(REFERENCE / "heads_lstm.h5").compiled


def test_weights_come_out_of_a_keras_file_too(model: keras.Model, saved: Path) -> None:
    loaded = load_model(saved / "model.keras")
    for variable in loaded.weights:
        variable.assign(np.zeros(variable.shape))
    load_weights(loaded, saved / "model.keras")
    np.testing.assert_array_equal(outputs(loaded), outputs(model))


# files that are something else


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_no_such_file_and_a_folder(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    assert refused(lambda: load_model(path)).message == f"there is no file {str(path)!r}."
    assert "package.module:function" in refused(lambda: resolve_model("model")).hint
    path.mkdir()
    assert refused(lambda: load_model(path)).message == f"{str(path)!r} is a folder."


def test_saved_model_folder_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    error = refused(lambda: load_model(tmp_path))
    assert "is a SavedModel folder" in error.message
    assert "model.save('model.h5')" in error.hint


def test_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(b"x")

    def denied(*_: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", denied)  # root may read every file, so the mode bits prove nothing
    assert refused(lambda: load_model(path)).message == f"{str(path)!r} cannot be opened: Permission denied."


def test_unknown_extension(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x")
    assert "has the extension '.onnx'; a model is a .keras or .h5 file" in refused(lambda: load_model(path)).message


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5"])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "is empty."), (b"\x89PNG\r\n\x1a\nIHDR", "begins with b'\\x89PNG"), (b"{}", "b'{}'")],
)
def test_empty_and_foreign_files(
    suffix: str, content: bytes, sentence: str, model: keras.Model, tmp_path: Path
) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    assert sentence in refused(lambda: load_model(path)).message
    assert sentence in refused(lambda: load_weights(model, path)).message


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_truncated_files(name: str, saved: Path, tmp_path: Path) -> None:
    whole = (saved / name).read_bytes()
    path = tmp_path / name
    for part in (0.1, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(part * len(whole))])
        assert "is cut off or damaged" in refused(lambda: load_model(path)).message


def test_archive_and_hdf5_under_each_others_name(saved: Path, tmp_path: Path) -> None:
    shutil.copy(saved / "model.keras", tmp_path / "archive.h5")
    shutil.copy(saved / "model.h5", tmp_path / "hdf5.keras")
    assert "Rename it to .h5." in refused(lambda: load_model(tmp_path / "hdf5.keras")).hint
    assert "rename it to .keras" in refused(lambda: load_model(tmp_path / "archive.h5")).hint


# archives that are wrong inside


def test_damaged_weights_inside_an_archive(saved: Path, tmp_path: Path) -> None:
    """A flipped bit, which only the checksum shows; and a truncated member with a right one."""
    content = bytearray((saved / "model.keras").read_bytes())
    with zipfile.ZipFile(saved / "model.keras") as archive:
        weights = archive.getinfo("model.weights.h5")
    content[weights.header_offset + weights.file_size // 2] ^= 1
    (tmp_path / "flipped.keras").write_bytes(content)
    error = refused(lambda: load_model(tmp_path / "flipped.keras"))
    assert "model.weights.h5 inside it does not match its checksum" in error.message

    path = rewritten(
        saved / "model.keras",
        tmp_path / "cut.keras",
        lambda name, data: data[:900] if name == "model.weights.h5" else data,
    )
    assert "cannot be read as a model" in refused(lambda: load_model(path)).message


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda name, data: None if name == "config.json" else data, "is a zip archive without a Keras architecture"),
        (lambda name, data: None if name == "model.weights.h5" else data, "holds an architecture without weights"),
        (lambda name, data: data[:50] if name == "config.json" else data, "is damaged"),
        (lambda name, data: b"[]" if name == "config.json" else data, "its architecture is not an object"),
        (lambda name, data: b"\xff\xfe" if name == "metadata.json" else data, "is damaged"),
        (lambda name, data: data.replace(b'"head_num": 2', b'"head_num": 3'), "head_num"),
        (
            lambda name, data: data.replace(b'"layer_num"', b'"x"').replace(b'"units": 3', b'"units": 4'),
            "could not be loaded",
        ),
        (
            lambda name, data: data.replace(b'"keras_version": "3.', b'"keras_version": "2.'),
            "(tf-keras), whose .keras files",
        ),
        (lambda name, data: data.replace(b'"module": "keras",', b'"module": "tf_keras.src.engine",', 1), "(tf-keras)"),
    ],
)
def test_archive_with_wrong_content(
    change: Callable[[str, bytes], bytes | None], sentence: str, saved: Path, tmp_path: Path
) -> None:
    path = rewritten(saved / "model.keras", tmp_path / "wrong.keras", change)
    assert sentence in refused(lambda: load_model(path)).message


# .h5 files that are wrong inside


def test_weights_without_architecture_and_architecture_without_weights(tmp_path: Path) -> None:
    for name in ("heads_dense.weights-only.h5", "heads_dense.weights.h5"):
        error = refused(lambda name=name: load_model(REFERENCE / name))
        assert "holds weights and no architecture" in error.message
        assert "mh_edge.load_weights(model, file)" in error.hint
    path = tmp_path / "config.h5"
    with h5py.File(path, "w") as new, h5py.File(OLD) as old:
        for key, value in old.attrs.items():
            new.attrs[key] = value
    assert "holds an architecture without weights" in refused(lambda: load_model(path)).message


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "its architecture is not JSON"),
        ("[]", "its architecture is a list"),
        ('{"class_name": "Sequential"}', "is not one that Keras 2 writes (KeyError: 'config')"),
        ('{"class_name": "Sequential", "config": {"name": "x", "layers": []}}', "saved before it was built"),
    ],
)
def test_h5_with_a_wrong_architecture(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.h5"
    shutil.copy(OLD, path)
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = text
    assert sentence in refused(lambda: load_model(path)).message


def test_h5_without_anything(tmp_path: Path) -> None:
    path = tmp_path / "bare.h5"
    h5py.File(path, "w").close()
    assert "no architecture" in refused(lambda: load_model(path)).message
    built = load_model(OLD)
    assert "holds no weights that Keras wrote" in refused(lambda: load_weights(built, path)).message


def test_errors_of_tensorflow_become_sentences() -> None:
    def too_large() -> None:
        with readable(Path("model.h5")):
            raise tensorflow.errors.ResourceExhaustedError(None, None, "OOM when allocating\ntensor")

    said = "'model.h5' cannot be read as a model: ResourceExhaustedError: OOM when allocating tensor"
    assert refused(too_large).message == said


def test_weights_for_a_model_that_is_not_built() -> None:
    model = keras.Sequential([keras.layers.Dense(3)], name="unbuilt")
    assert refused(lambda: load_weights(model, OLD)).message == "the model 'unbuilt' is not built."


# code inside files


def test_lambda_is_refused_unless_unsafe(tmp_path: Path) -> None:
    """The file of Keras 2 is written here: compiled Python is read only by the version that made it."""
    keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: 2.0 * x, name="twice")]).save(
        tmp_path / "code.keras"
    )
    keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: 2.0 * x, name="twice")]).save(
        tmp_path / "code.h5"
    )
    code = b64encode(marshal.dumps((lambda x: 2.0 * x).__code__)).decode()
    twice = {"name": "twice", "function": [code, None, None], "function_type": "lambda", "module": "__main__"}
    twice |= {"output_shape": None, "output_shape_type": "raw", "output_shape_module": None, "arguments": {}}
    layers = [
        {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 3], "name": "x"}},
        {"class_name": "Lambda", "config": twice},
    ]
    with h5py.File(tmp_path / "old.h5", "w") as old:
        old.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"name": "m", "layers": layers}})
        old.attrs["keras_version"] = "2.12.0"
        old.create_group("model_weights").attrs["layer_names"] = ["twice"]
        old["model_weights"].create_group("twice").attrs["weight_names"] = np.array([], "S1")
    for name in ("code.keras", "code.h5", "old.h5"):
        error = refused(lambda name=name: load_model(tmp_path / name))
        assert "holds a Lambda layer: Python code that would run on this machine" in error.message
        assert "--unsafe" in error.hint
        doubled = load_model(tmp_path / name, unsafe=True)(np.ones((1, 3), "float32"))
        assert keras.ops.convert_to_numpy(doubled).tolist() == [[2.0, 2.0, 2.0]]


# upgrade


def test_upgrade_needs_a_keras_name(tmp_path: Path) -> None:
    assert "has the extension '.h5'" in refused(lambda: upgrade(OLD, tmp_path / "new.h5"), UsageError).message


def test_upgrade_replaces_a_file_only_by_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = tmp_path / "new.keras"
    new.write_bytes(b"what was there")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    for bound in (0, 1000, 10_000):  # the file is 18 kB; a full disk fails in the same place with another number
        resource.setrlimit(resource.RLIMIT_FSIZE, (bound, limit[1]))
        try:
            with pytest.raises(ConversionError, match="cannot be written"):
                upgrade(OLD, new)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert [path.name for path in tmp_path.iterdir()] == ["new.keras"]
        assert new.read_bytes() == b"what was there"

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(commit, "_fsync", full)
        with pytest.raises(ConversionError, match="No space left on device"):
            upgrade(OLD, new)
    assert [path.name for path in tmp_path.iterdir()] == ["new.keras"]
    assert new.read_bytes() == b"what was there"

    upgrade(OLD, new)
    assert [path.name for path in tmp_path.iterdir()] == ["new.keras"]
    assert isinstance(load_model(new), keras.Model)


def test_upgrade_of_a_file_that_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    refused(lambda: upgrade(REFERENCE / "heads_dense.weights.h5", tmp_path / "out" / "new.keras"))
    assert list(tmp_path.iterdir()) == []
