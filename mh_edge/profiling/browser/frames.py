"""What the page posts: 4 bytes of length (little-endian), so much JSON, then arrays one after the other.

A browser is not trusted: every field is checked before it is used, and what is not as it should be is refused with a
sentence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np

from mh_edge.openings import OPENINGS
from mh_edge.profiling.browser.server import RefusedError
from mh_edge.runtimes.base import first_line
from mh_edge.runtimes.placement import Fallback, Placement

LENGTH = 4
"""Bytes of the length."""

MOST_JSON = 1 << 20
"""Bytes of JSON: 20,000 times of 20 characters, and the names of some hundred nodes."""

MOST_TIMES = 20_000
"""Timed calls of a row."""

LEAST_MS, MOST_MS = 1e-6, 1e7
"""Shorter than any call, and longer than any visit."""

MOST_NODES = 1_000_000
MOST_FALLBACKS = 1_000
MOST_THREADS = 4096
MOST_AXES = 16
MOST_SIZE = 1 << 31

DTYPES = {
    str(np.dtype(kind)): np.dtype(kind)
    for kind in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
}
"""What outputs may be, in numpy's words."""

Arrays = Mapping[str, np.ndarray]


class Told:
    """An object of the JSON; its fields are asked for by name and by what they may be. All raise RefusedError."""

    def __init__(self, data: object, where: str = "the JSON") -> None:
        if not isinstance(data, dict):
            raise wrong(f"{where} is no object")
        self.data: dict[str, Any] = data
        self.where = where

    def has(self, name: str) -> bool:
        """Whether it is there, and not null."""
        return self.data.get(name) is not None

    def whole(self, name: str, least: int, most: int) -> int:
        value = self.data.get(name)
        if type(value) is not int or not least <= value <= most:
            raise wrong(f"{name!r} of {self.where} is no whole number from {least} to {most}")
        return value

    def text(self, name: str) -> str:
        """One line that a terminal can show; empty where it is missing."""
        value = self.data.get(name)
        if value is not None and not isinstance(value, str):
            raise wrong(f"{name!r} of {self.where} is no text")
        return first_line(value) if value and value.strip() else ""

    def truth(self, name: str) -> bool | None:
        value = self.data.get(name)
        if value is not None and not isinstance(value, bool):
            raise wrong(f"{name!r} of {self.where} is neither true, false nor null")
        return value

    def ms(self, name: str) -> float:
        """Milliseconds, from LEAST_MS."""
        return _ms(self.data.get(name), f"{name!r} of {self.where}")

    def times(self, name: str) -> list[float]:
        """One or more of them."""
        return [_ms(one, f"a number of {name!r} of {self.where}") for one in self._list(name, 1, MOST_TIMES)]

    def each(self, name: str, least: int, most: int) -> list[Told]:
        return [Told(one, f"{name}[{number}]") for number, one in enumerate(self._list(name, least, most))]

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        found = self._list(name, 0, most)
        return tuple(Told({"": one}, f"{name!r} of {self.where}").text("") for one in found)

    def shape(self, name: str) -> tuple[int, ...]:
        found = self._list(name, 0, MOST_AXES)
        if any(type(size) is not int or not 0 <= size < MOST_SIZE for size in found):
            raise wrong(f"{name!r} of {self.where} is no shape")
        return tuple(found)

    def _list(self, name: str, least: int, most: int) -> list[Any]:
        value = self.data.get(name)
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise wrong(f"{name!r} of {self.where} is no list of {least} to {most}")
        return value


@dataclass(frozen=True)
class Expected:
    """Of a row. runs: of which outputs are sent. outputs: of a run. nodes: of the file."""

    runs: int
    outputs: int
    nodes: int


@dataclass(frozen=True)
class Checked:
    """What a row gave before it was timed. absent: why this browser has no such backend; error: what the runtime said
    when it failed; both "" otherwise. adapter: the GPU that WebGPU uses. outputs: of each run.
    """

    row: int
    absent: str
    error: str
    runtime: str
    threads: int
    adapter: str
    placement: Placement | None
    outputs: tuple[Arrays, ...]

    @classmethod
    def read(cls, body: bytes, rows: Sequence[Expected]) -> Checked:
        told, rest = frame(body)
        row = told.whole("row", 0, len(rows) - 1)
        absent, error = told.text("absent"), told.text("error")
        expected = rows[row]
        place = Told(told.data["placement"], "'placement'") if told.has("placement") else None
        return cls(
            row,
            absent,
            error,
            told.text("runtime"),
            told.whole("threads", 1, MOST_THREADS) if told.has("threads") else 1,
            told.text("adapter"),
            None if place is None else _placement(place, expected.nodes),
            _outputs(told, rest, 0 if absent or error else expected.runs, expected.outputs),
        )


