"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mh_edge.repeating import FAILURES

if TYPE_CHECKING:
    import numpy as np

Command = TypeVar("Command", bound=Callable[..., Any])


def model_options(command: Command) -> Command:
    """The options of commands that load a Keras model: `--import`, `--unsafe`."""
    for option in (
        click.option("--unsafe", is_flag=True, help="Load Lambda layers: they run code that the model file brings."),
        click.option(
            "--import",
            "custom_modules",
            multiple=True,
            metavar="PACKAGE.MODULE",
            help="Import this first, so that custom layers and rules register. May be repeated.",
        ),
    ):
        command = option(command)
    return command


def proof_options(command: Command) -> Command:
    """The options of commands that compare numbers: `--feeds`, `--atol`, `--rtol`, `--seed`, `--failures`."""
    for option in (
        click.option(
            "--failures",
            type=click.Path(path_type=Path),
            default=Path(FAILURES),
            show_default=True,
            help="Folder in which a feed that fails is saved.",
        ),
        click.option(
            "--seed",
            type=int,
            default=0,
            show_default=True,
            help="The generated feeds are drawn from it: the same number, the same feeds.",
        ),
        click.option(
            "--rtol", type=click.FloatRange(min=0), help="Allowed relative error, instead of the measured one."
        ),
        click.option(
            "--atol", type=click.FloatRange(min=0), help="Allowed absolute error, instead of the measured one."
        ),
        click.option(
            "--feeds", type=click.Path(path_type=Path), help=".npz of real inputs by name, added to the generated ones."
        ),
    ):
        command = option(command)
    return command


def named_sizes(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """`NAME=N` of a repeatable option -> {name: n}."""
    del context, parameter
    sizes = {}
    for value in values:
        name, equals, number = value.partition("=")
        if not equals or not name or not number.isdigit():
            raise click.BadParameter(f"{value!r} is not NAME=N, such as query_sequence=64.")
        sizes[name] = int(number)
    return sizes


def load_feeds(path: Path | None) -> Mapping[str, np.ndarray] | None:
    """The arrays of an `.npz` by name. Raises InputError when it is not there, or is not one."""
    if path is None:
        return None
    from mh_edge.arrayfiles import read_npz

    return read_npz(path)
