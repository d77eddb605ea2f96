"""Exports that are killed, run as a program: python killed_exports.py FOLDER -> one JSON object of what was found
afterwards.

Each export runs in a forked child (the parent has imported everything and no thread runs, so this is quick and safe),
with a fake model, converters and proof. "step": the child kills itself before its k-th file operation in the folder,
for every k. "moment": the parent kills it at a random moment.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import fakes
from mh_edge.artifact import read_manifest
from mh_edge.commit import STAGING_PREFIX, recover
from mh_edge.exporting import export

FORMATS = ("onnx", "tflite")
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
MOMENTS = 60

# Further fields at the end of each file, which every reader skips or keeps: another file with the same meaning.
VARIANT = {"onnx": b"\x22\x03new", "tflite": b"\0\0\0\0"}


def write(folder: Path, fake: fakes.Fakes, version: str) -> None:
    fake.data = {f"{version}.data": version.encode()}
    fake.suffix = VARIANT if version == "new" else {}
    export("net.keras", folder, formats=FORMATS)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def in_child(action: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        action()
        os._exit(0)
    return child


def main(folder: Path) -> None:
    """Print what the folder held after each killed export: "old", "new" or "mixed"."""
    fake = fakes.install(pytest.MonkeyPatch())
    for version in ("old", "new"):
        write(folder / version, fake, version)
    known = {version: files(folder / version) for version in ("old", "new")}
    target = folder / "target"

    def reset() -> None:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder / "old", target)

    def outcome() -> str:
        recover(target)
        found = files(target)
        if any(path.name.startswith(STAGING_PREFIX) for path in target.iterdir()):
            return "leftovers"
        fresh = all(read_manifest(target / f"net.{kind}") is not None for kind in FORMATS)
        return next((name for name, content in known.items() if content == found and fresh), "mixed")

    def killing_itself(fatal: int) -> None:
        steps = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal steps
            if event in EVENTS and str(target) in str(arguments[0]):
                steps += 1
                if steps == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        write(target, fake, "new")

    found: dict[str, list[str]] = {"step": [], "moment": []}
    for fatal in range(1, 1000):
        reset()
        _, status = os.waitpid(in_child(lambda fatal=fatal: killing_itself(fatal)), 0)  # type: ignore[misc]
        found["step"].append(outcome())
        if status == 0:  # there is no such step any more
            break
    reset()
    started = time.monotonic()
    os.waitpid(in_child(lambda: write(target, fake, "new")), 0)
    whole = time.monotonic() - started
    rng = random.Random(0)  # noqa: S311 - moments, not secrets
    for _ in range(MOMENTS):
        reset()
        child = in_child(lambda: write(target, fake, "new"))
        time.sleep(rng.uniform(0, 1.2 * whole))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found["moment"].append(outcome())
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
