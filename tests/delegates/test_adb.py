"""Debian's real `adb`: what it says without a device, and what it does with one, which is a STAND-IN (`adbd`) for want
of a phone. The benchmark binary is one as well.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import adbd
import devices
import pytest

from mh_edge.errors import InputError, UnavailableError
from mh_edge.machine import SQUARE_ONNX, SQUARE_TFLITE
from mh_edge.profiling import android
from mh_edge.profiling.adb import phone
from mh_edge.profiling.result import Row
from profiling import printed
from profiling.fake_adb import Fake
from profiling.phones import X, case


@pytest.fixture(autouse=True)
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server of its own for adb, with keys of its own."""
    assert shutil.which("adb"), "apt install adb"
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free.getsockname()[1]))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    listed = subprocess.run(["adb", "devices"], check=True, capture_output=True, text=True).stdout
    if "\t" in listed:
        pytest.skip("a real device is connected: these tests are of adb without one")
    yield
    subprocess.run(["adb", "kill-server"], check=True, capture_output=True)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "m.tflite").write_bytes(SQUARE_TFLITE)
    (tmp_path / "m.onnx").write_bytes(SQUARE_ONNX)
    (tmp_path / "the 'binary'").write_bytes(android.MAGIC + bytes(3_000_000))
    return tmp_path


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    """A device to which the real adb is connected. adb: its serial number."""
    fake = Fake(tmp_path / "phone")
    fake.says(timed=printed.TFLITE.format(delegates=printed.XNNPACK, **printed.PERCENTILES), ops=printed.table())
    stand_in = (fake.root / "benchmark").read_text()
    real = (tmp_path / "the 'binary'").stat().st_size

    def arrived(path: Path) -> None:
        if path.name == "benchmark":
            assert path.stat().st_size == real
            path.write_text(stand_in)

    device = adbd.Device(lambda text: text.replace("/data/local/tmp", f"{fake.root}/device"), arrived)
    fake.serial = f"127.0.0.1:{device.port}"
    subprocess.run(["adb", "connect", fake.serial], check=True, capture_output=True)
    yield fake
    device.close()


def profile(files: Path, serial: str | None = None) -> Row:
    return android.profile_on_android(
        case(files / "m.tflite", {"x": X}, {}),
        serial,
        files / "the 'binary'",
        threads=1,
        runs=5,
        seconds=1.0,
        flags=('--benchmark_name=it\'s "a b" $HOME;',),
    )


def test_without_a_device(files: Path) -> None:
    with pytest.raises(UnavailableError, match="no Android device is connected"):
        profile(files)
    with pytest.raises(UnavailableError, match="no Android device 'R58M' is connected"):
        phone("R58M")


def test_the_program_without_a_device(files: Path) -> None:
    binary = "--benchmark-binary", files / "the 'binary'"
    code, answer = devices.program(
        "profile", files / "m.onnx", "--device", "adb", "--device", "cpu", *binary, "--runs", "5"
    )
    assert code == 6
    first, second = answer["results"]
    assert "no Android device is connected" in first["error"]["message"]
    assert second["error"] is None
    assert second["latency_ms"]["p50"] > 0


def test_with_a_device(files: Path, fake: Fake) -> None:
    (fake.root / "outputs").write_bytes((X * X).tobytes())
    row = profile(files, fake.serial)
    assert row.agreement is not None
    assert row.agreement.equal
    assert row.device == f"adb:{fake.serial}"
    assert row.latency is not None
    assert row.notes[0] == "measured on Stand-in (Android 15, arm64-v8a)"
    assert fake.benchmark[-1][-1] == '--benchmark_name=it\'s "a b" $HOME;'
    assert fake.left == []
    (fake.root / "outputs").unlink()
    row = profile(files)
    assert row.agreement is not None
    assert (row.device, row.agreement.equal, row.agreement.why) == ("adb", None, android.NOT_COMPARED)


def test_a_binary_that_ends_badly(files: Path, fake: Fake) -> None:
    fake.says(timed="ERROR: no such model", code=3)
    with pytest.raises(InputError, match=re.escape("ended with 3 on Stand-in (Android 15, arm64-v8a)")):
        profile(files)
    assert fake.left == []


def test_a_binary_that_does_not_end(files: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.says(sleep=60)
    monkeypatch.setattr(android, "MOST_SECONDS", 0.5)
    monkeypatch.setattr(android, "SLACK_SECONDS", 0.5)
    with pytest.raises(UnavailableError, match="was not done after 1 s"):
        profile(files)
    assert fake.left == []
    running = subprocess.run(["pgrep", "-f", str(fake.root / "device")], capture_output=True, text=True)
    assert running.stdout == ""
