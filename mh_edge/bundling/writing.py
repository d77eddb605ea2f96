"""Where a bundle is written: a folder or a .zip that appears whole or not at all. A bundle that is there is replaced;
anything else that is there stays.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from mh_edge.bundling.layout import BUNDLE_FILE
from mh_edge.commit import staged, system_errors_named
from mh_edge.errors import ConversionError, UsageError

ARCHIVE = ".zip"

OLDEST = (1980, 1, 1, 0, 0, 0)
"""The time of every file in an archive, so that the same bundle gives the same bytes: the first that .zip knows."""

PLAIN_FILE = 0o100644 << 16
"""What an archive says of each file: a plain one, that its owner may write."""

HERE = -100
EXCHANGE = 2
"""AT_FDCWD and RENAME_EXCHANGE of Linux's renameat2."""


@contextlib.contextmanager
def written(output: Path) -> Iterator[Path]:
    """An empty folder; what lies in it at the end becomes the bundle at `output`, or at what that links to.

    Raises UsageError where something stands at `output` that is no bundle, or a bundle with files of the user's, and
    for the folder that one is in; ConversionError where the system does not let it be written.
    """
    output = output.resolve()
    archive = output.suffix.lower() == ARCHIVE
    _require_free(output, archive)
    with staged(output.parent) as staging:
        folder = staging.path / "bundle"
        with system_errors_named(output):
            folder.mkdir()
            yield folder
            if not archive:
                _move(folder, output)
                return
            _pack(folder, staging.path / output.name)
        staging.commit([output.name])


def _require_free(output: Path, archive: bool) -> None:
    if not output.exists():
        return
    if archive:
        if output.is_dir() or not _is_archive_of_ours(output):
            raise UsageError(f"{str(output)!r} is there and is no bundle.", "Delete it, or choose another -o.")
        return
    if not output.is_dir():
        raise UsageError(f"{str(output)!r} is a file.", "Choose another -o: a folder, or a name that ends in .zip.")
    if Path.cwd().is_relative_to(output):
        raise UsageError(
            f"{str(output)!r} is the folder that you are in, and a bundle replaces a folder as a whole.",
            "Name another one, such as -o kit.",
        )
    files = _listed_in(output / BUNDLE_FILE)
    folders = {parent.as_posix() for name in files for parent in Path(name).parents}
    there = {path.relative_to(output).as_posix(): path.is_dir() and not path.is_symlink() for path in output.rglob("*")}
    if foreign := sorted(name for name, folder in there.items() if name not in (folders if folder else files)):
        raise UsageError(
            f"{str(output)!r} is there and holds {foreign[0]!r}, which is of no bundle.",
            "Move that away, or choose another -o.",
        )


def _listed_in(path: Path) -> set[str]:
    """The files of a bundle by its bundle.json; none where it cannot be read."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return {BUNDLE_FILE, *told["files"]} if "mh_edge_bundle" in told else set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def _is_archive_of_ours(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return BUNDLE_FILE in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _move(folder: Path, output: Path) -> None:
    """The folder becomes the bundle; one that is there takes its place, and goes with the staging folder."""
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    if not output.exists() or not any(output.iterdir()):
        os.rename(folder, output)  # an empty folder is replaced
        return
    failed = ctypes.CDLL(None, use_errno=True).renameat2(HERE, os.fsencode(folder), HERE, os.fsencode(output), EXCHANGE)
    if failed:
        raise ConversionError(
            f"the bundle that is at {str(output)!r} cannot be replaced in one step: {os.strerror(ctypes.get_errno())}.",
            "Delete it first.",
        )


def _pack(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(one for one in folder.rglob("*") if one.is_file()):
            info = zipfile.ZipInfo(file.relative_to(folder).as_posix(), OLDEST)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = PLAIN_FILE
            archive.writestr(info, file.read_bytes())
