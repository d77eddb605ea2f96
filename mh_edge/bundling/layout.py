"""`bundle.json`: the one file at the top of a bundle that says what all others are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mh_edge.artifact import file_sha256
from mh_edge.bundling import paths
from mh_edge.jsontext import dumps

BUNDLE_FILE = "bundle.json"
BUNDLE_LAYOUT = 1
SEAL = "sha256"


def render(told: Mapping[str, Any]) -> str:
    """Its text. The same content always gives the same text, and the last entry is the sha256 of the text without it:
    so any changed byte can be told.
    """
    content = {key: value for key, value in told.items() if key != SEAL}
    bare = dumps(content, indent=1).encode("utf-8", "surrogatepass")
    return dumps(content | {SEAL: hashlib.sha256(bare).hexdigest()}, indent=1) + "\n"


def listed(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file of a folder but bundle.json, by path in it with forward slashes, sorted. Raises
    InputError for a name that not every system takes.
    """
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    paths.require(files, "the bundle")
    return {
        name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for name, path in sorted(files.items())
        if name != BUNDLE_FILE
    }
