"""The files of a bundle, in a folder or a .zip, read by someone who does not trust who made it: nothing is unpacked
where its name says, no link is followed, and no more is read than was asked for.
"""

from __future__ import annotations

import contextlib
import os
import stat
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from mh_edge.bundling.layout import BUNDLE_FILE
from mh_edge.bundling.paths import MOST_FILES, fault, require
from mh_edge.bundling.writing import ARCHIVE
from mh_edge.errors import InputError
from mh_edge.units import human_bytes

MOST_UNPACKED = 16 * 2**30
"""Bytes of all files of an archive together. Models that are copied to devices have less, and reading so much takes a
minute.
"""

ENCRYPTED = 0x1 | 0x40 | 0x2000
"""Flags of a member: by a password, strongly, and its header, too."""

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What our own archives use, and every tool that packs a folder again."""

UNIX = 16
"""How far an archive shifts Unix's mode of a file."""

BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, NotImplementedError, OSError)
"""What reading a damaged archive raises."""


class Unreadable(Exception):  # noqa: N818 - the file differs, which is found and no error
    """A file of the bundle cannot be read to its end."""


class Files(ABC):
    """The files of a bundle. names: their paths in it -> bytes, as the folder or the archive declares them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: Mapping[str, int] = {}

    def pieces(self, name: str) -> Iterator[bytes]:
        """The content of a file, piece by piece. Raises Unreadable."""
        try:
            with self._open(name) as stream:
                while piece := stream.read(1 << 20):
                    yield piece
        except BROKEN as error:
            raise Unreadable(str(error)) from error

    @abstractmethod
    def _open(self, name: str) -> IO[bytes]: ...


class Folder(Files):
    """A folder. Raises InputError for one that holds a link, or what is neither file nor folder."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with _readable(path):
            self.names = dict(sorted(self._walk()))

    def _walk(self) -> Iterator[tuple[str, int]]:
        def stop(error: OSError) -> None:
            raise error

        count = 0
        for top, folders, files in os.walk(self.path, onerror=stop):
            for one in (*folders, *files):
                found = Path(top) / one
                status = found.lstat()
                name = found.relative_to(self.path).as_posix()
                if stat.S_ISREG(status.st_mode):
                    yield name, status.st_size
                    count += 1
                elif not stat.S_ISDIR(status.st_mode):
                    kind = "a link" if stat.S_ISLNK(status.st_mode) else "neither a file nor a folder"
                    raise InputError(f"the bundle {str(self.path)!r} holds {name!r}, which is {kind}.", _COPY)
            if count > MOST_FILES:
                raise InputError(f"{str(self.path)!r} holds more than {MOST_FILES} files.")

    def _open(self, name: str) -> IO[bytes]:
        return (self.path / name).open("rb")


class Archive(Files):
    """A .zip. Raises InputError for one that is none, for paths that leave its folder or clash, for links, for members
    with a password, and for more than MOST_UNPACKED bytes.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with _readable(path):
            if not stat.S_ISREG(path.stat().st_mode):
                raise InputError(f"{str(path)!r} is no file.", _COPY)
            self._zip = zipfile.ZipFile(path)
        members = [info for info in self._zip.infolist() if not _folder(info)]
        require([info.orig_filename for info in members], f"the bundle {str(path)!r}")
        for info in self._zip.infolist():
            self._require_plain(info)
        size = sum(info.file_size for info in members)
        if size > MOST_UNPACKED:
            raise InputError(
                f"the bundle {str(path)!r} would unpack to {human_bytes(size)}; {human_bytes(MOST_UNPACKED)} are read."
            )
        self.names = {info.filename: info.file_size for info in sorted(members, key=lambda one: one.filename)}
        self._members = {info.filename: info for info in members}

    def close(self) -> None:
        self._zip.close()

    def _require_plain(self, info: zipfile.ZipInfo) -> None:
        kind = stat.S_IFMT(info.external_attr >> UNIX)
        if info.flag_bits & ENCRYPTED:
            why = "has a password"
        elif kind not in (0, stat.S_IFDIR if _folder(info) else stat.S_IFREG):
            why = "is a link" if kind == stat.S_IFLNK else "is neither a file nor a folder"
        elif info.compress_type not in METHODS:
            why = f"is compressed by the method {info.compress_type}, which no bundle of mh-edge uses"
        elif not (_folder(info) and (why := fault(info.orig_filename.removesuffix("/")))):
            return
        raise InputError(f"the bundle {str(self.path)!r} holds {info.orig_filename!r}, which {why}.", _COPY)

    def _open(self, name: str) -> IO[bytes]:
        return self._zip.open(self._members[name])


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Files]:
    """The files of a bundle; bundle.json is among them. Raises InputError where there is none."""
    with contextlib.ExitStack() as stack:
        if not path.exists():
            raise InputError(f"there is no bundle {str(path)!r}.")
        if path.is_dir():
            if not (path / BUNDLE_FILE).exists():
                raise _none(path)  # before all that lies there is looked at: it may be the whole disk
            found: Files = Folder(path)
        else:
            found = stack.enter_context(contextlib.closing(Archive(path)))
        if BUNDLE_FILE not in found.names:
            raise _none(path, next((name for name in found.names if name.endswith(f"/{BUNDLE_FILE}")), None))
        yield found


def is_bundle(reference: str) -> bool:
    """Whether what a user named can be a bundle: a folder, or a .zip."""
    return Path(reference).is_dir() or Path(reference).suffix.lower() == ARCHIVE


_COPY = "A bundle holds plain files alone: ask for it once more."


def _folder(info: zipfile.ZipInfo) -> bool:
    """An entry that stands for a folder, as tools write them; nothing is made of it."""
    return info.orig_filename.endswith("/") and info.file_size == 0


def _none(path: Path, deeper: str | None = None) -> InputError:
    if deeper is not None:
        return InputError(
            f"{str(path)!r} has no {BUNDLE_FILE} at its top, but {deeper!r}.", "Pack what is in that folder."
        )
    return InputError(f"{str(path)!r} is no bundle: it holds no {BUNDLE_FILE}.", "mh-edge bundle writes one.")


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        said = f": {error}" if str(error) else "."
        raise InputError(f"the bundle {str(path)!r} cannot be read{said}", "Copy it once more.") from error
