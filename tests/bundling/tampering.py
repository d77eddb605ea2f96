"""Changing a bundle as someone would who wants `verify` to believe it: bundle.json lists what is there."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mh_edge.bundling.layout import BUNDLE_FILE, listed, render


def sealed(folder: Path, change: Callable[[dict[str, Any]], object] = lambda told: None) -> Path:
    """Write the bundle.json of a folder anew: with the files that lie there, and a change."""
    told = json.loads((folder / BUNDLE_FILE).read_text())
    told["files"] = listed(folder)
    change(told)
    (folder / BUNDLE_FILE).write_bytes(render(told).encode("utf-8", "surrogatepass"))
    return folder


def packed(folder: Path, path: Path) -> Path:
    """A folder as a .zip, as any tool packs it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder).as_posix())
    return path
