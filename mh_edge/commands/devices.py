"""`mh-edge devices [NAME...]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mh_edge.commands import tables
from mh_edge.commands.command import Command, Outcome
from mh_edge.errors import UnavailableError

if TYPE_CHECKING:
    from rich.console import Console


@click.command(cls=Command, short_help="What this machine can run.")
@click.argument("names", metavar="[NAME]...", nargs=-1)
def devices(names: tuple[str, ...]) -> Outcome:
    """Show what this machine can really run; each device must give the right answer to a one-node model.

    With NAMEs, only those are tried, and the exit code is 6 when one does not work.
    """
    from mh_edge import machine

    found = machine.devices(names, click.get_current_context().obj)

    def show(console: Console) -> None:
        rows = [
            (
                device.name,
                "works" if device.available else "no",
                f"{device.package} {device.version or ''}".strip(),
                "; ".join(filter(None, (device.reason, *device.notes))),
            )
            for device in found.devices
        ]
        tables.show(console, ("device", "", "package", "remark"), rows)
        mended: dict[str, list[str]] = {}
        for device in found.devices:
            if device.fix:
                mended.setdefault(device.fix, []).append(device.name)
        if mended:
            console.out("\nwhat would mend it", highlight=False)
        for fix, those in mended.items():
            console.out(f"  {', '.join(those)}:\n    {fix}", highlight=False)  # a line to be copied is not broken

    missing = bool(names) and not all(device.available for device in found.devices)
    return Outcome(found.to_json(), show, UnavailableError.exit_code if missing else 0)
