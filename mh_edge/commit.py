"""Several files written as one: after a commit all of them are new, after anything else all of them are as they were.

    with staged(folder) as staging:
        with system_errors_named(folder):
            write(staging.path / "model.onnx"); write(staging.path / "model.onnx.json")
        staging.commit(["model.onnx", "model.onnx.json"])

Files are written in a hidden folder inside the target folder (the same file system, so that a rename moves them),
fsynced, and listed in a journal. Renaming the journal into place is the commit point. What follows (renames, removal
of files that nothing refers to any longer) can be repeated: whoever next looks into the folder and finds a journal
whose writer is dead finishes its work (`recover`), and discards what a dead writer staged without a journal. A writer
holds a lock on its staging folder for as long as it lives, so the kernel says who is dead; a second lock, on the
target folder, lets one at a time commit or recover.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mh_edge.errors import ConversionError, InputError

STAGING_PREFIX = ".mh-edge-staging-"
JOURNAL = "journal.json"
LOCK = "lock"


@dataclass(frozen=True)
class Staging:
    """A hidden folder to write files in until `commit` moves them to `target`."""

    path: Path
    target: Path

    def commit(self, names: Sequence[str], remove: Callable[[], Sequence[str]] = list) -> None:
        """Move the staged files `names` into the target folder, in this order, then delete the files `remove()` there.

        `remove` is asked once nobody else can commit, so that what it sees in the folder stays true.

        Raises ConversionError when something other than a file stands where one must go; nothing has been moved then.
        """
        with system_errors_named(self.target):
            for name in names:
                if (self.target / name).is_dir():
                    raise ConversionError(f"{str(self.target / name)!r} is a folder, so no file can be written there.")
                _fsync(self.path / name)
            _fsync(self.path)
            with _locked(self.target):
                _finish_dead(self.target)
                draft = self.path / f"{JOURNAL}.draft"
                draft.write_text(json.dumps({"move": list(names), "remove": list(remove())}), encoding="utf-8")
                _fsync(draft)
                os.replace(draft, self.path / JOURNAL)
                _fsync(self.path)
                _roll_forward(self.path)


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Staging]:
    """A Staging in `target`, which is created when it is missing; whatever was not committed is gone afterwards.

    Raises ConversionError when files cannot be written there, for whatever reason the system gives (no permission,
    disk full, a file where the folder should be).
    """
    with system_errors_named(target):
        created = _make_folders(target)
    try:
        with system_errors_named(target), _locked(target):
            _finish_dead(target)
            path = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=target))
            lock = _lock_file(path)
        try:
            yield Staging(path, target)
        finally:
            # A journal that is still there belongs to a commit that was interrupted half way: the next `recover`
            # finishes it.
            with _locked(target):
                if not (path / JOURNAL).exists():
                    shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
    finally:
        for folder in created:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only where nothing came into it


@contextlib.contextmanager
def system_errors_named(target: Path) -> Iterator[None]:
    """What the system says against writing in `target` (no permission, disk full) becomes a ConversionError."""
    try:
        yield
    except OSError as error:
        raise ConversionError(
            f"{str(target)!r} cannot be written: {error.strerror or error}.",
            "Make room or give write access, or choose another place with -o.",
        ) from error


def recover(folder: Path) -> None:
    """Finish what a killed writer had committed in `folder`, and discard what it had not; wait for one that is
    committing now.

    Called before artifacts in the folder are read or written. Costs one directory listing when there is nothing to do.
    Raises InputError when files of an interrupted writer cannot be put right (a folder that may not be written).
    """
    if not folder.is_dir() or not _stagings(folder):
        return
    try:
        with _locked(folder):
            _finish_dead(folder)
    except OSError as error:
        raise InputError(
            f"{str(folder)!r} holds an export that was interrupted and cannot be put right: {error.strerror}.",
            f"Make the folder writable, or delete its hidden {STAGING_PREFIX}* folders to give that export up.",
        ) from error


def _make_folders(target: Path) -> list[Path]:
    """Create `target` and its missing parents -> those created, innermost first."""
    if target.is_file():
        raise ConversionError(
            f"{str(target)!r} is a file, not a folder.",
            "Give a folder with -o, or a file name that ends in the format.",
        )
    missing = [folder for folder in (target, *target.parents) if not folder.exists()]
    target.mkdir(parents=True, exist_ok=True)
    return missing


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; the lock is on the folder itself, so it leaves no file behind."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock_file(staging: Path) -> int:
    """Hold the staging folder for as long as this process lives."""
    descriptor = os.open(staging / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _stagings(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{STAGING_PREFIX}*/"))


def _finish_dead(folder: Path) -> None:
    """Roll forward or discard the stagings of dead writers; the folder is locked."""
    for staging in _stagings(folder):
        if _is_alive(staging):
            continue
        if (staging / JOURNAL).exists():
            _roll_forward(staging)
        shutil.rmtree(staging)


def _is_alive(staging: Path) -> bool:
    """Whether its writer still holds the lock. Without a lock file it died while creating it, or while removing the
    folder.
    """
    try:
        descriptor = os.open(staging / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _roll_forward(staging: Path) -> None:
    """Do what the journal says, from wherever an earlier attempt got to."""
    journal = json.loads((staging / JOURNAL).read_text(encoding="utf-8"))
    target = staging.parent
    for name in journal["move"]:
        if (staging / name).exists():
            os.replace(staging / name, target / name)
    _fsync(target)
    for name in journal["remove"]:
        (target / name).unlink(missing_ok=True)
    (staging / JOURNAL).unlink()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
