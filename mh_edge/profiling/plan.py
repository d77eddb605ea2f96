"""Which artifact is to be measured on which device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mh_edge.errors import InputError, UsageError
from mh_edge.runtimes import SUFFIXES, adapter, plain_device

ANDROID = "adb"
"""Devices behind adb: `adb`, or `adb:SERIAL`."""


@dataclass(frozen=True)
class Pair:
    """named: whether the device was asked for by name, so that its falling back is a failure."""

    artifact: Path
    device: str
    named: bool

    @property
    def kind(self) -> str:
        """The artifact's format."""
        return SUFFIXES[self.artifact.suffix.lower()]

    @property
    def android(self) -> bool:
        return is_android(self.device)


def is_android(device: str) -> bool:
    """Whether this names an Android device."""
    return device.partition(":")[0] == ANDROID


def pairs(artifacts: Sequence[Path], devices: Sequence[str]) -> tuple[Pair, ...]:
    """Every artifact on every device that takes its format; on the plain CPU runtime of its format where no device is
    named.

    Raises InputError for a file that is not there, UsageError for an unknown device, for a file that no device takes,
    and for a device that takes none of the files.
    """
    if not artifacts:
        raise UsageError("no artifact is given.", "Name one or more .onnx or .tflite files.")
    for path in artifacts:
        plain = plain_device(path)  # refuses other suffixes
        if not path.is_file():
            raise InputError(f"there is no file {str(path)!r}.")
        if not devices:
            adapter(plain)
    if not devices:
        return tuple(Pair(path, plain_device(path), False) for path in dict.fromkeys(artifacts))
    formats = {
        device: tuple(SUFFIXES.values()) if is_android(device) else adapter(device).formats for device in devices
    }
    found = tuple(
        Pair(path, device, True)
        for path in dict.fromkeys(artifacts)
        for device in dict.fromkeys(devices)
        if SUFFIXES[path.suffix.lower()] in formats[device]
    )
    for path in artifacts:
        if not any(pair.artifact == path for pair in found):
            raise UsageError(
                f"none of the devices {', '.join(devices)} takes {str(path)!r}.",
                f"The plain runtime of its format is --device {plain_device(path)}.",
            )
    for device in devices:
        if not any(pair.device == device for pair in found):
            takes = " and ".join(f".{kind}" for kind in formats[device])
            raise UsageError(f"the device {device!r} takes {takes} files, and none is given.")
    return found
