"""Paths in a bundle: with forward slashes, and such that every system keeps them apart and inside of the folder."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from mh_edge.errors import InputError

MOST_FILES = 10_000
"""Of a bundle: far more than any platform has."""

LONGEST_PART, LONGEST_PATH = 255, 1000
"""Bytes of a name and of a path, of which Windows and Linux take more."""

DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)
"""Names that are no files on Windows, whatever follows their first dot."""

FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
"""What Windows takes for a drive, a stream, a pattern or another slash; what ends a name; what steers terminals."""


def fault(path: str) -> str:
    """Why a path is none that a bundle may hold ("is no path inside of a folder"); nothing where it may."""
    parts = path.split("/")
    if not path or "" in parts or "." in parts or ".." in parts:
        return "is no path inside of a folder"
    if found := FORBIDDEN.search(path):
        return f"holds {found[0]!r}"
    try:
        encoded = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "is no text"
    if max(encoded) > LONGEST_PART or sum(encoded) + len(encoded) > LONGEST_PATH:
        return "is too long"
    for part in parts:
        if DEVICE.fullmatch(part):
            return f"holds {part!r}, a device on Windows"
        if part[-1] in ". ":
            return f"holds {part!r}, whose end Windows drops"
    return ""


def require(paths: Iterable[str], where: str) -> None:
    """Raise InputError where one of the paths may not be in a bundle, or two of them are one file on some system.

    where: what holds them ("the bundle 'kit.zip'").
    """
    seen: dict[str, str] = {}
    for number, path in enumerate(paths):
        if number == MOST_FILES:
            raise InputError(f"{where} holds more than {MOST_FILES} files.")
        if why := fault(path):
            raise InputError(f"{where} holds the path {path!r}, which {why}.", "Name it otherwise.")
        other = seen.setdefault(alike(path), path)
        if number >= len(seen):
            raise InputError(
                f"{where} holds {other!r} and {path!r}, which are one file on some systems."
                if other != path
                else f"{where} holds {path!r} twice."
            )
    for path in seen.values():
        parts = alike(path).split("/")
        if above := next((seen[up] for n in range(1, len(parts)) if (up := "/".join(parts[:n])) in seen), None):
            raise InputError(f"{where} holds the file {above!r} and, as if it were a folder, {path!r}.")


def alike(path: str) -> str:
    """The same for paths that some file system takes for one."""
    return unicodedata.normalize("NFC", path.casefold())
