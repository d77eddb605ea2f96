"""What a bundle.json says, read by someone who does not trust who wrote it: every value is of its kind, every path is
that of a listed file, and the golden arrays lie one after the other in theirs.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mh_edge.artifact import FORMATS
from mh_edge.bundling import paths
from mh_edge.bundling.golden import Golden, padded
from mh_edge.bundling.layout import BUNDLE_FILE, BUNDLE_LAYOUT, render
from mh_edge.errors import InputError
from mh_edge.runtimes.base import PRECISIONS
from mh_edge.runtimes.ort.hints import hints

MOST_BYTES = 2**24
"""Of a bundle.json: each file and each golden array takes some hundred."""

MOST_ARTIFACTS = 100
"""Of a bundle: each of them is run."""

MOST_GOLDEN = 2**28
"""Bytes of the golden arrays of an artifact, which are read whole; bundles have a hundredth of it."""

DTYPES = {"bool": 1, "float16": 2, "float32": 4, "float64": 8} | {
    f"{sign}int{8 * size}": size for sign in ("", "u") for size in (1, 2, 4, 8)
}
"""Of golden arrays: bytes of a number."""

LONGEST_NAME = 1000
"""Characters of a tensor's name: it becomes the name of a file in an archive of arrays, which ends at 65,535 bytes."""

MOST_ALLOWED = 1e300
"""A larger difference than any number that is compared: no float64 beyond it, whatever JSON can write."""

MOST_AXES, LONGEST_AXIS = 32, 2**31
"""Of golden arrays; the oldest NumPy in use takes no more axes."""

HASH = re.compile("[0-9a-f]{64}")

KINDS: Mapping[type, str] = {list: "a list", dict: "an object", str: "a text"}

SHOWN = 60
"""Characters of a wrong value that an error shows."""


