"""NVIDIA GPUs by ONNX Runtime's TensorRT provider (onnxruntime-gpu and TensorRT 10). What TensorRT does not take
goes to the CUDA provider, and shows in the placement.
"""

from __future__ import annotations

import contextlib
import importlib

from mh_edge.runtimes.cuda import CudaSession


class TensorRtSession(CudaSession):
    """An .onnx file on an NVIDIA GPU, compiled by TensorRT when it is opened, and anew for sizes that it has not seen.

    settings: device_id, and the options trt_... of the provider, as ONNX Runtime documents them: trt_fp16_enable,
    trt_engine_cache_enable and trt_engine_cache_path (opening takes minutes without), trt_cuda_graph_enable,
    trt_profile_min_shapes, trt_profile_opt_shapes, trt_profile_max_shapes.
    """

    device = "tensorrt"
    provider = "TensorrtExecutionProvider"
    takes = (
        "device_id", "trt_fp16_enable", "trt_bf16_enable", "trt_int8_enable", "trt_engine_cache_enable",
        "trt_engine_cache_path", "trt_timing_cache_enable", "trt_timing_cache_path", "trt_builder_optimization_level",
        "trt_max_workspace_size", "trt_max_partition_iterations", "trt_min_subgraph_size", "trt_cuda_graph_enable",
        "trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes", "trt_op_types_to_exclude",
        "trt_layer_norm_fp32_fallback", "trt_sparsity_enable", "trt_auxiliary_streams",
    )  # fmt: skip
    fixed = True
    coarse = "trt_fp16_enable"

    @classmethod
    def load(cls) -> str:
        number = super().load()
        # Importing the wheel of TensorRT loads its libraries for ONNX Runtime too; they may also lie on the system.
        with contextlib.suppress(ImportError):
            importlib.import_module("tensorrt")
        return number

    def _providers(self) -> list[tuple[str, dict[str, str]]]:
        number = self.settings.get("device_id", "0")
        cuda = ("CUDAExecutionProvider", {"device_id": number, "use_tf32": "0"})
        return [(self.provider, {"device_id": number} | self.settings), cuda]
