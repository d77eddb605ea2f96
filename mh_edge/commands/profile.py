"""`mh-edge profile ARTIFACT...`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mh_edge.commands import profile_tables
from mh_edge.commands.command import TERMINAL, Command, Outcome
from mh_edge.commands.inviting import show_address
from mh_edge.commands.options import model_options, named_sizes

if TYPE_CHECKING:
    from rich.console import Console

    from mh_edge.profiling.browser import Offer


def device_settings(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, dict[str, str]]:
    """`DEVICE.KEY=VALUE` of a repeatable option -> {device: {key: value}}."""
    del context, parameter
    settings: dict[str, dict[str, str]] = {}
    for given in values:
        name, equals, value = given.partition("=")
        device, dot, key = name.partition(".")
        if not (equals and dot and device and key):
            raise click.BadParameter(f"{given!r} is not DEVICE.KEY=VALUE, such as cuda.device_id=1.")
        settings.setdefault(device, {})[key] = value
    return settings


@click.command(cls=Command, short_help="How fast files run, and where.")
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="NAME",
    help="Where to run; may be repeated. mh-edge devices lists the names; adb or adb:SERIAL is an Android device, "
    "browser or browser:BACKEND one that opens a page served here. Default: the plain CPU runtime of each file's "
    "format.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Threads of each runtime; 0 leaves the number to it.",
)
@click.option("--batch", type=click.IntRange(min=1), help="Batch size where it is free. Default: 1.")
@click.option("--sequence", type=click.IntRange(min=1), help="Every other free size. Default: 64.")
@click.option(
    "--dim", "dims", multiple=True, metavar="NAME=N", callback=named_sizes, help="One free size; may be repeated."
)
@click.option("--feeds", type=click.Path(path_type=Path), help=".npz of real inputs by name, in place of drawn ones.")
@click.option(
    "--runs", type=click.IntRange(min=5), help="Timed calls of each file on each device, in place of --seconds."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="How long each file is called on each device while it is timed.",
)
@click.option("--ops", is_flag=True, help="Time per operation, rule and head, too.")
@click.option("--allow-fallback", is_flag=True, help="Time what ran elsewhere, wholly or in part, and say so.")
@click.option(
    "--rtol",
    type=click.FloatRange(min=0),
    help="Allowed difference from the CPU, as a share of the largest number of each output. Default: 0.001; 0.03 where "
    "float16 is computed, 0.1 where scaled integers are.",
)
@click.option(
    "--baseline", type=click.Path(path_type=Path), metavar="MODEL", help="A .keras or .h5 file to time beside them."
)
@model_options
@click.option(
    "--device-option",
    "settings",
    multiple=True,
    metavar="DEVICE.KEY=VALUE",
    callback=device_settings,
    help="An option of a device's own, such as cuda.device_id=1; may be repeated.",
)
@click.option(
    "--benchmark-binary",
    type=click.Path(path_type=Path),
    help="For adb: TFLite's benchmark_model or onnxruntime_perf_test, built for the device.",
)
@click.option(
    "--benchmark-flag",
    "benchmark_flags",
    multiple=True,
    metavar="FLAG",
    help="Passed to that binary, such as --benchmark-flag=--use_gpu=true; may be repeated.",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    help="For browsers: where to serve the page, so that a phone can open it. "
    "Default: 127.0.0.1, for this machine alone.",
)
@click.option("--port", type=click.IntRange(0, 65535), help="For browsers: of that page. Default: a free one.")
@click.option(
    "--browser",
    "program",
    metavar="NAME",
    help="Open the page without a window, instead of waiting for a browser: chromium, or the path of one of its kin.",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="For browsers: how long to wait until one opens the page. Default: 300.",
)
@click.option("--html", type=click.Path(path_type=Path), help="Write a report with charts, one file, to this path.")
def profile(
    artifacts: tuple[Path, ...],
    devices: tuple[str, ...],
    threads: int,
    baseline: Path | None,
    custom_modules: tuple[str, ...],
    unsafe: bool,
    settings: Mapping[str, Mapping[str, str]],
    html: Path | None,
    host: str | None,
    port: int | None,
    program: str | None,
    wait: float | None,
    **options: Any,
) -> Outcome:
    """Time files on devices, after each has proven where it ran and that its numbers are right.

    Every ARTIFACT (.onnx, .tflite) is run on every device that takes its format, in turn, in one run. The first one is
    what the others are compared with; a difference inside the noise of the machine is not called one. What fell back
    to another device, or gave wrong numbers, is not timed.

    Exit code 5 when numbers are wrong, 6 when a device is not here or something fell back. Energy is not measured.
    """
    from mh_edge.runtimes import BASELINE, REFERENCES, SUFFIXES
    from mh_edge.runtimes.apart import begun

    # The process that runs first imports its runtime while this one imports what it needs itself.
    first = REFERENCES.get(SUFFIXES.get(artifacts[0].suffix.lower(), ""), REFERENCES["onnx"])[0]
    with begun(first):
        from mh_edge import profiling

        if html is not None:
            _require_target(html, artifacts, (baseline, options["feeds"], options["benchmark_binary"]))
        offered = {"host": host, "port": port, "program": program, "wait": wait}
        loading = {"import": ",".join(custom_modules)} | ({"unsafe": "1"} if unsafe else {})
        found = profiling.profile(
            artifacts,
            devices,
            threads=threads or None,
            baseline=baseline,
            settings=settings if baseline is None else {**settings, BASELINE: loading},
            offer=_offer({name: value for name, value in offered.items() if value is not None}, devices),
            on_step=click.get_current_context().obj,
            **options,
        )
    if html is not None:
        from mh_edge.profiling import report

        report.write(found, html)

    def show(console: Console) -> None:
        profile_tables.show(console, found)
        if html is not None:
            console.print(f"written: {html}")

    return Outcome(
        {"command": "profile"} | found.to_json(), show, found.exit_code, errors=profile_tables.failures(found)
    )


def _offer(asked: Mapping[str, Any], devices: Sequence[str]) -> Offer | None:
    """How the page is offered; None where no browser is named and no option is given that is for one."""
    from mh_edge.profiling.plan import is_browser

    if not asked and not any(map(is_browser, devices)):
        return None
    from mh_edge.profiling.browser import Offer

    return Offer(**asked, on_address=partial(show_address, *click.get_current_context().meta[TERMINAL]))


def _require_target(html: Path, artifacts: Sequence[Path], read: Sequence[Path | None]) -> None:
    """Raise UsageError where a report cannot be written there, or would replace what is read."""
    from mh_edge.artifact import manifest_path
    from mh_edge.profiling import report
    from mh_edge.runtimes.ort.contents import files_beside

    beside = [one for path in artifacts for one in (path, manifest_path(path), *files_beside(path))]
    report.check_target(html, [*beside, *(one for one in read if one is not None)])
