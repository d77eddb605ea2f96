"""Opens a context binary on the Hexagon processor and runs it once, on zeros, and true for every boolean:
`python sample.py models/MODEL_ctx.onnx`. Put your own numbers there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import onnxruntime_qnn

NAME = onnxruntime_qnn.get_ep_name()
DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}


def opened(model: str | Path) -> onnxruntime.InferenceSession:
    """The session; an error where the processor does not run all of the model."""
    if not any(device.ep_name == NAME for device in onnxruntime.get_ep_devices()):
        onnxruntime.register_execution_provider_library(NAME, onnxruntime_qnn.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == NAME]
    if not devices:
        sys.exit("onnxruntime-qnn finds no device that it knows on this machine")
    npus = [device for device in devices if device.device.type == onnxruntime.OrtHardwareDeviceType.NPU]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices((npus or devices)[:1], {"backend_type": "htp", "htp_performance_mode": "burst"})
    return onnxruntime.InferenceSession(str(model), options, enable_fallback=0)


if __name__ == "__main__":
    session = opened(sys.argv[1])
    feeds = {}
    for one in session.get_inputs():
        dtype = DTYPES.get(one.type, one.type.removeprefix("tensor(").removesuffix(")"))
        feeds[one.name] = np.full(one.shape, dtype == "bool", dtype)
    for one, output in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        print(f"{one.name}: {output.dtype} {output.shape}, the first numbers are {output.ravel()[:4].tolist()}")
