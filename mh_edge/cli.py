"""The command line: `mh-edge COMMAND`. Nothing heavy is imported before a command runs.

Errors end here: an error is a sentence with its exit code, a JSON object where `--json` was asked for, and never a
traceback unless `--debug` was.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click

from mh_edge import __version__
from mh_edge.errors import InputError, MhEdgeError, UsageError
from mh_edge.jsontext import print_json

COMMANDS = ("export", "verify", "quantize", "profile", "bundle", "inspect", "devices", "upgrade")
"""Each is the function of that name in mh_edge/commands/<name>.py."""

SYSTEM_HINT = "Check its permissions, and the room that is left where it lies."

INTERRUPTED = 130
PIPE_CLOSED = 141
"""What shells report for programs that Ctrl-C, or the end of a pipe's reader, ended."""


class Commands(click.Group):
    """The group: a command's module is imported when the command is named, or listed by --help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = vars(importlib.import_module(f"mh_edge.commands.{cmd_name}"))[cmd_name]
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mh-edge")
def cli() -> None:
    """Turn trained Keras models into small ONNX and TFLite files that are proven to compute the same.

    Exit codes: 0 done; 2 wrong usage; 3 the input cannot be read; 4 conversion failed; 5 not equal; 6 not available
    here.
    """


def main(args: Sequence[str] | None = None) -> int:
    """Run one command line -> its exit code."""
    arguments = list(sys.argv[1:] if args is None else args)
    try:
        code = int(cli.main(arguments, "mh-edge", standalone_mode=False) or 0)
        sys.stdout.flush()
        return code
    except MhEdgeError as error:
        _report(error, arguments)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return UsageError.exit_code
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = f"See {context.command_path} --help." if context else ""
        _report(UsageError(error.format_message(), hint), arguments)
        return UsageError.exit_code
    except BrokenPipeError:
        _close_output()  # whoever read it has gone (`| head`)
        return PIPE_CLOSED
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        where = "the output" if error.filename is None else repr(error.filename)
        _report(InputError(f"{where} cannot be read or written: {error.strerror or error}.", SYSTEM_HINT), arguments)
        return InputError.exit_code
    except MemoryError as error:
        _report(InputError(f"there is not enough memory for this: {error}", "Ask for less at once."), arguments)
        return InputError.exit_code
    except Exception as error:  # noqa: BLE001 - the last place that can turn a fault into a sentence
        fault = MhEdgeError(f"this is a fault in mh-edge: {type(error).__name__}: {error}", "--debug shows where.")
        _report(fault, arguments)
        return fault.exit_code


def _close_output() -> None:
    """Nothing can be printed any more; what is still buffered must not be tried again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: MhEdgeError, arguments: Sequence[str]) -> None:
    """Say what is wrong and what to do. Called while the exception is being handled."""
    if "--debug" in arguments:
        traceback.print_exc()
    if "--json" in arguments:
        try:
            print_json({"error": {"kind": error.kind, "message": error.message, "hint": error.hint}})
            return
        except OSError:
            _close_output()
    print(f"mh-edge: {error.message}", file=sys.stderr)
    if error.hint:
        print(error.hint, file=sys.stderr)
