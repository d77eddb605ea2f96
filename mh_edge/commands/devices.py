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

    With a NAME, only that one is tried, and the exit code is 6 when it does not work.
    """
    from mh_edge import machine

    found = machine.devices(names)

    def show(console: Console) -> None:
        rows = [
            (
                device.name,
                "works" if device.available else "does not work",
                f"{device.package} {device.version or ''}".rstrip(),
                device.reason,
                device.fix,
            )
            for device in found.devices
        ]
        tables.show(console, ("device", "", "package", "why not", "what to do"), rows)

    missing = bool(names) and not all(device.available for device in found.devices)
    return Outcome(found.to_json(), show, UnavailableError.exit_code if missing else 0)
