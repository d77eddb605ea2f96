"""WebGPU as a plugin of ONNX Runtime: GPUs through Vulkan, Metal or Direct3D."""

from __future__ import annotations

import os
import sys
import threading

import numpy as np

from mh_edge.errors import MhEdgeError
from mh_edge.runtimes import vulkan
from mh_edge.runtimes.base import Feeds
from mh_edge.runtimes.ort.plugin import PluginSession
from mh_edge.runtimes.placement import OpTime
from mh_edge.signature import Signature

SOFTWARE = "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"
"""The variable with which the plugin takes a software GPU. It then lists a device where there is no Vulkan, too."""

NO_ADAPTER = "Failed to get a WebGPU adapter"
"""What the plugin says where there is no GPU, from ONNX Runtime 1.32 on as one of its statuses."""

_one_at_a_time = threading.Lock()
"""All sessions of a process share one command encoder: two threads get wrong numbers from it, or crash."""


class WebGpuSession(PluginSession):
    """An .onnx file on a GPU through WebGPU. It tells no times of its operations: those in ONNX Runtime's profile are
    how long the CPU takes to hand them over.
    """

    device = "webgpu"
    provider = "WebGpuExecutionProvider"
    plugin = "onnxruntime-ep-webgpu"
    module = "onnxruntime_ep_webgpu"
    extra = "webgpu"

    @classmethod
    def _lacking(cls) -> tuple[str, str]:
        if not sys.platform.startswith("linux"):
            return "WebGPU finds no GPU", "Install the driver of the GPU."
        lacking = vulkan.why_none()
        if lacking is not None:
            return lacking
        names = ", ".join(gpu.name for gpu in vulkan.gpus())
        if os.environ.get(SOFTWARE) == "1":
            return f"WebGPU cannot use what Vulkan lists ({names})", vulkan.install_line()
        if vulkan.only_software():
            return f"there is only a software GPU ({names})", f"export {SOFTWARE}=1"
        return f"ONNX Runtime does not see the GPU that Vulkan lists ({names})", f"export {SOFTWARE}=1"

    def _open(self) -> Signature:
        signature = super()._open()
        self.notes = vulkan.notes()
        return signature

    def _unreadable(self, error: Exception) -> MhEdgeError:
        return self._unstarted(error) if NO_ADAPTER in str(error) else super()._unreadable(error)

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        with _one_at_a_time:
            return super()._run(feeds)

    def op_times(self, feeds: Feeds, calls: int) -> tuple[OpTime, ...]:
        del feeds, calls
        return ()
