"""OpenVINO as a plugin of ONNX Runtime: Intel's CPUs, GPUs and NPUs (and other CPUs of that kind)."""

from __future__ import annotations

import json
from typing import Any

from mh_edge.errors import UnavailableError, UsageError
from mh_edge.runtimes.ort.plugin import PluginSession
from mh_edge.runtimes.ort.times import SUFFIX
from mh_edge.signature import Signature

PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
"""Setting `precision` -> OpenVINO's INFERENCE_PRECISION_HINT."""


class OpenVinoSession(PluginSession):
    """An .onnx file in OpenVINO.

    settings: device (CPU; GPU or NPU where OpenVINO lists them), precision (float32; bfloat16, float16): OpenVINO
    itself computes bfloat16 on CPUs that have it (about 0.3 % off), which no session option of ONNX Runtime changes.
    """

    device = "openvino"
    provider = "OpenVINOExecutionProvider"
    plugin = "onnxruntime-ep-openvino"
    module = "onnxruntime_ep_openvino"
    extra = "openvino"
    takes = ("device", "precision")

    def _device(self) -> Any:
        listed = {device.ep_metadata["ov_device"]: device for device in self._devices()}
        wanted = self.settings.get("device", "CPU")
        if wanted not in listed:
            raise UnavailableError(
                f"OpenVINO lists no device {wanted!r} on this machine.", f"It lists {', '.join(listed)}."
            )
        return listed[wanted]

    def _open(self) -> Signature:
        signature = super()._open()
        if self.precision == "float32" and self.settings.get("precision", "float32") != "float32":
            self.precision = "float16"
        return signature

    def _provider_options(self) -> dict[str, str]:
        # `num_of_threads` and `precision` among the plugin's own options are taken and change nothing.
        precision = self.settings.get("precision", "float32")
        if precision not in PRECISIONS:
            raise UsageError(f"OpenVINO computes in no {precision!r}.", f"precision is one of {', '.join(PRECISIONS)}.")
        hints: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": PRECISIONS[precision]}
        kind = self.settings.get("device", "CPU").partition(".")[0]
        if self.threads is not None and kind == "CPU":
            hints["INFERENCE_NUM_THREADS"] = self.threads
        return {"load_config": json.dumps({kind: hints})}

    def _unfused(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = []
        for event in events:
            name, arguments = event["name"], event.get("args", {})
            if event["cat"] == "Kernel" and arguments.get("ep") == self.provider:
                arguments = {"op_name": arguments["ov_node_type"], "provider": self.provider, "node_index": ""}
                found.append(event | {"cat": "Node", "name": name.removeprefix("OV::") + SUFFIX, "args": arguments})
            elif event["cat"] != "Node" or arguments.get("provider") != self.provider:
                found.append(event)
        return found