@dataclass(frozen=True)
class Opening:
    """control: of a second session, of the first row alone."""

    load_ms: float
    first_ms: float
    ms: list[float]
    control: list[float]


@dataclass(frozen=True)
class Timed:
    """group: of how many calls each time is the mean. outputs: of the first feed, after the last call."""

    row: int
    error: str
    openings: tuple[Opening, ...]
    group: int
    steady: bool | None
    outputs: tuple[Arrays, ...]

    @classmethod
    def read(cls, body: bytes, rows: Sequence[Expected]) -> Timed:
        told, rest = frame(body)
        row, error = told.whole("row", 0, len(rows) - 1), told.text("error")
        count = 0 if error else OPENINGS
        found = tuple(
            Opening(
                one.ms("load_ms"),
                one.ms("first_ms"),
                one.times("ms"),
                one.times("control_ms") if one.has("control_ms") else [],
            )
            for one in (told.each("openings", count, count) if count else ())
        )
        if sum(len(one.ms) for one in found) > MOST_TIMES:
            raise wrong(f"there are more than {MOST_TIMES} times")
        group = told.whole("group", 1, MOST_TIMES * MOST_TIMES) if told.has("group") else 1
        return cls(
            row, error, found, group, told.truth("steady"), _outputs(told, rest, min(count, 1), rows[row].outputs)
        )


def frame(body: bytes) -> tuple[Told, memoryview]:
    """Its JSON, and what follows."""
    length = int.from_bytes(body[:LENGTH], "little")
    if len(body) < LENGTH or length > min(len(body) - LENGTH, MOST_JSON):
        raise wrong("it does not begin with the length of its JSON")
    try:
        data = json.loads(body[LENGTH : LENGTH + length], parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise wrong("its JSON cannot be read") from error
    return Told(data), memoryview(body)[LENGTH + length :]


def wrong(why: str) -> RefusedError:
    """The error for what no page of ours sends."""
    return RefusedError(HTTPStatus.BAD_REQUEST, f"This is not what the page is to send: {why}.")


def _no_number(name: str) -> float:
    raise ValueError(name)


def _ms(value: object, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not LEAST_MS <= value <= MOST_MS:
        raise wrong(f"{where} is no time in milliseconds")
    return float(value)


def _placement(told: Told, nodes: int) -> Placement:
    """nodes: of the file, for a runtime that tells no more than whether it took all of it."""
    whole, nodes = told.truth("whole"), told.whole("nodes", 0, MOST_NODES) if told.has("nodes") else nodes
    fallbacks = tuple(
        Fallback(
            one.text("op"),
            one.whole("count", 1, MOST_NODES),
            one.texts("nodes", MOST_FALLBACKS),
            one.text("where"),
            one.text("reason"),
        )
        for one in told.each("fallbacks", 0, MOST_FALLBACKS)
    )
    if whole is False and not fallbacks:
        fallbacks = (Fallback("a part", 1, (), "WebAssembly"),)
    return Placement(
        nodes,
        told.whole("on_device", 0, nodes) if told.has("on_device") else nodes if whole else 0,
        told.whole("partitions", 0, MOST_NODES) if told.has("partitions") else 1,
        fallbacks,
        told.text("proof"),
    )


def _outputs(told: Told, rest: memoryview, runs: int, most: int) -> tuple[Arrays, ...]:
    """The arrays of each run."""
    found = []
    for run in told.each("outputs", runs, runs) if runs else ():
        if len(run.data) > most:
            raise wrong(f"{run.where} names more than {most} outputs")
        arrays = {}
        for name in run.data:
            array, rest = _array(Told(run.data[name], f"{run.where}[{first_line(name)!r}]"), rest)
            arrays[name] = array
        found.append(arrays)
    if len(rest):
        raise wrong(f"{len(rest)} bytes follow its arrays")
    return tuple(found)


def _array(told: Told, rest: memoryview) -> tuple[np.ndarray, memoryview]:
    dtype, shape = DTYPES.get(told.text("dtype")), told.shape("shape")
    if dtype is None:
        raise wrong(f"'dtype' of {told.where} is none of {', '.join(DTYPES)}")
    size = math.prod(shape) * dtype.itemsize
    if math.prod(max(axis, 1) for axis in shape) >= MOST_SIZE:  # numpy multiplies axes of 0 as if they were 1, too
        raise wrong(f"'shape' of {told.where} is beyond any output")
    if size > len(rest):
        raise wrong(f"the numbers of {told.where} are missing")
    return np.frombuffer(rest[:size], dtype.newbyteorder("<")).reshape(shape).astype(dtype), rest[size:]
