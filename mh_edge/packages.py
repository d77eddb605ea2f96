"""Which optional packages are installed, and the line that installs a missing one."""

from __future__ import annotations

import importlib
from importlib import metadata
from types import ModuleType

from mh_edge.errors import UnavailableError


def version(distribution: str) -> str | None:
    """The installed version of a distribution, without importing it; None when it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def versions(distributions: tuple[str, ...]) -> dict[str, str]:
    """Those of the distributions that are installed, with their versions."""
    found = {name: version(name) for name in distributions}
    return {name: number for name, number in found.items() if number is not None}


def pip_line(extra: str) -> str:
    """The line that installs one of this package's extras."""
    return f'pip install "mh-edge[{extra}]"'


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a module of an optional package.

    purpose: what needs it, as the subject of the sentence. Raises UnavailableError with the pip line when it is not
    installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the package is here and broken: say what it said
        message = f"{purpose} needs the package {error.name!r}, which is not installed."
        raise UnavailableError(message, pip_line(extra)) from error
