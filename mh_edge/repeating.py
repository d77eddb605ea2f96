"""The command line that repeats a failed proof, with every option that was given."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

FAILURES = "mh-edge-failures"
"""Folder in which the commands save a feed that fails, unless they are told another."""


def proof_options(
    atol: float | None, rtol: float | None, seed: int, failures: object, custom_modules: Sequence[str], unsafe: bool
) -> dict[str, object]:
    """The options of a proof by flag; those that have their usual values as not given."""
    return {
        "--atol": atol,
        "--rtol": rtol,
        "--seed": seed or None,
        "--failures": None if str(failures) == FAILURES else failures,
        "--import": tuple(custom_modules),
        "--unsafe": unsafe,
    }


def command(*words: object, options: Mapping[str, object]) -> str:
    """One line for a shell. options: by flag; a value of None, False or () was not given, True is a flag alone, and
    each item of a tuple repeats the flag.
    """
    line = ["mh-edge", *map(str, words)]
    for flag, given in options.items():
        for value in given if isinstance(given, tuple) else (given,):
            if value is True:
                line.append(flag)
            elif value is not None and value is not False:
                line += [flag, str(value)]
    return shlex.join(line)
