"""Apple's CPU, GPU and Neural Engine by ONNX Runtime's CoreML provider, which the wheels for macOS hold.

Written by ONNX Runtime's documentation of the provider; it has not run on a Mac.
"""

from __future__ import annotations

import sys

from mh_edge.runtimes.ort.session import OrtSession
from mh_edge.signature import Signature


class CoreMlSession(OrtSession):
    """An .onnx file on Core ML.

    settings, as ONNX Runtime documents them: ModelFormat ("MLProgram" here, which computes in the numbers of the file
    and needs macOS 12; "NeuralNetwork" rounds to float16 where it likes), MLComputeUnits ("ALL", "CPUOnly",
    "CPUAndNeuralEngine", "CPUAndGPU"), RequireStaticInputShapes, EnableOnSubgraphs, SpecializationStrategy,
    ProfileComputePlan, AllowLowPrecisionAccumulationOnGPU, ModelCacheDirectory.
    """

    device = "coreml"
    provider = "CoreMLExecutionProvider"
    extra = "cpu"
    takes = (
        "ModelFormat", "MLComputeUnits", "RequireStaticInputShapes", "EnableOnSubgraphs", "SpecializationStrategy",
        "ProfileComputePlan", "AllowLowPrecisionAccumulationOnGPU", "ModelCacheDirectory",
    )  # fmt: skip
    fixed = True

    @classmethod
    def install(cls) -> str:
        if sys.platform == "darwin":
            return super().install()
        return "profile it on a Mac; here, mh-edge inspect --delegates forecasts it"

    def _provider_options(self) -> dict[str, str]:
        return {"ModelFormat": "MLProgram"} | self.settings

    def _open(self) -> Signature:
        signature = super()._open()
        options = self._provider_options()
        if options["ModelFormat"] != "MLProgram" or options.get("AllowLowPrecisionAccumulationOnGPU") == "1":
            self._rounds()
        return signature
