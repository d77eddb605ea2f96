"""`mh-edge upgrade OLD -o NEW.keras`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mh_edge.commands.command import Command, Outcome
from mh_edge.commands.options import model_options

if TYPE_CHECKING:
    from rich.console import Console


@click.command(cls=Command, short_help="Old .h5 file to .keras.")
@click.argument("old", type=click.Path(path_type=Path))
@click.option("-o", "--output", "new", type=click.Path(path_type=Path), required=True, help="The .keras file to write.")
@model_options
def upgrade(old: Path, new: Path, custom_modules: tuple[str, ...], unsafe: bool) -> Outcome:
    """Turn an old keras-multi-head .h5 file into a .keras file that Keras 3 opens.

    The new file holds layers of mh_edge.layers: `import mh_edge.layers` before keras.models.load_model, or open it with
    mh_edge.load_model.
    """
    from mh_edge import models

    click.get_current_context().obj("upgrading")
    models.upgrade(old, new, custom_modules=custom_modules, unsafe=unsafe)

    def show(console: Console) -> None:
        console.print(
            f"wrote {new}; `import mh_edge.layers` before Keras opens it, or use mh_edge.load_model", soft_wrap=True
        )

    return Outcome({"command": "upgrade", "model": str(old), "output": str(new)}, show)
