"""`linux-arm64`: boards such as a Raspberry Pi, with Python and one runtime; no mh-edge and no TensorFlow there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mh_edge.bundling.platform import Kit, Platform
from mh_edge.opsets import OLDEST_RUNTIME
from mh_edge.signature import Signature, Tensor

PACKAGES = {"onnx": "onnxruntime", "tflite": "ai-edge-litert"}
"""What pip installs for a format."""

STATES = """ A model that keeps states gets them from the call before; `model.reset()` begins a new
stream."""
"""A sentence of README.md."""


class LinuxArm64(Platform):
    """Both formats, as they are; the self-test and the sample read bundle.json and run in Python 3.9 and newer."""

    name = "linux-arm64"
    formats = ("onnx", "tflite")
    next_step = "Copy it to the device; README.md has the lines. `python selftest.py` runs here too."

    def finish(self, kit: Kit) -> Mapping[str, Mapping[str, Any]]:
        oldest = {
            member.name: OLDEST_RUNTIME[member.source.opset]
            for member in kit.members
            if member.source.opset in OLDEST_RUNTIME
        }
        kinds = {member.source.format for member in kit.members}
        newest = f">={max(oldest.values(), key=_numbers)}" if oldest else ""
        packages = [f'"{PACKAGES[kind]}{newest if kind == "onnx" else ""}"' for kind in PACKAGES if kind in kinds]
        first = kit.members[0].source
        kit.copy("selftest.py", "sample.py")
        kit.readme(
            name=kit.members[0].name,
            feeds=f"{{{', '.join(f'{one.name!r}: {one.name}' for one in given(first.signature))}}}",
            packages=" ".join(packages),
            states=STATES if any(member.source.signature.states for member in kit.members) else "",
        )
        return {name: {"onnxruntime": release} for name, release in oldest.items()}


def given(signature: Signature) -> list[Tensor]:
    """The inputs that a program gives; states come from the call before."""
    kept = {state.input for state in signature.states}
    return [one for one in signature.inputs if one.name not in kept]


def _numbers(release: str) -> list[int]:
    return [int(number) for number in release.split(".")]
