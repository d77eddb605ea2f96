"""CPUs by ONNX Runtime's XNNPACK provider, in a build of ONNX Runtime that has it (--use_xnnpack)."""

from __future__ import annotations

from typing import Any

from mh_edge.runtimes.ort.session import OrtSession


class XnnpackOrtSession(OrtSession):
    """An .onnx file on XNNPACK; it takes no settings. threads: of XNNPACK's own pool, beside which ONNX Runtime's gets
    one that does not spin, as its documentation advises.
    """

    device = "xnnpack-ort"
    provider = "XnnpackExecutionProvider"
    extra = "cpu"

    @classmethod
    def install(cls) -> str:
        return "build ONNX Runtime with --use_xnnpack (https://onnxruntime.ai/docs/build/eps.html#xnnpack)"

    def _options(self, onnxruntime: Any) -> Any:
        options = super()._options(onnxruntime)
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return options

    def _provider_options(self) -> dict[str, str]:
        return {} if self.threads is None else {"intra_op_num_threads": str(self.threads)}
