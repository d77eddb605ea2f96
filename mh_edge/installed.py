"""What installed packages bring: modules that they name in the entry point group `mh_edge.rules`, which register rules
and layers when they are imported.
"""

from __future__ import annotations

import functools
from importlib import metadata

from mh_edge.errors import InputError
from mh_edge.wording import said

ENTRY_POINTS = "mh_edge.rules"


@functools.cache
def load_installed() -> tuple[str, ...]:
    """Import all of them, once in a process -> a sentence for each that could not be imported, naming its package.

    One that is broken is no error here: most models need nothing of it. Who misses a layer or a rule tells the user.
    """
    broken = []
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        try:
            _load(entry)
        except InputError as error:
            broken.append(error.message)
    return tuple(broken)


def _load(entry: metadata.EntryPoint) -> None:
    package = entry.name if entry.dist is None else entry.dist.name
    try:
        entry.load()
    except (Exception, SystemExit) as error:  # somebody else's code: it may raise anything, or leave
        raise InputError(
            f"the installed package {package!r} brings rules in {entry.value!r}, which cannot be imported: "
            f"{type(error).__name__}: {said(error)}"
        ) from error
