"""NVIDIA GPUs by ONNX Runtime's CUDA provider (onnxruntime-gpu: CUDA 13, cuDNN 9).

What is timed is a run on inputs and outputs that lie on the GPU, until the GPU is done with it; copies from and to the
host are not in it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mh_edge.arrayfiles import write_npz
from mh_edge.runtimes.base import Feeds
from mh_edge.runtimes.ort import nvidia
from mh_edge.runtimes.ort.binding import Binding
from mh_edge.runtimes.ort.placement import overheard
from mh_edge.runtimes.ort.session import OrtSession
from mh_edge.runtimes.ort.wheels import WHEELS
from mh_edge.runtimes.placement import OpTime
from mh_edge.signature import Signature

BLOCKING = "CUDA_LAUNCH_BLOCKING"
"""With "1" in the environment when a process begins, CUDA waits for each kernel. Else the profile tells how long it
took to order one, which is not how long it ran.
"""

COPIES = (
    "inputs and outputs lie on the GPU: the time has no copies from and to the host in it, and the memory is the host's"
)


class CudaSession(OrtSession):
    """An .onnx file on an NVIDIA GPU.

    settings: device_id (which GPU, "0"), use_tf32 ("1" lets products round their factors to 10 bits, as ONNX Runtime
    does where it is not told; "0" here), enable_cuda_graph ("1" records the kernels once for each shape and replays
    them), and the other options of the provider, as ONNX Runtime documents them.
    """

    device = "cuda"
    provider = "CUDAExecutionProvider"
    packages = ("onnxruntime-gpu", *WHEELS)
    extra = "cuda"
    takes: ClassVar[tuple[str, ...]] = (
        "device_id", "use_tf32", "enable_cuda_graph", "gpu_mem_limit", "arena_extend_strategy", "prefer_nhwc",
        "cudnn_conv_algo_search", "cudnn_conv_use_max_workspace", "cudnn_conv1d_pad_to_nc1d", "sdpa_kernel",
        "do_copy_in_default_stream", "enable_skip_layer_norm_strict_mode", "fuse_conv_bias", "tunable_op_enable",
        "tunable_op_tuning_enable",
    )  # fmt: skip
    memory: ClassVar[str] = "cuda"
    """Where inputs and outputs lie, as ONNX Runtime names it."""
    coarse: ClassVar[str] = "use_tf32"
    """The setting that, as "1", rounds to about the numbers of float16."""

    @classmethod
    def load(cls) -> str:
        number = super().load()
        import onnxruntime

        nvidia.require_gpu(int(str(onnxruntime.cuda_version).partition(".")[0]))
        nvidia.preload(onnxruntime)
        return number

    def _providers(self) -> list[tuple[str, dict[str, str]]]:
        return [(self.provider, {"device_id": "0", "use_tf32": "0"} | self.settings)]

    def _made(self, onnxruntime: Any, options: Any) -> Any:
        # Where the provider does not start, ONNX Runtime logs why and opens the file on the CPU.
        with overheard(repeat=True) as log:
            try:
                session = onnxruntime.InferenceSession(
                    str(self.path), options, providers=self._providers(), enable_fallback=0
                )
            except RuntimeError as error:  # what it has against the file has classes of its own
                raise nvidia.why(f"{log()}\n{error}") from error
            if self.provider not in session.get_providers():
                raise nvidia.why(log())
        return session

    def _open(self) -> Signature:
        self.notes = (COPIES,)
        self._graphs: dict[tuple[tuple[int, ...], ...], Binding] = {}
        signature = super()._open()
        if self.settings.get(self.coarse) == "1":
            self._rounds()
        return signature

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        if self.settings.get("enable_cuda_graph") != "1":
            return super()._run(feeds)
        bound = self._bound(feeds)
        bound.call()
        return bound.outputs()

    def _prepared(self, feeds: dict[str, np.ndarray]) -> Callable[[], object]:
        return self._bound(feeds).call

    def _fetched(self, result: Binding) -> list[np.ndarray]:
        return result.outputs()

    def _bound(self, feeds: dict[str, np.ndarray]) -> Binding:
        """The feeds on the device; with a graph, in the places of the last ones of these shapes."""
        self._fed = feeds
        where = self.memory, int(self.settings.get("device_id", "0"))
        shapes = tuple(array.shape for array in feeds.values())
        try:
            if self.settings.get("enable_cuda_graph") != "1":
                return Binding(self._onnxruntime, self._session, feeds, self.signature.outputs, *where)
            if shapes in self._graphs:
                self._graphs[shapes].refill(feeds)
            else:
                self._graphs[shapes] = Binding(
                    self._onnxruntime, self._session, feeds, self.signature.outputs, *where, str(len(self._graphs) + 1)
                )
            return self._graphs[shapes]
        except self._errors as error:
            raise self.refuse(error) from error

    def op_times(self, feeds: Feeds, calls: int) -> tuple[OpTime, ...]:
        """In a process of its own, in which CUDA waits for each kernel."""
        if os.environ.get(BLOCKING) == "1":
            return super().op_times(feeds, calls)
        from mh_edge.runtimes.apart import Apart

        os.environ[BLOCKING] = "1"  # this process has read it already
        try:
            with tempfile.TemporaryDirectory(prefix="mh-edge-") as folder, Apart(self.device) as session:
                file = Path(folder, "feeds.npz")
                write_npz(file, feeds)
                session.open(self.path, threads=self.threads, sizes=self.sizes, settings=self.settings)
                session.prepare(file)
                return session.op_times(calls)
        finally:
            del os.environ[BLOCKING]
