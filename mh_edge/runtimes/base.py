"""What every runtime adapter is: a device's name and packages, a file opened on it, run(feeds) -> outputs, and the
truth about where that ran; the checks of the feeds live here.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np

from mh_edge.errors import InputError, UsageError
from mh_edge.packages import pip_line
from mh_edge.runtimes.placement import OpTime, Placement
from mh_edge.signature import Signature, Tensor

Feeds = Mapping[str, np.ndarray]

LONGEST = 500
"""Of another program's message, so many characters are shown."""

ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
"""What steers a terminal: colours, cursor, titles, links; and single characters, but for the end of a line."""

PRECISIONS = ("float32", "float16", "integers")
"""In what numbers a file is computed, from fine to coarse."""


@dataclass(frozen=True)
class Scale:
    """An integer q of a tensor stands for the number x = scale · (q − zero_point)."""

    scale: float
    zero_point: int
    dtype: str

    def to_json(self) -> dict[str, Any]:
        return {"scale": self.scale, "zero_point": self.zero_point, "dtype": self.dtype}

    def integers(self, numbers: np.ndarray) -> np.ndarray:
        """q = round(x / scale) + zero_point, cut to what the dtype holds."""
        limits = np.iinfo(self.dtype)
        nearest = np.rint(numbers.astype(np.float64) / self.scale) + self.zero_point
        integers: np.ndarray = np.clip(nearest, limits.min, limits.max).astype(self.dtype)
        return integers

    def numbers(self, integers: np.ndarray) -> np.ndarray:
        """x in float32."""
        return (self.scale * (integers.astype(np.float64) - self.zero_point)).astype(np.float32)


