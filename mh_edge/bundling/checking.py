"""`check`: a bundle -> whether its files are those that were bundled, and whether its models give their golden numbers
here.

A bundle may come from anyone. Nothing in it is executed or imported: its models and golden arrays alone are read, as
copies in a folder of their own, by a runtime in a process of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from mh_edge.bundling import golden
from mh_edge.bundling.archive import Files, Unreadable, opened
from mh_edge.bundling.layout import BUNDLE_FILE
from mh_edge.bundling.platform import PLATFORMS, platform
from mh_edge.bundling.told import MOST_BYTES, Entry, Listed, Told, intact, parsed, told
from mh_edge.bundling.told import golden as golden_of
from mh_edge.commit import system_errors_named
from mh_edge.errors import InputError, NotEqualError, UnavailableError, UsageError
from mh_edge.progress import Progress, silent
from mh_edge.runtimes.ort.contents import locations


@dataclass(frozen=True)
class Rerun:
    """An artifact of a bundle, run here. device: of mh_edge.runtimes; None where there is none. right: whether it gave
    its golden numbers; None where it was not run. reason: why it was not, or what else is wrong; hint: what to do.
    """

    name: str
    path: str
    cases: int | None
    device: str | None
    right: bool | None
    worst: golden.Worst | None = None
    reason: str = ""
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "worst": None if self.worst is None else self.worst.to_json()}


@dataclass(frozen=True)
class Compared:
    """The files of a bundle beside what bundle.json lists. checked: how many were read. missing: listed and not there;
    unlisted: the other way round. Where bundle.json itself is changed, nothing else can be said.
    """

    checked: int
    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()

    @property
    def as_listed(self) -> bool:
        return not (self.changed or self.missing or self.unlisted)

    def to_json(self) -> dict[str, Any]:
        return {key: list(one) if isinstance(one, tuple) else one for key, one in vars(self).items()}


@dataclass(frozen=True)
class Checked:
    """The verdict on a bundle. platform: None where bundle.json is changed."""

    bundle: Path
    platform: str | None
    files: Compared
    artifacts: tuple[Rerun, ...] = ()

    @property
    def passed(self) -> bool:
        return self.exit_code == 0

    @property
    def exit_code(self) -> int:
        """Of the command line: 5 where a file or a number is not what it should be, 6 where that could not be found
        out here.
        """
        if not self.files.as_listed or any(one.right is False for one in self.artifacts):
            return NotEqualError.exit_code
        return 0 if all(one.right for one in self.artifacts) else UnavailableError.exit_code

    def to_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "bundle": str(self.bundle),
            "platform": self.platform,
            "files": self.files.to_json(),
            "artifacts": [one.to_json() for one in self.artifacts],
        }


def check(bundle: str | Path, *, on_step: Progress = silent) -> Checked:
    """Compare every file of a bundle (a folder, or a .zip) with the size and sha256 in its bundle.json, and run the
    golden cases of its artifacts on the device that its platform names.

    Raises InputError for what is no bundle: paths that leave it, links, values that bundle.json may not hold. Files and
    numbers that are not as they should be are no exception: see Checked.passed.
    """
    path = Path(bundle)
    with opened(path) as files, tempfile.TemporaryDirectory(prefix="mh-edge-") as temporary:
        on_step(f"reading {path}")
        content = _bundle_file(files)
        data = parsed(content, path)
        if not intact(data, content, path):
            return Checked(path, None, Compared(1, changed=(BUNDLE_FILE,)))
        found = told(data, path)
        folder = Path(temporary)
        compared = _compared(files, found, folder)
        reruns = []
        for entry in found.artifacts:
            on_step(f"running {entry.path}")
            reruns.append(_rerun(entry, found, compared, folder, path))
        return Checked(path, found.platform, compared, tuple(reruns))


def _bundle_file(files: Files) -> bytes:
    """Raises InputError for one that cannot be read, or is too large to be one."""
    content = bytearray()
    try:
        for piece in files.pieces(BUNDLE_FILE):
            content += piece
            if len(content) > MOST_BYTES:
                raise InputError(f"{BUNDLE_FILE} of {str(files.path)!r} has more than {MOST_BYTES} bytes.")
    except Unreadable as error:
        raise InputError(f"{BUNDLE_FILE} of {str(files.path)!r} cannot be read: {error}", "Copy it again.") from error
    return bytes(content)


def _compared(files: Files, found: Told, folder: Path) -> Compared:
    """Reads every listed file, and copies those that are run into `folder`."""
    missing = [name for name in found.files if name not in files.names]
    copied = {name for entry in found.artifacts for name in entry.needs}
    changed = []
    for name, listed in found.files.items():
        if name in files.names:
            copy = folder / name if name in copied else None
            if not _same(files, name, listed, copy):
                changed.append(name)
    unlisted = sorted(set(files.names) - set(found.files) - {BUNDLE_FILE})
    checked = len(found.files) - len(missing) + 1
    return Compared(checked, tuple(sorted(changed)), tuple(sorted(missing)), tuple(unlisted))


def _same(files: Files, name: str, listed: Listed, copy: Path | None) -> bool:
    """Whether size and sha256 are as listed; no more is read than that size, and copied where it is the same."""
    if files.names[name] != listed.bytes:
        return False
    hashed, size = hashlib.sha256(), 0
    try:
        with _copy(copy) as write:
            for piece in files.pieces(name):
                size += len(piece)
                if size > listed.bytes:
                    return False
                hashed.update(piece)
                write(piece)
    except Unreadable:
        return False
    return size == listed.bytes and hashed.hexdigest() == listed.sha256


@contextlib.contextmanager
def _copy(path: Path | None) -> Iterator[Callable[[bytes], object]]:
    """What writes to that file, or nowhere."""
    if path is None:
        yield lambda piece: None
        return
    with system_errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            yield file.write


def _rerun(entry: Entry, found: Told, compared: Compared, folder: Path, bundle: Path) -> Rerun:
    unlike = [name for name in entry.needs if name in compared.changed or name in compared.missing]
    if unlike:
        return Rerun(
            entry.name,
            entry.path,
            None,
            None,
            None,
            reason=f"not run, for {' and '.join(unlike)} {'is' if len(unlike) == 1 else 'are'} not as listed",
        )
    cases = golden_of(entry, (folder / entry.golden).read_bytes(), bundle)
    _require_inside(entry, folder, bundle)
    if found.platform not in PLATFORMS:
        reason = f"this mh-edge does not know the platform {found.platform!r}"
        return Rerun(entry.name, entry.path, len(cases.cases), None, None, reason=reason, hint="Upgrade mh-edge.")
    device = platform(found.platform).device(entry.format)
    told_so_far = Rerun(entry.name, entry.path, len(cases.cases), device, None)
    try:
        worst = golden.run(cases, folder / entry.path, device)
    except UnavailableError as error:
        return replace(told_so_far, reason=error.message, hint=error.hint)
    except (InputError, UsageError) as error:
        return replace(told_so_far, right=False, reason=str(error).replace(f"{folder}/", ""))
    return replace(told_so_far, right=worst.right, worst=worst)


def _require_inside(entry: Entry, folder: Path, bundle: Path) -> None:
    """Raise InputError where a model reads a file that is not listed as its own."""
    if not entry.path.lower().endswith(".onnx"):
        return
    try:
        outside = locations(folder / entry.path)
    except ValueError:
        return  # no protobuf, as the runtime will say
    for name in outside:
        if str(PurePosixPath(entry.path).parent / name) not in entry.data:
            raise InputError(
                f"{entry.path!r} in {str(bundle)!r} reads {name!r}, which is none of its files.",
                "Do not open it with another program either.",
            )
