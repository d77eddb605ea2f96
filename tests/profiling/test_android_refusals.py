"""Android devices and benchmark binaries that cannot be used, and what is left on a device, against a FAKE adb and a
FAKE device (`fake_adb`).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mh_edge.errors import InputError, UnavailableError
from mh_edge.profiling import android
from mh_edge.profiling.result import Row
from profiling.fake_adb import Fake
from profiling.phones import CPU_TEXT

LIST = "List of devices attached\n"


@pytest.mark.parametrize(
    ("listed", "serial", "message", "hint"),
    [
        (LIST, None, "no Android device is connected", "USB debugging"),
        (LIST + "A1\tdevice\nB2\tdevice\n", None, "2 Android devices are connected: A1, B2.", "--device adb:A1"),
        (LIST + "A1\tunauthorized\n", None, "A1 cannot be used: adb calls it 'unauthorized'", "Allow USB debugging"),
        (LIST + "A1\toffline\n", None, "A1 cannot be used: adb calls it 'offline'", "adb reconnect offline"),
        (LIST + "A1\tno permissions (user in plugdev group; are your udev rules wrong?); see [http://x]\n", None,
         "A1 cannot be used: adb calls it 'no permissions'", "udev"),
        (LIST + "A1\trecovery\n", None, "adb calls it 'recovery'", "Start Android"),
        (LIST + "A1\tdevice\n", "B2", "no Android device 'B2' is connected.", "Connected are: A1"),
    ],
)  # fmt: skip
def test_which_device(
    fake: Fake, profiled: Callable[..., Row], listed: str, serial: str | None, message: str, hint: str
) -> None:
    fake.says(devices=listed)
    with pytest.raises(UnavailableError, match=re.escape(message)) as raised:
        profiled(serial=serial)
    assert hint in raised.value.hint
    assert raised.value.exit_code == 6


def test_the_one_that_is_ready(fake: Fake, profiled: Callable[..., Row], monkeypatch: pytest.MonkeyPatch) -> None:
    fake.says(devices=LIST + "A1\tunauthorized\nR58M\tdevice\n")
    assert profiled().device == "adb"
    fake.says(devices=LIST + "A1\tdevice\nR58M\tdevice\n")
    monkeypatch.setenv("ANDROID_SERIAL", "R58M")
    assert profiled().device == "adb"


def test_without_adb(profiled: Callable[..., Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="is not installed") as raised:
        profiled()
    assert raised.value.hint.startswith("apt install adb")


SH = "/system/bin/sh: /data/local/tmp/mh-edge-0/benchmark: "


@pytest.mark.parametrize(
    ("said", "code", "message", "hint"),
    [
        (SH + "not executable: 64-bit ELF file", 126, "another processor than the device's arm64-v8a", "for arm64-v8a"),
        (SH + "inaccessible or not found", 127, "it is not built for Android", "NDK for arm64-v8a"),
        ('CANNOT LINK EXECUTABLE "/data/local/tmp/mh-edge-0/benchmark": library "libonnxruntime.so" not found: needed '
         "by main executable", 1, 'library "libonnxruntime.so" not found', "Copy the library to /data/local/tmp"),
        (SH + "can't execute: Permission denied", 126, "the device does not allow it", "policy"),
        ("usage: toybox [--long]", 1, "ended with 1 on Pixel 8", "benchmark_model"),
        ("INFO: STARTING!\nERROR: Failed to allocate tensors!\nERROR: Benchmarking failed.", 1,
         "ERROR: Failed to allocate tensors! | ERROR: Benchmarking failed.", "only flags"),
        ("INFO: STARTING!", 139, "was ended by SIGSEGV", "only flags"),
        (CPU_TEXT.replace("79760.9", "nan"), 0, "printed no figures of benchmark_model", "only flags"),
    ],
)  # fmt: skip
def test_a_binary_that_does_not_run_there(
    fake: Fake, profiled: Callable[..., Row], said: str, code: int, message: str, hint: str
) -> None:
    fake.says(timed=said, code=code)
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        profiled()
    assert hint in raised.value.hint
    assert fake.left == []


def test_no_program(fake: Fake, profiled: Callable[..., Row], tmp_path: Path) -> None:
    (tmp_path / "my benchmark").write_text("#!/bin/sh\n")
    with pytest.raises(InputError, match="is no program for Android"):
        profiled()
    (tmp_path / "my benchmark").unlink()
    with pytest.raises(InputError, match="there is no benchmark binary"):
        profiled()
    assert fake.adb == []


def test_a_full_device(fake: Fake, profiled: Callable[..., Row]) -> None:
    fake.says(full=True)
    with pytest.raises(UnavailableError, match="No space left on device") as raised:
        profiled()
    assert raised.value.hint == "Make room in its /data/local/tmp."
    assert fake.left == []


def test_interrupting_leaves_nothing(fake: Fake, profiled: Callable[..., Row]) -> None:
    def interrupt(step: str, done: int | None = None, total: int | None = None) -> None:
        if done == 1:
            assert fake.left != []
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profiled(on_step=interrupt)
    assert fake.left == []
    assert "pkill -f '[m]h-edge-" in fake.adb[-2][3]


def test_a_run_without_end(fake: Fake, profiled: Callable[..., Row], monkeypatch: pytest.MonkeyPatch) -> None:
    fake.says(sleep=20)
    monkeypatch.setattr(android, "MOST_SECONDS", 0.2)
    monkeypatch.setattr(android, "SLACK_SECONDS", 0.2)
    with pytest.raises(UnavailableError, match="was not done after 0 s"):
        profiled()
    assert fake.left == []
    running = subprocess.run(["pgrep", "-f", f"{fake.root}/device"], capture_output=True, text=True, check=False)
    assert running.stdout == ""


def test_adb_that_fails(fake: Fake, profiled: Callable[..., Row]) -> None:
    (fake.path / "adb").write_text("#!/bin/sh\necho cannot connect to daemon >&2\nexit 1\n")
    with pytest.raises(UnavailableError, match="adb cannot list Android devices: cannot connect to daemon"):
        profiled()
