"""An Android device behind `adb`, the program of Android's platform-tools: which one, commands on it, files to it."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mh_edge.errors import UnavailableError

TEMPORARY = "/data/local/tmp"
"""The folder of a device in which adb's user may write and run programs."""

ANSWER_SECONDS = 30.0
"""How long adb may take for what takes no time; its server may have to start first."""

PUSHED_PER_SECOND = 500_000
"""Bytes, at least, that a device takes in a second: a slow wireless connection."""

MOST_PULLED = 120.0
"""Seconds that a file from a device may take."""

READY = "device"
"""The state of a device that can be used."""

STATES = {
    "unauthorized": "Unlock it and accept 'Allow USB debugging' on its screen; if it does not ask, `adb kill-server`.",
    "offline": "`adb reconnect offline`, or unplug it and plug it in again.",
    "no permissions": "`apt install android-sdk-platform-tools-common` (udev rules), join plugdev, and log in again.",
}
"""What `adb devices` says of a device that cannot be used, and what to do."""

_LISTED = re.compile(r"^(\S+)\s+(no permissions|\S+)")


@dataclass(frozen=True)
class Phone:
    """A device that answers. model, release, abi: its name, its Android's version, what its processor runs."""

    serial: str
    model: str
    release: str
    abi: str

    def __str__(self) -> str:
        return f"{self.model} (Android {self.release}, {self.abi})"

    def shell(self, command: str, seconds: float = ANSWER_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run a line of its shell; words of it that may hold blanks or quotes must be quoted."""
        return _adb("-s", self.serial, "shell", command, seconds=seconds)

    def push(self, source: Path, target: str) -> None:
        """Copy a file to it. Raises UnavailableError when it does not arrive."""
        seconds = ANSWER_SECONDS + source.stat().st_size / PUSHED_PER_SECOND
        done = _adb("-s", self.serial, "push", str(source.resolve()), target, seconds=seconds)
        if done.returncode:
            raise UnavailableError(f"{source} could not be copied to {self}: {_words(done)}.", _room(done))

    def pull(self, source: str, target: Path) -> bool:
        """Copy a file from it -> whether it was there."""
        return _adb("-s", self.serial, "pull", source, str(target), seconds=MOST_PULLED).returncode == 0

    @contextmanager
    def folder(self) -> Iterator[str]:
        """A new folder on it; afterwards it is removed, and what runs in it ended, whatever happened."""
        name = f"mh-edge-{secrets.token_hex(4)}"
        path = f"{TEMPORARY}/{name}"
        try:
            done = self.shell(f"mkdir {path}")
            if done.returncode:
                raise UnavailableError(f"no folder could be made on {self}: {_words(done)}.", _room(done))
            yield path
        except BaseException:
            with suppress(UnavailableError):
                # Interrupting adb does not end what it started. The shell that looks for it does not match: it is
                # called by the brackets.
                self.shell(f"pkill -f '[{name[0]}]{name[1:]}'")
            raise
        finally:
            with suppress(UnavailableError):  # a device that has gone
                self.shell(f"rm -rf {path}")


def phone(serial: str | None = None) -> Phone:
    """The device of that serial number; without one the only device there is, or the one that $ANDROID_SERIAL names.

    Raises UnavailableError, with what to do, where it cannot be used: adb is not installed, there is none, there are
    several, it did not allow this machine, it does not answer.
    """
    serial = serial or os.environ.get("ANDROID_SERIAL")
    listed = _devices()
    ready = [name for name, state in listed.items() if state == READY]
    if serial is None:
        if len(ready) > 1:
            raise UnavailableError(
                f"{len(ready)} Android devices are connected: {', '.join(ready)}.", f"Name one: --device adb:{ready[0]}"
            )
        serial = next(iter(ready or listed), None)
    if serial is None:
        raise UnavailableError(
            "no Android device is connected.",
            "Connect one with USB debugging switched on (Developer options), until `adb devices` lists it.",
        )
    if serial not in listed:
        raise UnavailableError(
            f"no Android device {serial!r} is connected.",
            f"Connected are: {', '.join(listed) or 'none'}; `adb connect HOST:PORT` reaches one by network.",
        )
    if listed[serial] != READY:
        hint = STATES.get(listed[serial], "Start Android on it, until `adb devices` lists it as 'device'.")
        raise UnavailableError(f"the Android device {serial} cannot be used: adb calls it {listed[serial]!r}.", hint)
    return _asked(serial)


def _asked(serial: str) -> Phone:
    names = ("ro.product.model", "ro.build.version.release", "ro.product.cpu.abi")
    done = _adb("-s", serial, "shell", "; ".join(f"getprop {name}" for name in names), seconds=ANSWER_SECONDS)
    lines = [line.strip() or "unknown" for line in done.stdout.splitlines()]
    if done.returncode or len(lines) != len(names):
        raise UnavailableError(
            f"the Android device {serial} does not answer: {_words(done)}.", "Unplug it and plug it in again."
        )
    return Phone(serial, *lines)


def _devices() -> dict[str, str]:
    """Serial number -> state, as `adb devices` lists them."""
    done = _adb("devices", seconds=ANSWER_SECONDS)
    if done.returncode:
        raise UnavailableError(f"adb cannot list Android devices: {_words(done)}.", "Try `adb kill-server` first.")
    lines = done.stdout.partition("List of devices attached")[2].splitlines()
    return {found[1]: found[2] for found in map(_LISTED.match, lines) if found}


def _adb(*arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    program = shutil.which("adb")
    if program is None:
        raise UnavailableError(
            "adb, the program that talks to Android devices, is not installed.",
            "apt install adb, or Google's platform-tools: https://developer.android.com/tools/releases/platform-tools",
        )
    try:
        return subprocess.run(  # noqa: S603 - no local shell; what the device's shell gets is quoted
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(
            f"`adb {shlex.join(arguments[:4])}` was not done after {seconds:.0f} s.",
            "Look whether the device is awake and asks something; `adb kill-server` starts adb anew.",
        ) from error
    except OSError as error:
        raise UnavailableError(f"{program} does not run: {error.strerror}.", "apt install adb") from error


def _words(done: subprocess.CompletedProcess[str]) -> str:
    """The last line that says something; adb tells how its server started before it tells what is wrong."""
    lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else f"exit code {done.returncode}"


def _room(done: subprocess.CompletedProcess[str]) -> str:
    full = "No space left" in done.stdout + done.stderr
    return f"Make room in its {TEMPORARY}." if full else "Look whether it is still connected: `adb devices`."
