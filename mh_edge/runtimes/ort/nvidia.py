"""What an NVIDIA device needs of the machine: the driver, a GPU, and the CUDA libraries; asked of themselves, because
`get_device()` says GPU without any of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
import sys
from typing import Any

from mh_edge.errors import UnavailableError

INSTALL = 'pip install "onnxruntime-gpu[cuda,cudnn]"'
"""The line that installs the CUDA libraries as wheels, where `preload_dlls` finds them."""

LIBRARIES = dict.fromkeys(("libnvinfer", "libnvonnxparser"), 'pip install "tensorrt-cu13>=10,<11"')
"""How the names of other libraries begin -> the line that installs them: ONNX Runtime 1.31 wants TensorRT 10."""

DRIVERS = {12: 525, 13: 580}
"""CUDA -> the oldest branch of the driver that runs it (CUDA Toolkit Release Notes, minor version compatibility)."""

NO_GPU = "in a container, start that with --gpus all"

NO_DEVICE = 100
"""CUDA_ERROR_NO_DEVICE of cuda.h."""

MISSING = re.compile(r"with error: (?:\S*/)?(?P<library>\S+\.(?:so[.\d]*|dll)): cannot open shared object file")
FAILURE = re.compile(r"CUDA failure \d+: (?P<words>.*?) ;")


def driver() -> Any:
    """The driver's own library. Raises OSError where there is none."""
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def require_gpu(built_for: int) -> None:
    """Raise UnavailableError unless the driver is there, runs the CUDA (major version) and finds a GPU."""
    oldest = f" {DRIVERS[built_for]} or newer" if built_for in DRIVERS else ""
    fix = f"install the NVIDIA driver{oldest}; {NO_GPU}"
    try:
        cuda = driver()
    except OSError as error:
        raise UnavailableError(f"there is no NVIDIA driver here ({error}).", fix) from error
    found, count = ctypes.c_int(), ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(found)) == 0 and found.value // 1000 < built_for:
        runs = f"{found.value // 1000}.{found.value % 1000 // 10}"
        raise UnavailableError(f"the NVIDIA driver runs CUDA {runs}, this onnxruntime wants {built_for}.", fix)
    code = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    if code not in (0, NO_DEVICE):
        raise UnavailableError(f"the NVIDIA driver does not start: CUDA error {code}.", "nvidia-smi says what it lacks")
    if code == NO_DEVICE or not count.value:
        raise UnavailableError("the NVIDIA driver finds no GPU.", f"nvidia-smi -L must list one; {NO_GPU}")


def preload(onnxruntime: Any) -> None:
    """Load the CUDA libraries that were installed as wheels; those that are not are said when a session wants them."""
    with contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()


def why(log: str) -> UnavailableError:
    """What ONNX Runtime logs and says of a provider that did not start -> the error."""
    if (missing := MISSING.search(log)) is not None:
        fix = next((line for start, line in LIBRARIES.items() if missing["library"].startswith(start)), INSTALL)
        return UnavailableError(f"the library {missing['library']} is missing.", fix)
    if (failure := FAILURE.search(log)) is not None:
        return UnavailableError(f"CUDA says: {failure['words']}.", "nvidia-smi shows what the driver knows of the GPU")
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return UnavailableError(f"ONNX Runtime did not start it: {lines[0] if lines else 'without a word'}", INSTALL)
