"""Model files before Keras sees them: is the file there and whole, what does it say it is, does it carry code.

Keras takes a `.keras` file (a zip archive of config.json, metadata.json and model.weights.h5) or a `.h5` file at its
word; these checks turn each way a file can be wrong into an InputError that says which it is and how to go on.
"""

from __future__ import annotations

import contextlib
import json
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras

from mh_edge.errors import InputError
from mh_edge.legacy.config import LAYER_KEYS, MODELS

H5_SUFFIXES = (".h5", ".hdf5")
KERAS_SUFFIX = ".keras"

READ_ERRORS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What h5py, zipfile and Keras raise for a file or an architecture that they cannot read (each was seen, or is
documented).
"""

MESSAGE_LENGTH = 300
"""Keras repeats whole configs in its messages, but before the cause or after what matters."""

COPY_AGAIN = "Copy it again from where it came, or save the model again."


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Errors of the libraries that read the file become an InputError with the beginning of what they say."""
    expected = READ_ERRORS + _backend_errors()
    try:
        yield
    except expected as error:
        said = " ".join(str(error).split()).rpartition("Exception encountered: ")[2][:MESSAGE_LENGTH]
        raise InputError(
            f"{str(path)!r} cannot be read as a model: {type(error).__name__}: {said}",
            "If it was copied, copy it again; if it is sound, look at the whole message with --debug.",
        ) from error


def _backend_errors() -> tuple[type[Exception], ...]:
    """TensorFlow's errors (a weight too large to allocate) have no common base with Python's."""
    tensorflow = sys.modules.get("tensorflow")
    return () if tensorflow is None else (tensorflow.errors.OpError,)


def require_file(path: Path) -> None:
    """Raises InputError unless the path is a file with something in it."""
    if path.is_dir():
        if (path / "saved_model.pb").exists() or (path / "keras_metadata.pb").exists():
            raise InputError(
                f"{str(path)!r} is a SavedModel folder, which holds a TensorFlow graph and not the layers.",
                "Load it with the TensorFlow that wrote it (tf.keras.models.load_model) and save it as one file: "
                "model.save('model.h5').",
            )
        raise InputError(f"{str(path)!r} is a folder.", "Give a .keras or .h5 file, or package.module:function.")
    if not path.exists():
        raise InputError(f"there is no file {str(path)!r}.", "Give a .keras or .h5 file, or package.module:function.")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be opened: {error.strerror}.", "Check its permissions.") from error
    if empty:
        raise InputError(f"{str(path)!r} is empty.", COPY_AGAIN)


@contextlib.contextmanager
def open_h5(path: Path) -> Iterator[Any]:
    """An open `.h5` file -> h5py.File. Raises InputError when it is something else or cut off, and for what reading it
    raises.
    """
    if zipfile.is_zipfile(path):
        raise InputError(
            f"{str(path)!r} is a zip archive, not an HDF5 file.", "If it is a .keras file, rename it to .keras."
        )
    with path.open("rb") as start:
        signature = start.read(8)
    if signature != b"\x89HDF\r\n\x1a\n":
        raise InputError(
            f"{str(path)!r} is not an HDF5 file: it begins with {signature!r}.", "Give a .h5 file that Keras wrote."
        )
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{str(path)!r} is cut off or damaged: {error}.", COPY_AGAIN) from error
    with file, readable(path):
        yield file


