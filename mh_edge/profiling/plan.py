"""Which artifact is to be measured on which device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mh_edge.errors import InputError, UnavailableError, UsageError
from mh_edge.runtimes import SUFFIXES, plain_device
from mh_edge.runtimes.description import Description, described

ANDROID = "adb"
"""Devices behind adb: `adb`, or `adb:SERIAL`."""

BROWSER = "browser"
"""A browser: `browser` for all of its backends, or `browser:BACKEND`."""

BACKENDS = ("wasm", "wasm-threads", "webgpu", "webnn")
"""Of browsers."""


@dataclass(frozen=True)
class Pair:
    """named: whether the device was asked for by name, so that its falling back is a failure. broken: why nothing can
    run on the device: it is not installed, or the package that brings it fails.
    """

    artifact: Path
    device: str
    named: bool
    broken: UnavailableError | None = field(default=None, compare=False)

    @property
    def kind(self) -> str:
        """The artifact's format."""
        return SUFFIXES[self.artifact.suffix.lower()]

    @property
    def android(self) -> bool:
        return is_android(self.device)

    @property
    def browser(self) -> bool:
        return is_browser(self.device)

    @property
    def backend(self) -> str:
        """The browser's backend that was asked for by name; "" for all."""
        return self.device.partition(":")[2] if self.browser else ""

    @property
    def by_itself(self) -> bool:
        """Whether it is timed elsewhere, not in turn with others."""
        return self.android or self.browser


def is_android(device: str) -> bool:
    """Whether this names an Android device."""
    return device.partition(":")[0] == ANDROID


def is_browser(device: str) -> bool:
    """Whether this names a browser. Raises UsageError for a backend that none has."""
    name, colon, backend = device.partition(":")
    if name == BROWSER and colon and backend not in BACKENDS:
        raise UsageError(
            f"{device!r} names no backend of browsers.", f"Known are {', '.join(BACKENDS)}; {BROWSER} alone is all."
        )
    return name == BROWSER


def pairs(artifacts: Sequence[Path], devices: Sequence[str]) -> tuple[Pair, ...]:
    """Every artifact on every device that takes its format; on the plain CPU runtime of its format where no device is
    named.

    Raises InputError for a file that is not there, UsageError for an unknown device, for a file that no device takes,
    and for a device that takes none of the files.
    """
    if not artifacts:
        raise UsageError("no artifact is given.", "Name one or more .onnx or .tflite files.")
    plain = {path: plain_device(path) for path in artifacts}  # refuses other suffixes
    for path in artifacts:
        if not path.is_file():
            raise InputError(f"there is no file {str(path)!r}.")
    known = {device: _known(device) for device in dict.fromkeys(devices or plain.values())}
    broken = {device: found.missing() if isinstance(found, Description) else found for device, found in known.items()}
    if not devices:
        return tuple(Pair(path, device, False, broken[device]) for path, device in plain.items())
    formats = {
        device: found.formats if isinstance(found, Description) else tuple(SUFFIXES.values())
        for device, found in known.items()
    }
    found = tuple(
        Pair(path, device, True, broken[device])
        for path in plain
        for device in known
        if SUFFIXES[path.suffix.lower()] in formats[device]
    )
    for path in artifacts:
        if not any(pair.artifact == path for pair in found):
            raise UsageError(
                f"no device that is named ({', '.join(devices)}) takes {str(path)!r}.",
                f"The plain runtime of its format is --device {plain_device(path)}.",
            )
    for device in devices:
        if not any(pair.device == device for pair in found):
            takes = " and ".join(f".{kind}" for kind in formats[device])
            raise UsageError(f"the device {device!r} takes {takes} files, and none is given.")
    return found


def _known(device: str) -> Description | UnavailableError | None:
    """What is known of a device, or why nothing is; None for Android's and for browsers."""
    if is_android(device) or is_browser(device):
        return None
    try:
        return described(device)
    except UnavailableError as error:
        return error
