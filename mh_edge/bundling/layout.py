"""`bundle.json`: the one file at the top of a bundle that says what all others are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mh_edge.artifact import file_sha256
from mh_edge.jsontext import dumps

BUNDLE_FILE = "bundle.json"
BUNDLE_LAYOUT = 1


def render(told: Mapping[str, Any]) -> str:
    """Its text. The same content always gives the same text, so a changed byte in it can be told."""
    return dumps(told, indent=1) + "\n"


def listed(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file of a folder but bundle.json, by path in it with forward slashes, sorted."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for name, path in sorted(paths.items())
        if name != BUNDLE_FILE
    }