def keras_config(path: Path) -> dict[str, Any]:
    """The architecture in a `.keras` file, once the archive is known to be whole and of Keras 3."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "config.json" not in names:
                raise InputError(
                    f"{str(path)!r} is a zip archive without a Keras architecture.", "Give a file of model.save."
                )
            damaged = archive.testzip()  # Keras would read on past a wrong checksum
            if damaged is not None:
                raise InputError(
                    f"{str(path)!r} is damaged: {damaged} inside it does not match its checksum.", COPY_AGAIN
                )
            config = json.loads(archive.read("config.json"))
            metadata = json.loads(archive.read("metadata.json")) if "metadata.json" in names else {}
    except zipfile.BadZipFile as error:
        raise _not_an_archive(path, error) from error
    except (OSError, EOFError, RuntimeError, ValueError, zlib.error) as error:
        raise InputError(f"{str(path)!r} is damaged: {error}.", COPY_AGAIN) from error
    if not isinstance(config, dict) or not isinstance(metadata, dict):
        raise InputError(f"{str(path)!r} is damaged: its architecture is not an object.", COPY_AGAIN)
    if _is_keras_2(config, metadata):
        raise InputError(
            f"{str(path)!r} was written by Keras {metadata.get('keras_version', 2)} (tf-keras), whose .keras files "
            "Keras 3 does not read.",
            "Load it with the TensorFlow that wrote it and save it again: model.save('model.h5').",
        )
    if not {"model.weights.h5", "model.weights.npz"} & set(names):
        raise InputError(
            f"{str(path)!r} holds an architecture without weights.", "Save the model again with model.save."
        )
    return config


def _is_keras_2(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    version = str(metadata.get("keras_version", ""))
    return version.startswith("2.") or str(config.get("module", "")).startswith(
        ("tf_keras", "keras.src.engine", "keras.engine")
    )


def _not_an_archive(path: Path, error: zipfile.BadZipFile) -> InputError:
    if h5py.is_hdf5(path):
        return InputError(f"{str(path)!r} is an HDF5 file under the name of a .keras archive.", "Rename it to .h5.")
    with path.open("rb") as file:
        begins = file.read(4)
    if begins == b"PK\x03\x04":
        return InputError(f"{str(path)!r} is cut off or damaged: {error}.", COPY_AGAIN)
    return InputError(
        f"{str(path)!r} is not a .keras file: it begins with {begins!r}.", "Give a file that Keras 3 wrote."
    )


def operations(config: Mapping[str, Any]) -> dict[str, Any]:
    """The classes of `keras.ops` by the names under which a `.h5` file of Keras 3 holds them among its layers.

    (Masks that Keras computes are such operations, NotEqual and Any; Keras writes them there and does not find them
    again. Where a layer has the same name, it is taken for the layer, as Keras does.)
    """
    modules = (keras.src.ops.core, keras.src.ops.math, keras.src.ops.nn, keras.src.ops.numpy)
    known = {
        name: item
        for module in modules
        for name, item in vars(module).items()
        if isinstance(item, type) and issubclass(item, keras.Operation) and name not in vars(keras.layers)
    }
    return {name: known[name] for layer in _layers(config) if (name := layer["class_name"]) in known}


def refuse_unknown(
    config: Mapping[str, Any], custom: Mapping[str, Any], path: Path, broken: Sequence[str] = ()
) -> None:
    """Raises InputError for the first layer whose class is not Keras's, this package's, registered, or among
    `custom`. broken: sentences about what could not be imported, and might have brought it.
    """
    seen = [f"Or mend this: {sentence}" for sentence in broken]
    for layer in _layers(config):
        name, module = layer["class_name"], layer.get("module") or ""
        if not _is_known(layer, custom):
            wanted = "package.module" if module in ("", "builtins", "__main__") else module
            raise InputError(
                f"{str(path)!r} holds the layer {name}, which is neither Keras 3's nor this package's.",
                " ".join(
                    [f"Import the module that defines it: --import {wanted} (custom_modules=[...] in Python).", *seen]
                ),
            )


def _is_known(layer: Mapping[str, Any], custom: Mapping[str, Any]) -> bool:
    name, module = layer["class_name"], layer.get("module")
    if module is not None and module.partition(".")[0] == "keras":
        return True
    if module is None and (name in vars(keras.layers) or name in MODELS):
        return True
    names = {name, layer.get("registered_name") or name}
    return any(one in custom or keras.saving.get_registered_object(one) is not None for one in names)


def refuse_code(config: Any, path: Path, unsafe: bool) -> None:
    """Raises InputError for a Lambda layer that holds Python code, unless `unsafe`."""
    if unsafe or not _holds_code(config):
        return
    raise InputError(
        f"{str(path)!r} holds a Lambda layer: Python code that would run on this machine when the model is loaded.",
        "If you trust whoever made the file, say so with --unsafe (unsafe=True in Python).",
    )


def _holds_code(config: Any) -> bool:
    if isinstance(config, list):
        return any(map(_holds_code, config))
    if not isinstance(config, dict):
        return False
    if config.get("class_name") == "__lambda__" or config.get("function_type") == "lambda":
        return True
    return any(map(_holds_code, config.values()))


def _layers(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The config of each layer and nested model in an architecture, the outermost first."""
    if isinstance(config.get("class_name"), str):
        yield config
    inner = config.get("config")
    if isinstance(inner, dict):
        for key in LAYER_KEYS & inner.keys():
            held = inner[key] if isinstance(inner[key], list) else [inner[key]]
            for one in held:
                if isinstance(one, dict):
                    yield from _layers(one)
