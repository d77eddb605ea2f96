"""What the user's own modules bring: custom layers for a file, or a function that makes a model.

The working directory is importable while they are imported and run, as it is for `python -m`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from mh_edge.errors import InputError, MhEdgeError
from mh_edge.wording import said

FUNCTION = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)")
"""`package.module:function`."""


def custom_objects(modules: Sequence[str]) -> dict[str, Any]:
    """The classes and functions that the modules define, by name. What they register with Keras is found by Keras
    itself.

    Raises InputError when a module cannot be imported.
    """
    imported = [_imported(name) for name in modules]
    return {
        name: value
        for module in imported
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_")
    }


def call(spec: str) -> Any:
    """What `package.module:function` returns, called without arguments.

    Raises InputError as `function`, and when it raises.
    """
    found = function(spec, "takes no arguments and returns a model")
    with blamed(f"{spec} raised"):
        return found()


def function(spec: str, purpose: str) -> Callable[..., Any]:
    """The function that `package.module:function` names. purpose: what it does, as it appears in the message.

    Raises InputError when it is not there, or is no function.
    """
    match = FUNCTION.fullmatch(spec)
    if match is None:
        raise InputError(f"{spec!r} does not name a function.", "Write it as package.module:function.")
    value: Any = _imported(match["module"])
    for part in match["name"].split("."):
        if not hasattr(value, part):
            raise InputError(
                f"{spec!r}: {match['module']!r} has no {match['name']!r}.", "Check the spelling of the function."
            )
        value = getattr(value, part)
    if not callable(value):
        raise InputError(
            f"{spec!r} is an object of type {type(value).__name__}, not a function.",
            f"Name a function that {purpose}.",
        )
    return value  # type: ignore[no-any-return]


def _imported(name: str) -> ModuleType:
    try:
        with blamed(f"importing {name!r} raised"):
            return importlib.import_module(name)
    except InputError as error:
        cause = error.__cause__
        if (
            isinstance(cause, ModuleNotFoundError)
            and cause.name is not None
            and f"{name}.".startswith(f"{cause.name}.")
        ):
            raise InputError(
                f"there is no module {name!r}: {cause.name!r} is not found.",
                "Run from the folder that holds it, or install its package.",
            ) from error
        raise


@contextlib.contextmanager
def blamed(what: str) -> Iterator[None]:
    """Whatever the user's code raises becomes an InputError that begins with `what`; the working directory is
    importable.
    """
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    except MhEdgeError:
        raise
    except (Exception, SystemExit) as error:  # the user's code: it may raise anything, or leave
        raise InputError(f"{what} {type(error).__name__}: {said(error)}", "Correct it, then run this again.") from error
    finally:
        sys.path.remove(folder)
