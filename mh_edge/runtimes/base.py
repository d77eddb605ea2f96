"""What every runtime adapter is: a file, its signature, and run(feeds) -> outputs; the checks of the feeds live
here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from mh_edge.errors import InputError
from mh_edge.signature import Signature, Tensor

Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Scale:
    """An integer q of a tensor stands for the number x = scale · (q − zero_point)."""

    scale: float
    zero_point: int
    dtype: str

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
    """An opened artifact: run(feeds: name -> array) -> outputs: name -> array.

    `signature` is read from the file; free dims carry the file's names, or `<input>_dim_<axis>` where it gives none. An
    adapter implements `_open` (-> the signature), `_run` and `close`; the feeds `_run` gets are already checked.
    threads: how many the runtime may use; None leaves it to the runtime. input_scales, output_scales: by name, of the
    integer tensors that stand for other numbers.
    """

    runtime: str
    """The name people know the runtime by."""

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        self.path = Path(path)
        self.threads = threads
        self.input_scales: Mapping[str, Scale] = {}
        self.output_scales: Mapping[str, Scale] = {}
        _require_file(self.path)
        self.signature = self._open()

    @abstractmethod
    def _open(self) -> Signature:
        """Load the file -> its signature. Raises InputError when it cannot be read or run."""

    @abstractmethod
    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs in signature order. Raises InputError when the runtime refuses the feed."""

    @abstractmethod
    def close(self) -> None:
        """Let the runtime go; the session cannot run afterwards."""

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Run the artifact once.

        Raises InputError when an input is missing, unknown, or of another dtype or shape than the signature says
        (nothing is cast silently), and when the runtime itself refuses the feed.
        """
        check_feeds(self.signature, feeds, str(self.path))
        outputs = self._run({tensor.name: np.ascontiguousarray(feeds[tensor.name]) for tensor in self.signature.inputs})
        return {tensor.name: value for tensor, value in zip(self.signature.outputs, outputs, strict=True)}

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


def first_line(reason: object) -> str:
    """The first line that says something of another program's message."""
    lines = [line.strip() for line in str(reason).splitlines() if line.strip()]
    return lines[0] if lines else type(reason).__name__
