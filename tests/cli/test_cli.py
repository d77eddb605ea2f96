"""What holds for every command: help, exit codes, one JSON object, errors as sentences, silence."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

import mh_edge
from mh_edge import cli, machine
from mh_edge.cli import COMMANDS
from mh_edge.commands import devices as devices_command
from mh_edge.commit import staged
from mh_edge.errors import ConversionError, InputError, MhEdgeError, NotEqualError, UnavailableError, UsageError
from mh_edge.jsontext import print_json

Runner = Callable[..., Any]

ROOT = Path(mh_edge.__file__).parents[1]


def test_help_lists_every_command(run: Runner) -> None:
    done = run("--help")
    assert done.code == 0
    for name in COMMANDS:
        assert f"\n  {name}" in done.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_the_common_options(run: Runner, command: str) -> None:
    done = run(command, "--help")
    assert done.code == 0
    for option in ("--json", "-q, --quiet", "-v, --verbose", "--debug"):
        assert option in done.out


def test_version(run: Runner) -> None:
    assert run("--version").out == f"mh-edge, version {mh_edge.__version__}\n"


def test_no_command_shows_help_and_is_wrong_usage(run: Runner) -> None:
    done = run()
    assert (done.code, done.out) == (2, "")
    assert "Commands:" in done.err


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["inspekt"], "No such command 'inspekt'"),
        (["inspect"], "Missing argument 'ARTIFACT'"),
        (["inspect", "a.onnx", "--colour"], "No such option '--colour'"),
        (["export", "m.keras", "--to", "coreml"], "'coreml' is not one of 'onnx', 'tflite'"),
        (["export", "m.keras", "--opset", "9"], "9 is not in the range 17<=x<=26"),
        (["export", "m.keras", "--batch", "0"], "0 is not in the range x>=1"),
        (["export", "m.keras", "--dim", "query_sequence"], "'query_sequence' is not NAME=N"),
        (["export", "m.keras", "--runtime", "abacus"], "'abacus' is not one of"),
        (["verify", "m.keras"], "no CANDIDATE is given"),
        (["upgrade", "old.h5"], "Missing option '-o' / '--output'"),
        (["devices", "abacus"], "device 'abacus' is not known"),
    ],
)
def test_wrong_usage_is_exit_code_2_in_words_and_in_json(run: Runner, args: list[str], sentence: str) -> None:
    done = run(*args)
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    done = run(*args, "--json")
    assert (done.code, done.err) == (2, "")
    assert done.json["error"].keys() == {"kind", "message", "hint"}
    assert done.json["error"]["kind"] == "usage"
    assert sentence in done.json["error"]["message"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError, 2), (InputError, 3), (ConversionError, 4), (NotEqualError, 5), (UnavailableError, 6)],
)
def test_each_kind_of_error_has_its_exit_code(
    run: Runner, monkeypatch: pytest.MonkeyPatch, error: type[MhEdgeError], code: int
) -> None:
    def fail(names: object, progress: object) -> None:
        raise error("what is wrong.", "what to do.")

    monkeypatch.setattr(machine, "devices", fail)
    done = run("devices")
    assert (done.code, done.out, done.err) == (code, "", "mh-edge: what is wrong.\nwhat to do.\n")
    done = run("devices", "--json")
    assert done.json == {"error": {"kind": error.kind, "message": "what is wrong.", "hint": "what to do."}}
    assert (done.code, done.err) == (code, "")
    assert "Traceback" in run("devices", "--debug").err


def test_a_fault_of_the_program_is_a_sentence_too(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "devices", lambda names, progress: {}["missing"])
    done = run("devices")
    assert done.code == 1
    assert done.err == "mh-edge: this is a fault in mh-edge: KeyError: 'missing'\n--debug shows where.\n"
    assert run("devices", "--json").json["error"]["kind"] == "error"
    assert "Traceback" in run("devices", "--debug").err


def test_ctrl_c(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(names: object, progress: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(machine, "devices", interrupted)
    assert (run("devices").code, run("devices").out) == (130, "")


@pytest.fixture
def noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that prints in every way a library can."""
    real = machine.devices

    def devices(names: tuple[str, ...], progress: object) -> machine.Devices:
        print("noise")
        print("noise", file=sys.stderr)
        os.write(1, b"noise")
        os.write(2, b"noise")
        warnings.warn("noise", stacklevel=1)
        click.get_current_context().obj("a step")
        return real(("cpu",))

    monkeypatch.setattr(machine, "devices", devices)


@pytest.mark.usefixtures("noisy")
def test_noise_of_libraries_reaches_nobody(run: Runner) -> None:
    done = run("devices", "--json")
    assert done.err == ""
    assert [device["name"] for device in done.json["devices"]] == ["cpu"]
    done = run("devices")
    assert done.err == ""
    assert "noise" not in done.out
    assert "onnxruntime" in done.out


