"""Arrays in .npy and .npz files, known by their headers and read by rows, so that a file may exceed the memory."""

from __future__ import annotations

import contextlib
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from mh_edge.errors import InputError

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
"""By the version of the file; a later one is for structured arrays alone."""

MOST_COLUMNWISE = 2**28
"""Bytes of the largest array that is read whole because it lies column by column: its rows are spread over the file."""


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, not yet read. member: its name in an .npz, None for an .npy."""

    path: Path
    member: str | None
    dtype: np.dtype
    shape: tuple[int, ...]
    columnwise: bool

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """The whole array. Raises InputError when the file is damaged."""
        with _readable(self.path), self._numbers() as stream:
            flat = np.frombuffer(stream.read(self.nbytes), self.dtype)
            _require_end(stream)
            return flat.reshape(self.shape, order="F" if self.columnwise else "C")

    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        """The array in pieces of `rows` rows, the last one of what is left. Raises InputError when the file is damaged,
        and for a large array that lies column by column.
        """
        if self.columnwise:
            if self.nbytes > MOST_COLUMNWISE:
                raise InputError(
                    f"an array of {str(self.path)!r} lies column by column (Fortran order), and is too large for that.",
                    "Save numpy.ascontiguousarray(array).",
                )
            whole = self.read()
            yield from (whole[start : start + rows] for start in range(0, len(whole), rows))
            return
        width = self.nbytes // max(self.shape[0], 1)
        with _readable(self.path), self._numbers() as stream:
            for start in range(0, self.shape[0], rows):
                count = min(rows, self.shape[0] - start)
                flat = np.frombuffer(stream.read(count * width), self.dtype)
                yield flat.reshape(count, *self.shape[1:])
            _require_end(stream)

    @contextlib.contextmanager
    def _numbers(self) -> Iterator[IO[bytes]]:
        """The file or member, open at its first number."""
        with contextlib.ExitStack() as opened:
            if self.member is None:
                stream: IO[bytes] = opened.enter_context(self.path.open("rb"))
            else:
                stream = opened.enter_context(opened.enter_context(zipfile.ZipFile(self.path)).open(self.member))
            _header(stream)
            yield stream


def open_npz(path: Path) -> dict[str, StoredArray]:
    """The arrays of an `.npz` by name. Raises InputError when it is not there, or is not one."""
    with _readable(path), path.open("rb") as file:
        if file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX:
            raise InputError(
                f"{str(path)!r} holds one nameless array.", "Save the inputs by name: np.savez(path, name=array)."
            )
        with zipfile.ZipFile(file) as archive:
            arrays = {}
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                with archive.open(info) as stream:
                    if stream.read(len(npy.MAGIC_PREFIX)) != npy.MAGIC_PREFIX:
                        raise InputError(
                            f"{str(path)!r} is a zip archive, but {name!r} in it is no array.",
                            "Write it with np.savez.",
                        )
                with archive.open(info) as stream:
                    arrays[name] = _stored(path, info.filename, stream, info.file_size)
    return arrays


def open_npy(path: Path) -> StoredArray:
    """The array of an `.npy`. Raises InputError when it is not there, or is not one."""
    with _readable(path), path.open("rb") as stream:
        return _stored(path, None, stream, path.stat().st_size)


def read_npz(path: Path) -> Mapping[str, np.ndarray]:
    """All arrays of an `.npz` by name. Raises InputError when it is not there, or is not one."""
    return {name: array.read() for name, array in open_npz(path).items()}


def write_npz(target: Path | IO[bytes], arrays: Mapping[str, np.ndarray]) -> None:
    """An `.npz` of arrays by name, as np.savez writes it, which takes names for options of its own (file,
    allow_pickle).
    """
    with zipfile.ZipFile(target, "w", allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                npy.write_array(stream, np.asanyarray(array), allow_pickle=False)


def _stored(path: Path, member: str | None, stream: IO[bytes], size: int) -> StoredArray:
    shape, columnwise, dtype = _header(stream)
    stored = StoredArray(path, member, dtype, shape, columnwise)
    if dtype.hasobject or stream.tell() + stored.nbytes != size:
        raise ValueError(f"{member}: Python objects, or not as long as its header says")
    return stored


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"version {version}")
    return HEADERS[version](stream)


def _require_end(stream: IO[bytes]) -> None:
    """A zip archive compares its checksum when the end is read."""
    if stream.read(1):
        raise ValueError("more numbers than its header says")


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"there is no file {str(path)!r}.") from error
    except (OSError, ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        # A RuntimeError is about a password.
        # Not what NumPy says: it takes whatever it does not know for a pickle, and tells how to load that.
        wanted, writer = (
            (".npy of a plain array", "save") if path.suffix == ".npy" else (".npz of plain arrays", "savez")
        )
        raise InputError(f"{str(path)!r} is not an {wanted}.", f"Write it with np.{writer}.") from error