class Session(ABC):
    """An artifact opened on a device: run(feeds: name -> array) -> outputs: name -> array.

    An adapter is a subclass with the class attributes below, that implements `load`, `_open`, `_run`, `placement` and
    `close`, and `_prepared` and `op_times` where its runtime has more to offer; the feeds that it gets are already
    checked. It is listed in `mh_edge.runtimes.DEVICES`, or named by an installed package in the entry point group
    `mh_edge.devices` (name of the device = module:Class).

    `signature` is read from the file; free dims carry the file's names, or `<input>_dim_<axis>` where it gives none.
    threads: how many the runtime may use; None leaves it to the runtime. sizes: the free dims by name, for a device
    that must know them before it opens the file; others leave them free. settings: the device's own options.
    input_scales, output_scales: by name, of the integer tensors that stand for other numbers. load_seconds: how long
    opening took, without the import of the runtime and the reading of the manifest. version: of the runtime that runs.
    """

    device: ClassVar[str]
    """The name that users give it: "cpu", "litert-gpu"."""
    runtime: ClassVar[str]
    """The name people know the runtime by."""
    formats: ClassVar[tuple[str, ...]]
    """Those of `mh_edge.runtimes.SUFFIXES` that it opens."""
    packages: ClassVar[tuple[str, ...]]
    """The distributions of which one brings it, the usual one first."""
    extra: ClassVar[str]
    """The extra of mh-edge that installs it; "" where `packages` or `plugin` say it all."""
    plugin: ClassVar[str | None] = None
    """A further distribution that it needs beside one of `packages`."""
    takes: ClassVar[tuple[str, ...]] = ()
    """The names of the settings that it knows; others are refused."""
    arithmetic: ClassVar[str] = "float32"
    """The numbers in which it computes a float32 file: "float16" where it rounds to those."""

    notes: tuple[str, ...] = ()
    """What must be known of its times, once a file is open: that a simulator made them."""

    precision: str
    """The coarsest numbers in which this file is computed there: "float32", "float16" or "integers" (scaled ones).
    Starts as `arithmetic`; `_open` says otherwise for a file of coarser numbers.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int | None = None,
        sizes: Mapping[str, int] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.threads = threads
        self.sizes = dict(sizes or {})
        self.settings = dict(settings or {})
        self.input_scales: Mapping[str, Scale] = {}
        self.output_scales: Mapping[str, Scale] = {}
        self.precision = self.arithmetic
        if unknown := [key for key in self.settings if key not in self.takes]:
            raise UsageError(
                f"the device {self.device!r} has no setting {unknown[0]!r}.",
                f"It takes {', '.join(self.takes)}." if self.takes else "It takes none.",
            )
        _require_file(self.path)
        self.load()
        self._read_beside()
        started = time.perf_counter()
        self.signature = self._open()
        self.load_seconds = time.perf_counter() - started

    @classmethod
    @abstractmethod
    def load(cls) -> str:
        """Import the runtime -> its version, such as "1.31.1". Needs no artifact.

        Raises UnavailableError, with the reason and, as the hint, the exact line that would mend it, when this machine
        lacks what the device needs, as far as that shows without opening a file.
        """

    @classmethod
    def install(cls) -> str:
        """The line that installs what it needs, where that is not installed."""
        return pip_line(cls.extra) if cls.extra else f"pip install {cls.plugin or cls.packages[0]}"

    def _read_beside(self) -> None:  # noqa: B027 - most have nothing to read
        """Read what lies beside the file (its manifest): what is no part of the time that opening takes."""

    @abstractmethod
    def _open(self) -> Signature:
        """Load the file -> its signature.

        Raises InputError when the file cannot be read or run there, UnavailableError when the device itself is not
        here or does not work.
        """

    @abstractmethod
    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs in signature order. Raises InputError when the runtime refuses the feed."""

    @abstractmethod
    def placement(self) -> Placement:
        """Where its nodes run, once it ran: proven by the runtime, never by the name that was asked for."""

    @abstractmethod
    def close(self) -> None:
        """Let the runtime go; the session cannot run afterwards."""

    def op_times(self, feeds: Feeds, calls: int) -> tuple[OpTime, ...]:
        """Time of each operation, mean of so many calls, measured apart from the latency because measuring slows it
        down; empty where the runtime offers none.
        """
        del feeds, calls
        return ()

    def _prepared(self, feeds: dict[str, np.ndarray]) -> Callable[[], object]:
        """A call on these feeds that does nothing but what an application would do for each call. What it gives goes to
        `_fetched`.
        """
        return partial(self._run, feeds)

    def _fetched(self, result: Any) -> list[np.ndarray]:
        """Outputs in signature order, from what a prepared call gave."""
        return list(result) if isinstance(result, Iterable) else []

    def fetched(self, result: object) -> dict[str, np.ndarray]:
        """The outputs by name, from what a call of `prepared` gave. Raises InputError as `run` does."""
        return self._named(self._fetched(result))

    def prepared(self, feeds: Feeds) -> Callable[[], object]:
        """What is timed: a call on these feeds, checked once. Raises InputError as `run` does."""
        return self._prepared(self._checked(feeds))

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Run the artifact once.

        Raises InputError when an input is missing, unknown, or of another dtype or shape than the signature says
        (nothing is cast silently), when the runtime itself refuses the feed, and when what it gives are not the outputs
        of the signature.
        """
        return self._named(self._run(self._checked(feeds)))

    def _named(self, outputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        known = self.signature.outputs
        if len(outputs) != len(known):
            raise InputError(
                f"the device {self.device!r} gave {len(outputs)} outputs for {self.path}, "
                f"whose signature has {len(known)}."
            )
        found = {tensor.name: value for tensor, value in zip(known, outputs, strict=True)}
        for name, value in found.items():
            if not isinstance(value, np.ndarray | np.generic) or value.dtype.hasobject:
                raise InputError(
                    f"the device {self.device!r} gave no numbers for the output {name!r} of {self.path}, but "
                    f"{type(value).__name__}."
                )
        return found

    def _checked(self, feeds: Feeds) -> dict[str, np.ndarray]:
        check_feeds(self.signature, feeds, str(self.path))
        return {tensor.name: np.asarray(feeds[tensor.name], order="C") for tensor in self.signature.inputs}

    def refuse(self, reason: object) -> InputError:
        """The error for a feed that the runtime does not take."""
        return InputError(f"{self.runtime} cannot run {self.path} on this feed: {first_line(reason)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def check_feeds(signature: Signature, feeds: Feeds, of: str) -> None:
    """Raise InputError unless the feeds are exactly the inputs, each with its dtype and a shape that fits.

    of: what the feeds are for, as it appears in the message.
    """
    known = [tensor.name for tensor in signature.inputs]
    if missing := [name for name in known if name not in feeds]:
        raise InputError(f"no array for input {missing[0]!r} of {of}.", f"It takes: {', '.join(known)}.")
    if unknown := [name for name in feeds if name not in known]:
        raise InputError(f"{of} has no input {unknown[0]!r}.", f"It takes: {', '.join(known)}.")
    sizes: dict[str, tuple[int, str]] = {}
    for tensor in signature.inputs:
        _check_array(tensor, feeds[tensor.name], sizes, of)


def _check_array(tensor: Tensor, array: np.ndarray, sizes: dict[str, tuple[int, str]], of: str) -> None:
    if str(array.dtype) != tensor.dtype:
        raise InputError(
            f"input {tensor.name!r} of {of} is {tensor.dtype}, the array given is {array.dtype}.",
            f"Convert it yourself, array.astype({tensor.dtype!r}), if that loses nothing.",
        )
    shape = f"({', '.join(map(str, tensor.shape))})"
    if array.ndim != len(tensor.shape):
        raise InputError(f"input {tensor.name!r} of {of} has the shape {shape}, the array given has {array.shape}.")
    for axis, (dim, size) in enumerate(zip(tensor.shape, array.shape, strict=True)):
        if isinstance(dim, int):
            if dim != size:
                raise InputError(
                    f"input {tensor.name!r} of {of} has the shape {shape}, the array given has {array.shape}: "
                    f"axis {axis} must be {dim}, not {size}."
                )
        elif sizes.setdefault(dim, (size, tensor.name))[0] != size:
            raise InputError(
                f"the size {dim!r} of {of} is {sizes[dim][0]} in input {sizes[dim][1]!r} "
                f"and {size} in input {tensor.name!r}."
            )


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder, not an artifact.", "Name the .onnx or .tflite file in it.")
    if not path.is_file():
        raise InputError(f"there is no file {path}.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes).", "Write it again.")
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{str(path)!r} is not UTF-8, and runtimes open no such file.", "Rename it.") from error


def first_line(reason: object) -> str:
    """The first line that says something of another program's message, as a terminal can show it."""
    lines = [line.strip() for line in printable(str(reason)).splitlines() if line.strip()]
    if not lines:
        return type(reason).__name__
    return lines[0] if len(lines[0]) <= LONGEST else f"{lines[0][:LONGEST]} ..."


def printable(text: str) -> str:
    """Without what would steer a terminal."""
    return CONTROLS.sub(" ", ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
