"""What every command is: four options more than its own, quiet while it works, one Outcome, printed in one place."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import click

from mh_edge.commands.noise import hushed
from mh_edge.jsontext import print_json
from mh_edge.progress import Progress, silent

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 120

TERMINAL = "mh_edge.terminal"
"""In `click.Context.meta`: what prints there meanwhile, say(text, style=""), and the stream."""

ENDING = (signal.SIGTERM, signal.SIGHUP)

COMMON_OPTIONS = (
    click.Option(
        ["--json", "as_json"], is_flag=True, help="Print one JSON object on stdout and nothing else, errors too."
    ),
    click.Option(["-q", "--quiet"], is_flag=True, help="Print nothing but errors."),
    click.Option(
        ["-v", "--verbose"],
        is_flag=True,
        help="Show each step, each choice of a form, and what TensorFlow and the runtimes print.",
    ),
    click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
)


@dataclass(frozen=True)
class Outcome:
    """What a command did. data: the object `--json` prints; show: prints it for people; exit_code: 0 unless a gate
    failed; explain: prints what `-v` adds. errors: lines that are printed where nothing else is (`-q`).
    """

    data: Mapping[str, Any]
    show: Callable[[Console], None]
    exit_code: int = 0
    explain: Callable[[Console], None] | None = None
    errors: Sequence[str] = ()


class Command(click.Command):
    """A command whose function returns an Outcome; invoking it prints that and gives the exit code.

    Within the function, `click.get_current_context().obj` is the Progress: call it with the name of each step.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += COMMON_OPTIONS

    def invoke(self, ctx: click.Context) -> int:
        os.environ["KERAS_BACKEND"] = "tensorflow"  # what is traced and converted, whatever the user trains with
        as_json, quiet, verbose, debug = (ctx.params.pop(str(option.name)) for option in COMMON_OPTIONS)
        with (
            _terminable(),
            hushed(verbose=verbose or debug) as terminal,
            _progress(terminal, quiet=quiet, verbose=verbose) as (progress, say),
        ):
            ctx.obj = progress
            ctx.meta[TERMINAL] = say, terminal
            outcome: Outcome = super().invoke(ctx)
        if as_json:
            print_json(outcome.data)
        elif quiet:
            for line in outcome.errors:
                print(line, file=sys.stderr)
        else:
            _any_character()
            outcome.show(console())
            if verbose and outcome.explain is not None:
                outcome.explain(console())
        return outcome.exit_code


def _any_character() -> None:
    """Characters that stdout does not know are shown as their numbers: nothing is lost because of them."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM and the end of the terminal end the command as an exception, so that what it staged is removed on the
    way.
    """

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        raise SystemExit(128 + number)

    previous = {one: signal.signal(one, end) for one in ENDING if signal.getsignal(one) != signal.SIG_IGN}  # nohup
    try:
        yield
    finally:
        for one, handler in previous.items():
            signal.signal(one, handler)


def console(stream: TextIO | None = None) -> Console:
    """Plain text in, plain text out; wide enough for a path when there is no terminal to measure."""
    from rich.console import Console

    stream = stream or sys.stdout
    width = None if stream.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


@contextlib.contextmanager
def _progress(terminal: TextIO, *, quiet: bool, verbose: bool) -> Iterator[tuple[Progress, Callable[..., None]]]:
    """A line that says what is being done and how far it is, where someone is there to see it; one line for each step
    when verbose. And what prints other lines above it.
    """
    if quiet or not (verbose or terminal.isatty()):
        yield silent, functools.partial(_said, terminal)
    elif verbose:
        yield functools.partial(_listed, terminal), functools.partial(_said, terminal)
    else:
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Line
        from rich.table import Column

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description} ..."),
            BarColumn(table_column=Column(ratio=1)),
            MofNCompleteColumn(),
        )
        # What took over stdout and stderr would put on the screen what `hushed` keeps from it.
        screen = console(terminal)
        plain = Line(*columns[:2], console=screen, transient=True, redirect_stdout=False, redirect_stderr=False)
        with plain as line:
            task = line.add_task("starting", total=None)

            def tell(step: str, done: int | None = None, total: int | None = None) -> None:
                line.columns = columns if total else columns[:2]
                line.update(task, description=step, completed=done or 0, total=total)

            yield tell, screen.out


def _said(terminal: TextIO, text: str, style: str = "") -> None:
    del style
    print(text, file=terminal, flush=True)


def _listed(terminal: TextIO, step: str, done: int | None = None, total: int | None = None) -> None:
    """Progress as a log: the steps, not what is counted in them."""
    del total
    if done is None:
        print(f"{step} ...", file=terminal)
