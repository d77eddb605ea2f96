"""`mh-edge verify BUNDLE`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from mh_edge.bundling.archive import is_bundle
from mh_edge.commands import tables
from mh_edge.commands.command import Outcome
from mh_edge.commit import recover
from mh_edge.errors import UsageError
from mh_edge.runtimes.base import printable

if TYPE_CHECKING:
    from rich.console import Console

    from mh_edge.bundling.checking import Checked, Rerun


def verify_bundle(context: click.Context, reference: str) -> Outcome:
    """Check a bundle. Raises UsageError where the reference can be none, and for the options of candidates."""
    if not is_bundle(reference):
        raise UsageError(
            f"{reference!r} is no bundle, and no CANDIDATE is given to compare with it.",
            f"See {context.command_path} --help.",
        )
    for option in context.command.params:
        given = context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        if given and isinstance(option, click.Option) and option.name in context.params:
            raise UsageError(
                f"{option.opts[0]} is for a CANDIDATE, and a bundle has none.",
                "A bundle says itself what its numbers may differ by.",
            )
    from mh_edge.bundling.checking import check

    recover(Path(reference).absolute().parent)
    found = check(reference, on_step=context.obj)
    errors = [*_faults(found), *(_reason(one) for one in found.artifacts if not one.right)]
    return Outcome(found.to_json(), lambda console: show(console, found), found.exit_code, errors=errors)


def show(console: Console, found: Checked) -> None:
    """A line for each artifact; then each file that is not as listed, and why an artifact is not right."""
    console.print(f"bundle {found.bundle}" + (f" for {printable(found.platform)}" if found.platform else "") + "\n")
    if found.artifacts:
        rows = [_row(one) for one in found.artifacts]
        tables.show(console, ("model", "device", "golden cases", "", "worst error", "allowed", "where"), rows)
        console.print()
    for line in _faults(found):
        console.print(line)
    for one in found.artifacts:
        if one.reason:
            console.print(_reason(one))
    if found.files.as_listed:
        console.print(f"{found.files.checked} files, all as listed")
    else:
        console.print("NOT WHAT WAS BUNDLED: do not use it, get it again or bundle it anew")


WORDS = {True: "right", False: "WRONG", None: "NOT RUN"}


def _row(one: Rerun) -> tuple[str, ...]:
    cases = "" if one.cases is None else str(one.cases)
    first = (printable(one.path), one.device or "", cases, WORDS[one.right])
    worst = one.worst
    if worst is None:
        return (*first, "", "", "")
    index = list(worst.index) if worst.index else ""
    where = worst.why or f"{worst.output}{index} in {worst.case!r}"
    numbers = ("", "") if worst.why else (tables.number(worst.error), tables.number(worst.allowed))
    return (*first, *numbers, printable(where))


def _reason(one: Rerun) -> str:
    worst = "" if one.worst is None else str(one.worst)
    return printable(f"{one.path}: {one.reason or worst}{'' if not one.hint else f' {one.hint}'}")


def _faults(found: Checked) -> list[str]:
    files = found.files
    kinds = (("changed", files.changed), ("missing", files.missing), ("unlisted", files.unlisted))
    lines = [printable(f"{kind}: {name}") for kind, names in kinds for name in names]
    if found.platform is None:
        lines.append("nothing else was checked, for bundle.json says what the other files should be")
    return lines
