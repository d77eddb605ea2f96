"""Which wheel of ONNX Runtime is installed, and whether it is whole and holds what a device needs.

Every wheel below brings the same package `onnxruntime`: two of them overwrite each other's files, and `pip check` is
content. `get_available_providers()` names what a build was compiled with: it can prove no more than that something is
absent.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from types import ModuleType
from typing import Any

from mh_edge.errors import UnavailableError
from mh_edge.packages import pip_line, require, version
from mh_edge.runtimes.base import first_line

WHEELS = (
    "onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn",
    "onnxruntime-silicon", "onnxruntime-training", "onnxruntime-training-cpu", "onnxruntime-rocm",
    "onnxruntime-migraphx", "onnxruntime-azure", "ort-nightly", "ort-nightly-gpu",
)  # fmt: skip
"""Distributions that bring, or in some versions brought, the package `onnxruntime` itself."""

PACKAGE = "onnxruntime/__init__.py"


def wheels() -> tuple[str, ...]:
    """Those that are installed and bring the package: a plugin of the same name as an old wheel does not."""
    return tuple(name for name in WHEELS if version(name) is not None and _brings_the_package(name))


def _brings_the_package(distribution: str) -> bool:
    files = metadata.files(distribution)
    return files is None or any(file.as_posix() == PACKAGE for file in files)


def load(device: str, extra: str) -> ModuleType:
    """Import onnxruntime for a device.

    Raises UnavailableError, with the line that mends it, when it is not installed, when several wheels of it are, and
    when what is left of it cannot be imported.
    """
    found = wheels()
    if len(found) > 1:
        raise UnavailableError(
            f"{' and '.join(found)} are both installed and overwrite each other's files.", instead(found, extra)
        )
    try:
        onnxruntime = require("onnxruntime", extra, f"the device {device!r}")
    except ImportError as error:
        raise UnavailableError(
            f"onnxruntime cannot be imported: {first_line(error)}", f"{pip_line(extra)} --force-reinstall"
        ) from error
    if "InferenceSession" not in vars(onnxruntime):
        # A folder without its __init__.py, as uninstalling one of two wheels leaves it, imports without an error.
        raise UnavailableError(
            "what is installed of onnxruntime has no InferenceSession: files of it are missing.",
            f"{instead(found, extra)} --force-reinstall",
        )
    return onnxruntime


def instead(found: tuple[str, ...], extra: str) -> str:
    """The line that puts the wheel of an extra in the place of those that are installed."""
    return f"pip uninstall -y {' '.join(found)}; {pip_line(extra)}" if found else pip_line(extra)


def require_provider(onnxruntime: Any, provider: str, fix: Callable[[], str]) -> None:
    """Raise UnavailableError where the build has no such execution provider. fix: gives the line that mends it."""
    if provider not in onnxruntime.get_available_providers():
        brought = " and ".join(wheels()) or "onnxruntime"
        raise UnavailableError(f"{brought} {onnxruntime.__version__} is built without the {provider}.", fix())