@dataclass(frozen=True)
class Listed:
    """A file as bundle.json lists it."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """An artifact. path: its model. data: what that reads. golden: where its arrays lie; described: how."""

    name: str
    format: str
    path: str
    data: tuple[str, ...]
    golden: str
    described: Mapping[str, Any]

    @property
    def needs(self) -> tuple[str, ...]:
        """The files without which it is not run."""
        return (self.path, *self.data, self.golden)


@dataclass(frozen=True)
class Told:
    """files: by path in the bundle, all but bundle.json."""

    platform: str
    artifacts: tuple[Entry, ...]
    files: Mapping[str, Listed]


def parsed(content: bytes, bundle: Path) -> Mapping[str, Any]:
    """The object in a bundle.json. Raises InputError for anything else."""

    def refused(name: str) -> float:
        raise ValueError(f"{name} is no JSON")

    try:
        data = json.loads(content.decode("utf-8"), parse_constant=refused)
    except RecursionError as error:
        raise _Reader(bundle).broken("is nested too deeply") from error
    except ValueError as error:
        raise _Reader(bundle).broken(f"is no JSON: {error}") from error
    if not isinstance(data, dict) or "mh_edge_bundle" not in data:
        raise _Reader(bundle).broken("is none of mh-edge")
    return data


def intact(data: Mapping[str, Any], content: bytes, bundle: Path) -> bool:
    """Whether it is, byte for byte, what its own content renders to."""
    try:
        return render(data).encode("utf-8", "surrogatepass") == content
    except RecursionError as error:
        raise _Reader(bundle).broken("is nested too deeply") from error


def told(data: Mapping[str, Any], bundle: Path) -> Told:
    """What it says. Raises InputError, which names the place in it and the value there."""
    read = _Reader(bundle)
    layout = read.whole(data, "mh_edge_bundle", "")
    if layout != BUNDLE_LAYOUT:
        raise read.broken(f"has the layout {layout}, and this mh-edge reads {BUNDLE_LAYOUT}", "Upgrade mh-edge.")
    files = {
        name: Listed(read.whole(one, "bytes", f"files[{name!r}]"), read.sha256(one, f"files[{name!r}]"))
        for name, one in read.objects(data, "files", "").items()
    }
    paths.require([BUNDLE_FILE, *files], f"{BUNDLE_FILE} of {str(bundle)!r}")
    listed = read.things(data, "artifacts", "", list)
    if not 0 < len(listed) <= MOST_ARTIFACTS:
        raise read.wrong("artifacts", len(listed), f"1 to {MOST_ARTIFACTS} of them")
    entries = tuple(_entry(read, one, f"artifacts[{number}]", files) for number, one in enumerate(listed))
    return Told(read.text(data, "platform", ""), entries, files)


def golden(entry: Entry, content: bytes, bundle: Path) -> Golden:
    """The golden cases of an artifact. content: of the file in which their arrays lie. Raises InputError where those do
    not lie one after the other and fill it.
    """
    read, place, cases = _Reader(bundle), 0, []
    where = f"golden of {entry.name!r}"
    for number, case in enumerate(read.things(entry.described, "cases", where, list)):
        here = f"{where}.cases[{number}]"
        if not isinstance(case, dict):
            raise read.wrong(here, case, "an object")
        cases.append(read.text(case, "name", here))
        for side in ("inputs", "outputs"):
            for name, array in read.objects(case, side, here).items():
                if not name.isprintable() or len(name) > LONGEST_NAME:
                    raise read.wrong(
                        f"{here}.{side}", name, f"a name of at most {LONGEST_NAME} characters that can be shown"
                    )
                place += _array(read, array, f"{here}.{side}[{name!r}]", place, side == "outputs")
        if not case["outputs"]:
            raise read.wrong(f"{here}.outputs", {}, "one or more")
    if not cases or place != len(content):
        raise read.broken(f"lists {place} bytes of golden arrays for {entry.name!r}, and its file has {len(content)}")
    if read.text(entry.described, "precision", where) not in PRECISIONS:
        raise read.wrong(f"{where}.precision", entry.described["precision"], f"one of {', '.join(PRECISIONS)}")
    read.text(entry.described, "reference", where)
    try:
        return Golden.read(entry.described, content)
    except ValueError as error:
        raise read.broken(f"describes golden arrays that are none: {error}") from error


def _entry(read: _Reader, one: Any, where: str, files: Mapping[str, Listed]) -> Entry:
    if not isinstance(one, dict):
        raise read.wrong(where, one, "an object")
    described = read.things(one, "golden", where, dict)
    options = read.things(one, "session_options", where, dict)
    if other := [key for key, value in options.items() if (key, value) not in hints(options).items()]:
        raise read.wrong(f"{where}.session_options", other[0], "an option that changes nothing but the speed")
    data = tuple(read.things(one, "data", where, list))
    found = Entry(
        read.text(one, "name", where),
        read.text(one, "format", where),
        read.text(one, "path", where),
        data,
        read.text(described, "path", f"{where}.golden"),
        described,
    )
    if found.format not in FORMATS:
        raise read.wrong(f"{where}.format", found.format, f"one of {', '.join(FORMATS)}")
    for path in found.needs:
        if not isinstance(path, str) or path not in files:
            raise read.wrong(where, path, "a listed file")
    if (size := files[found.golden].bytes) > MOST_GOLDEN:
        raise read.wrong(f"files[{found.golden!r}].bytes", size, f"at most {MOST_GOLDEN} of golden arrays")
    return found


def _array(read: _Reader, one: Any, where: str, place: int, output: bool) -> int:
    """Bytes of an array that has to begin at `place`, with what fills them up."""
    dtype, shape = read.text(one, "dtype", where), read.things(one, "shape", where, list)
    if dtype not in DTYPES:
        raise read.wrong(f"{where}.dtype", dtype, f"one of {', '.join(DTYPES)}")
    if len(shape) > MOST_AXES or any(type(size) is not int or not 0 <= size < LONGEST_AXIS for size in shape):
        raise read.wrong(f"{where}.shape", shape, f"at most {MOST_AXES} whole numbers from 0 to {LONGEST_AXIS - 1}")
    if (offset := read.whole(one, "offset", where)) != place:
        raise read.wrong(f"{where}.offset", offset, f"{place}, where the array before it ends")
    if output:
        allowed = one.get("allowed")
        if type(allowed) not in (int, float) or not 0 <= allowed <= MOST_ALLOWED:
            raise read.wrong(f"{where}.allowed", allowed, "a number of at least 0")
    return padded(math.prod(shape) * DTYPES[dtype])


@dataclass(frozen=True)
class _Reader:
    """Takes values out of it. where: the place of the object that holds them."""

    bundle: Path

    def broken(self, why: str, hint: str = "Ask for the bundle once more.") -> InputError:
        return InputError(f"{BUNDLE_FILE} of {str(self.bundle)!r} {why}.", hint)

    def wrong(self, place: str, value: Any, wanted: str) -> InputError:
        shown = repr(value)
        shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
        return self.broken(f"has {shown} at {place}, not {wanted}")

    def things(self, one: Any, key: str, where: str, kind: type) -> Any:
        if not isinstance(one, dict):
            raise self.wrong(where, one, "an object")
        value = one.get(key)
        if not isinstance(value, kind):
            raise self.wrong(f"{where}.{key}".removeprefix("."), value, KINDS[kind])
        return value

    def objects(self, one: Any, key: str, where: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.things(one, key, where, dict)
        return found

    def text(self, one: Any, key: str, where: str) -> str:
        value = str(self.things(one, key, where, str))
        if not value.isprintable():
            raise self.wrong(f"{where}.{key}".removeprefix("."), value, "a text that can be shown")
        return value

    def whole(self, one: Any, key: str, where: str) -> int:
        value = one.get(key) if isinstance(one, dict) else None
        if type(value) is not int or value < 0:
            raise self.wrong(f"{where}.{key}".removeprefix("."), value, "a whole number of at least 0")
        return value

    def sha256(self, one: Any, where: str) -> str:
        value = self.text(one, "sha256", where)
        if not HASH.fullmatch(value):
            raise self.wrong(f"{where}.sha256", value, "64 digits of a sha256")
        return value
