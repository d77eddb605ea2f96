"""Android's Neural Networks API by ONNX Runtime's NNAPI provider, in a build of ONNX Runtime that has it.

Written by ONNX Runtime's documentation of the provider; it has not run on Android.
"""

from __future__ import annotations

from typing import Any

from mh_edge.runtimes.ort.session import OrtSession


class NnapiSession(OrtSession):
    """An .onnx file on NNAPI.

    settings: partitioning_stop_ops (operations after which nothing is given to NNAPI, such as "Softmax"). ONNX Runtime
    takes the flags of NNAPI in C and Java, not in Python.
    """

    device = "nnapi"
    provider = "NnapiExecutionProvider"
    extra = "cpu"
    takes = ("partitioning_stop_ops",)
    fixed = True

    @classmethod
    def install(cls) -> str:
        return "profile it on a phone: --device adb; here, mh-edge inspect --delegates forecasts it"

    def _options(self, onnxruntime: Any) -> Any:
        options = super()._options(onnxruntime)
        for name, value in self.settings.items():
            options.add_session_config_entry(f"ep.nnapi.{name}", value)
        return options

    def _provider_options(self) -> dict[str, str]:
        return {}
