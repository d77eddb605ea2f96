"""Keras models from files and functions, whatever wrote them, and old files made new.

model = load_model("old.h5")           # a .keras file, a Keras-2 .h5 (keras-multi-head 0.29), a Keras-3 .h5
load_weights(model, "weights.h5")      # weights alone, into a model that is built
upgrade("old.h5", "new.keras")
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mh_edge import custom
from mh_edge.commit import staged, system_errors_named
from mh_edge.errors import InputError, UsageError
from mh_edge.installed import load_installed
from mh_edge.packages import require

if TYPE_CHECKING:
    import keras

PathLike = str | os.PathLike[str]


def load_model(path: PathLike, *, custom_modules: Sequence[str] = (), unsafe: bool = False) -> keras.Model:
    """The model in a `.keras` file or in a `.h5` file of Keras 2 or 3, with its weights, not compiled.

    custom_modules: modules to import first, which define the file's own layers and functions. unsafe: run Python code
    that the file carries (Lambda layers). Raises InputError with what is wrong and how to go on for everything that is
    not such a file.
    """
    keras = _keras()
    from mh_edge import legacy, modelfile

    path = Path(path)
    modelfile.require_file(path)
    suffix = path.suffix.lower()
    if suffix not in (modelfile.KERAS_SUFFIX, *modelfile.H5_SUFFIXES):
        raise InputError(
            f"{str(path)!r} has the extension {suffix!r}; a model is a .keras or .h5 file.",
            "Rename it if it is one of these.",
        )
    shown = repr(str(path))
    broken = load_installed()  # rules bring their layers
    objects = custom.custom_objects(custom_modules)
    if suffix == modelfile.KERAS_SUFFIX:
        config = modelfile.keras_config(path)
    else:
        with modelfile.open_h5(path) as file:
            config = legacy.model_config(file, shown)
            if legacy.is_keras_2(file):
                modelfile.refuse_code(config, path, unsafe)
                return legacy.load_model(file, shown, custom_objects=objects, unsafe=unsafe)
        objects = modelfile.operations(config) | objects
    modelfile.refuse_code(config, path, unsafe)
    modelfile.refuse_unknown(config, objects, path, broken)
    with modelfile.readable(path):
        return keras.models.load_model(path, custom_objects=objects, compile=False, safe_mode=not unsafe)


def resolve_model(spec: PathLike, *, custom_modules: Sequence[str] = (), unsafe: bool = False) -> keras.Model:
    """The model that `spec` names: a file, as `load_model`, or `package.module:function`, called without arguments.

    Raises InputError as `load_model`, and when the function is not there, raises, or returns something else.
    """
    keras = _keras()
    if isinstance(spec, os.PathLike) or not custom.FUNCTION.fullmatch(spec) or Path(spec).exists():
        return load_model(spec, custom_modules=custom_modules, unsafe=unsafe)
    custom.custom_objects(custom_modules)
    model = custom.call(spec)
    if not isinstance(model, keras.Model):
        made = f"{type(model).__module__}.{type(model).__qualname__}"
        raise InputError(f"{spec!r} returns a {made}, not a Keras 3 model.", "Let it return a keras.Model.")
    return model


def require_model(value: object) -> None:
    """Raises UsageError for what can be no model: neither a file or function by its name, nor a Keras model."""
    keras = sys.modules.get("keras")  # who has a Keras model has imported it
    if not isinstance(value, str | os.PathLike) and (keras is None or not isinstance(value, keras.Model)):
        raise UsageError(
            f"{value!r} is no model.", 'Give a keras.Model, a .keras or .h5 file, or "package.module:function".'
        )


def load_weights(model: keras.Model, path: PathLike) -> None:
    """Put the weights of a file into a model that is built: Keras-2 weights or whole models (`.h5`), `.weights.h5`,
    `.keras`.

    Weights are matched by layer name, or by order where the names differ; every shape must fit. Raises InputError,
    with the model as it was, when one does not.
    """
    _keras()
    from mh_edge import legacy, modelfile
    from mh_edge.legacy import state

    path = Path(path)
    modelfile.require_file(path)
    if not model.built:
        raise InputError(f"the model {model.name!r} is not built.", "Call it once, or build it with an input shape.")
    if path.suffix.lower() == modelfile.KERAS_SUFFIX:
        modelfile.keras_config(path)
        _load_state(model, path, path)
        return
    with modelfile.open_h5(path) as file:
        if legacy.holds_weights(file):
            legacy.load_weights(model, file, repr(str(path)))
            return
        state.check(model, file, repr(str(path)))
        with tempfile.TemporaryDirectory() as folder:
            read = path
            if not state.is_current(file, path):
                read = Path(folder) / "copy.weights.h5"
                state.copy(file, read)
            _load_state(model, read, path)


def upgrade(old: PathLike, new: PathLike, *, custom_modules: Sequence[str] = (), unsafe: bool = False) -> Path:
    """Write the model in the file `old` as the `.keras` file `new` -> its path: the whole file, or nothing and what was
    there stays. Plain Keras opens it after `import mh_edge.layers`.

    Raises InputError as `load_model`, UsageError for another extension, ConversionError when the file cannot be
    written.
    """
    new = Path(new)
    if new.suffix != ".keras":
        raise UsageError(
            f"{str(new)!r} has the extension {new.suffix!r}; the new file is a .keras file.", "Name it so."
        )
    model = load_model(old, custom_modules=custom_modules, unsafe=unsafe)
    with staged(new.parent) as staging, system_errors_named(new.parent):
        model.save(staging.path / new.name)
        staging.commit([new.name])
    return new


def _load_state(model: keras.Model, path: Path, source: Path) -> None:
    """Keras's own reader of `.keras` and `.weights.h5`, which assigns as it goes: put back what was there when it
    fails.
    """
    from mh_edge import modelfile

    before = model.get_weights()
    try:
        with modelfile.readable(source):
            model.load_weights(path)
    except InputError:
        model.set_weights(before)
        raise


def _keras() -> Any:
    """Keras, with this package's layers registered."""
    keras = require("keras", "export", "reading a model")
    require("h5py", "export", "reading a model")
    require("mh_edge.layers", "export", "reading a model")
    return keras
