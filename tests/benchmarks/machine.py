"""The machine that results were measured on, in one sentence: no host name, no path."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "numpy", "onnxruntime", "ai-edge-litert", "tensorflow", "keras", "tf2onnx", "onnx", "onnxslim", "openvino", "torch",
)  # fmt: skip


def described(packages: Sequence[str] = PACKAGES) -> str:
    """Processor, cores, Python and packages."""
    cores = len(os.sched_getaffinity(0))
    return f"{processor()}, {cores} cores, Python {platform.python_version()}, {_versions(packages)}."


def processor() -> str:
    """The model name of the CPU, its vector extensions, as Linux tells them."""
    fields = dict(
        (part.strip() for part in line.split(":", 1))
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if ":" in line
    )
    flags = set(fields.get("flags", "").split())
    widest = next((name for name in ("amx_tile", "avx512_vnni", "avx512f", "avx2") if name in flags), "")
    return " ".join(part for part in (fields.get("model name", platform.machine()), platform.machine(), widest) if part)


def _versions(packages: Sequence[str]) -> str:
    found = []
    for name in packages:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)
