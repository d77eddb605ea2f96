"""What is known of a device before anything is opened on it: a built-in adapter is looked at here, that of an installed
package in a process of its own, since importing it may do anything.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from mh_edge.errors import MhEdgeError, UnavailableError, UsageError
from mh_edge.packages import version
from mh_edge.runtimes import BUILT_IN, adapter, announced_by
from mh_edge.runtimes.apart import Apart

if TYPE_CHECKING:
    from mh_edge.runtimes.base import Session

PATIENCE = 60.0
"""Seconds for the import of a module that is to import no runtime."""


@dataclass(frozen=True)
class Description:
    """See the attributes of Session. install: the line that installs what it needs."""

    device: str
    runtime: str
    formats: tuple[str, ...]
    packages: tuple[str, ...]
    plugin: str | None
    takes: tuple[str, ...]
    install: str

    @classmethod
    def of(cls, found: type[Session]) -> Self:
        return cls(
            found.device, found.runtime, found.formats, found.packages, found.plugin, found.takes, found.install()
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        lists: dict[str, Any] = {name: tuple(data[name]) for name in ("formats", "packages", "takes")}
        return cls(**data | lists)

    def brought_by(self) -> tuple[str, str | None]:
        """The distribution that brings it, and its version; None for one that is missing."""
        brings = next((name for name in self.packages if version(name) is not None), self.packages[0])
        if self.plugin is None or version(brings) is None:
            return brings, version(brings)
        return self.plugin, version(self.plugin)

    def missing(self) -> UnavailableError | None:
        """The error for a device whose package is not installed."""
        package, number = self.brought_by()
        if number is not None:
            return None
        return UnavailableError(
            f"the device {self.device!r} needs the package {package!r}, which is not installed.", self.install
        )


def _start(device: str) -> Apart:
    return Apart(device, early=False, patience=PATIENCE)


def described(device: str, start: Callable[[str], AbstractContextManager[Apart]] = _start) -> Description:
    """What is known of the device. start: its process.

    Raises UsageError for a name that is not known, UnavailableError, with the name of the package, for an adapter that
    cannot be imported or is none, or whose import ends the process or does not end.
    """
    if device in BUILT_IN:
        return Description.of(adapter(device))
    if not (package := announced_by(device)):
        adapter(device)  # raises
    try:
        with start(device) as session:
            return Description.from_json(session.describe())
    except UsageError:
        raise
    except MhEdgeError as error:
        raise UnavailableError(
            f"{error.message.rstrip('.')}; the package {package!r} brings it.",
            f"pip install --force-reinstall {package}",
        ) from error
