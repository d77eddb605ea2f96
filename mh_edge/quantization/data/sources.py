"""Where a set of samples comes from: each form that may be given -> feeds, as often as they are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mh_edge import custom
from mh_edge.arrayfiles import StoredArray, open_npy, open_npz
from mh_edge.errors import InputError
from mh_edge.quantization.scheme import Arrays

LABELS = "labels"
"""The name under which a set holds the right answers, one per sample."""

LABELS_OF = f"{LABELS}."
"""Before an output's name: the right answers of that output."""

Given = str | Path | Mapping[str, np.ndarray] | Callable[[], Iterator[Arrays]]
"""An .npz, a folder of .npy/.npz, "package.module:function", arrays by name, or a function that yields feeds."""

BLOCK = 2**22
"""Bytes of one array that are in memory at once, unless a single sample is larger."""

FORMS = 'Give an .npz, a folder of .npz or .npy, "package.module:function", arrays by name, or a function.'

Part = Mapping[str, StoredArray | np.ndarray]
"""Arrays by name that belong together: the first axis of each counts the samples."""


@dataclass(frozen=True)
class Source:
    """A set as it was given. label: what it is called. feeds: a new pass over it, in pieces of any number of samples.
    parts: what is known of it beforehand; empty for a function.
    """

    label: str
    feeds: Callable[[], Iterator[Arrays]]
    parts: Sequence[Part] = field(default=())


def open_source(given: Given, inputs: Sequence[str]) -> Source:
    """inputs: of the model, by which .npy files are told apart. Raises InputError for what is none of the forms."""
    if isinstance(given, str) and custom.FUNCTION.fullmatch(given) and not Path(given).exists():
        return _of_function(given, custom.function(given, "takes no arguments and yields feeds, arrays by input name"))
    if isinstance(given, str | os.PathLike):
        path = Path(given)
        return _of_parts(path.name, _in_folder(path, inputs) if path.is_dir() else [open_npz(path)])
    if isinstance(given, Mapping):
        for name, array in given.items():
            _require_array(name, array)
        return _of_parts("arrays", [given])
    if isinstance(given, Iterator):
        raise InputError(
            f"a {type(given).__name__} can be read once, and the samples are read again and again.",
            "Give the function that makes it.",
        )
    if not callable(given):
        raise InputError(f"{type(given).__name__} is no form of data.", FORMS)
    return _of_function(_name(given), given)


def _name(function: Callable[[], Any]) -> str:
    return function.__qualname__ if hasattr(function, "__qualname__") else type(function).__qualname__


def _in_folder(folder: Path, inputs: Sequence[str]) -> list[Part]:
    """Each .npz is a part. So is each .npy for a model of one input, unless one is named after the input."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".npz", ".npy"))
    if len({path.suffix for path in files}) != 1:
        found = "both .npz and .npy" if files else "no .npz and no .npy"
        raise InputError(f"the folder {str(folder)!r} holds {found}.", FORMS)
    if files[0].suffix == ".npz":
        return [open_npz(path) for path in files]
    arrays = {path.stem: open_npy(path) for path in files}
    if len(inputs) == 1 and inputs[0] not in arrays:
        return [{inputs[0]: array} for array in arrays.values()]
    return [arrays]


def _of_parts(label: str, parts: Sequence[Part]) -> Source:
    def feeds() -> Iterator[Arrays]:
        for part in parts:
            widest = max((array.nbytes // max(array.shape[0], 1) for array in part.values()), default=1)
            rows = max(1, BLOCK // max(widest, 1))
            blocks = [_blocks(array, rows) for array in part.values()]
            for block in zip(*blocks, strict=True):
                yield dict(zip(part, block, strict=True))

    return Source(label, feeds, parts)


def _blocks(array: StoredArray | np.ndarray, rows: int) -> Iterator[np.ndarray]:
    if isinstance(array, StoredArray):
        return array.blocks(rows)
    return (array[start : start + rows] for start in range(0, len(array), rows))


_NO_MORE = object()


def _of_function(label: str, function: Callable[[], Any]) -> Source:
    last: list[object] = []

    def feeds() -> Iterator[Arrays]:
        with custom.blamed(f"{label} raised"):
            made = function()
            if isinstance(made, Mapping | str) or not hasattr(made, "__iter__"):
                raise InputError(f"{label} returns a {type(made).__name__}, no feeds.", "Let it yield arrays by name.")
            feeds = iter(made)
        if last and last[0] is feeds:
            raise InputError(
                f"{label} returns the same {type(made).__name__} each time, which can be read once.",
                "Let it make a new one at every call.",
            )
        last[:] = [feeds]
        while True:
            with custom.blamed(f"{label} raised"):
                feed = next(feeds, _NO_MORE)
            if feed is _NO_MORE:
                return
            if not isinstance(feed, Mapping):
                raise InputError(f"{label} yields a {type(feed).__name__}.", "Let it yield a dict of arrays by name.")
            for name, array in feed.items():
                _require_array(name, array)
            yield feed

    return Source(label, feeds)


def _require_array(name: object, array: object) -> None:
    if not isinstance(array, np.ndarray):
        raise InputError(f"{name!r} is a {type(array).__name__}, not a NumPy array.", "Convert it: numpy.asarray.")