@pytest.mark.usefixtures("noisy")
@pytest.mark.filterwarnings("ignore:noise")
def test_verbose_shows_the_noise_on_stderr_alone(run: Runner) -> None:
    done = run("devices", "--json", "--verbose")
    assert [device["name"] for device in done.json["devices"]] == ["cpu"]
    assert done.err.count("noise") >= 4
    assert "a step ...\n" in done.err


def test_progress_on_a_terminal_shows_the_step_and_no_noise() -> None:
    leader, follower = os.openpty()
    command = [sys.executable, "-c", PROGRESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower, cwd=ROOT) as process:
        os.close(follower)
        shown = read_all(leader)
        assert process.stdout is not None
        out = process.stdout.read()
    assert process.returncode == 0
    assert b"a step ..." in shown
    assert b"noise" not in shown + out


PROGRESS = """
import os, sys, click
from mh_edge import machine, cli
def devices(names, progress):
    click.get_current_context().obj("a step")
    print("noise"); print("noise", file=sys.stderr); os.write(1, b"noise"); os.write(2, b"noise")
    return machine.Devices(())
machine.devices = devices
sys.exit(cli.main(["devices"]))
"""


def read_all(descriptor: int) -> bytes:
    """Everything until the other side of a terminal is closed, which reads as an error."""
    parts = []
    try:
        while part := os.read(descriptor, 4096):
            parts.append(part)
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return b"".join(parts)


@pytest.mark.parametrize("args", [["devices", "cpu"], ["devices", "cpu", "--json"], ["--help"]])
def test_a_reader_that_went_away_is_no_fault(args: list[str]) -> None:
    """The reading end of the pipe is closed before anything is written: the command ends, and says nothing."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", f"import sys; from mh_edge.cli import main; sys.exit(main({args}))"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    os.close(writer)
    assert done.returncode != 0
    assert done.stderr == b""


def test_a_full_disk_under_the_output_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "square.onnx").write_bytes(machine.SQUARE_ONNX)
    args = ["inspect", str(tmp_path / "square.onnx"), "--json"]
    command = [sys.executable, "-c", f"import sys; from mh_edge.cli import main; sys.exit(main({args}))"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=ROOT, check=False, text=True)
    assert done.returncode == 3
    assert done.stderr.startswith("mh-edge: the output cannot be read or written: No space left on device.")
    assert "Traceback" not in done.stderr


def test_sigterm_cleans_up_like_an_exception(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def terminated(names: object, progress: object) -> None:
        with staged(tmp_path / "out") as staging:
            (staging.path / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(machine, "devices", terminated)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        run("devices")
    assert caught.value.code == 143
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_quiet_prints_nothing(run: Runner) -> None:
    done = run("devices", "cpu", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_a_device_that_does_not_work_is_exit_code_6(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("devices", "xnnpack").code == 0
    monkeypatch.setattr("mh_edge.runtimes.description.version", lambda name: None)
    done = run("devices", "xnnpack", "--json")
    assert done.code == 6
    assert done.json["devices"] == [
        {
            "name": "xnnpack",
            "available": False,
            "package": "ai-edge-litert",
            "version": None,
            "reason": "not installed",
            "fix": 'pip install "mh-edge[litert]"',
            "notes": [],
        }
    ]
    assert run("devices").code == 0  # the list of all is an answer, not a question


def test_a_command_is_listed_once_and_found_by_name() -> None:
    context = click.Context(cli.cli)
    assert cli.cli.get_command(context, "devices") is devices_command.devices
    assert cli.cli.get_command(context, "shared") is None


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("gone.onnx", None, "there is no file"),
        ("empty.onnx", b"", "is empty"),
        ("foreign.tflite", b"PK\x03\x04", "is not a TFLite file"),
        ("foreign.onnx", b"PK\x03\x04 a zip archive", "truncated or not an ONNX file"),
    ],
)
def test_inspect_of_bad_files_is_exit_code_3(
    run: Runner, tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = run("inspect", tmp_path / name)
    assert (done.code, done.out) == (3, "")
    assert sentence in done.err


def test_inspect_shows_signature_operations_and_size(run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "square.tflite"
    path.write_bytes(machine.SQUARE_TFLITE)
    done = run("inspect", path)
    assert done.code == 0
    for text in ("x: float32 (2)", "316 B", "1: MUL", "NOT VERIFIED"):
        assert text in done.out
    assert run("inspect", path, "--json").json["ops"] == {"MUL": 1}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_whole_on_every_terminal(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"artifact": os.fsdecode(b"\xff.onnx"), "unit": "\u00b5s", "ratio": "\u00d7"}
    with io.TextIOWrapper(io.BytesIO(), encoding=encoding) as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        print_json(data)
        written = stdout.buffer.getvalue().decode(encoding)
    assert json.loads(written) == data


def test_a_table_is_whole_on_every_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine.Devices((machine.Device("cpu", False, "onnxruntime", None, os.fsdecode(b"5 \xc2\xb5s \xff"), ""),))
    monkeypatch.setattr(machine, "devices", lambda names, progress: found)
    with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert cli.main(["devices"]) == 0
        assert rb"5 \xb5s \udcff" in stdout.buffer.getvalue()
