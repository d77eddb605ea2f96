"""`mh-edge bundle ARTIFACT... --platform NAME -o DIR`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mh_edge.commands import tables
from mh_edge.commands.command import Command, Outcome

if TYPE_CHECKING:
    from rich.console import Console

    from mh_edge.bundling import Bundle, Bundled


def platform_settings(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`KEY=VALUE` of a repeatable option -> {key: value}."""
    del context, parameter
    settings = {}
    for given in values:
        key, equals, value = given.partition("=")
        if not (equals and key and value):
            raise click.BadParameter(f"{given!r} is not KEY=VALUE, such as node_modules=web/node_modules.")
        settings[key] = value
    return settings


@click.command(cls=Command, short_help="What to copy to a device, with its own proof.")
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--platform", required=True, metavar="NAME", help="linux-arm64, android, web, mcu, ort-mobile or qnn.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="A folder, or a file that ends in .zip."
)
@click.option(
    "--feeds",
    type=click.Path(path_type=Path),
    help=".npz of real inputs by name: the first samples become golden cases, beside those that are drawn.",
)
@click.option(
    "--rtol",
    type=click.FloatRange(min=0),
    help="What a number may differ by on the device, as a share of the largest of its output. Default: 0.001; 0.03 "
    "where float16 is computed, 0.1 where scaled integers are.",
)
@click.option(
    "--platform-option",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    callback=platform_settings,
    help="An option of the platform's own; may be repeated. android: package, onnxruntime (a release); web: "
    "node_modules (a folder), backends (all or wasm); qnn: soc_model (a chip's number).",
)
def bundle(
    artifacts: tuple[Path, ...],
    platform: str,
    output: Path,
    feeds: Path | None,
    rtol: float | None,
    settings: Mapping[str, str],
) -> Outcome:
    """Pack files for a device, with golden inputs and outputs, a self-test that runs there, a sample, and the lines to
    type.

    Every ARTIFACT (.onnx, .tflite) is checked here before anything is written: what is placed in the bundle gives its
    golden numbers. A bundle at --output is replaced, anything else that is there stays. mh-edge verify checks a bundle
    again.
    """
    from mh_edge import bundling

    found = bundling.bundle(
        artifacts,
        platform,
        output,
        feeds=feeds,
        rtol=rtol,
        settings=settings,
        on_step=click.get_current_context().obj,
    )
    return Outcome({"command": "bundle"} | found.to_json(), lambda console: show(console, found))


def show(console: Console, found: Bundle) -> None:
    """A line for each artifact, the notes, and what to do next."""
    rows = [
        (
            one.path,
            tables.human_bytes(one.bytes),
            f"{one.cases}",
            f"right on {one.device}, {difference(one)}",
        )
        for one in found.artifacts
    ]
    tables.show(console, ("model", "size", "golden cases", "here"), rows)
    for note in found.notes:
        console.print(note)
    console.print(f"written: {found.path} ({found.files} files, {tables.human_bytes(found.bytes)}). {found.next_step}")


def difference(one: Bundled) -> str:
    """How far it is from its golden numbers: `error 1.2e-07, allowed 0.0061`."""
    worst = one.worst
    return f"error {worst.error:.1e}, allowed {worst.allowed:.1e}" if worst.error else "no difference"
