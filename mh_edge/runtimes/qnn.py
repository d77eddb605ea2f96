"""Qualcomm's Hexagon processors (HTP) as a plugin of ONNX Runtime; on other machines its simulator."""

from __future__ import annotations

import csv
import platform
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mh_edge.errors import InputError, UsageError
from mh_edge.runtimes.base import Feeds
from mh_edge.runtimes.ort.contents import compiled
from mh_edge.runtimes.ort.placement import recorded
from mh_edge.runtimes.ort.plugin import PluginSession
from mh_edge.runtimes.ort.times import SUFFIX
from mh_edge.runtimes.placement import OpTime
from mh_edge.signature import Signature

SOC_MODEL = "57"
"""Snapdragon 8 Gen 3 (SM8650, Hexagon v75). Without a number the plugin means an old one without float16, for which a
Where or CumSum fails the whole file.
"""

FAILED = re.compile(r"Validation FAILED for \d+ nodes in OrtNodeUnit .*\n((?:\tOperator type: .*\n)+)\tREASON : (.+)")
AGAIN = re.compile(r"(?<=\.)\S+ node .* will not be assigned to QNN EP\.$")
NODE = re.compile(r"Node name: (.*) Node index: \d+")
CYCLES = re.compile(r"(?:(.*):)?(?:(\w+) )?OpId_\d+ \(cycles\)")
"""A line of the processor's own profile: "dense/MatMul:OpId_203 (cycles)", "Input OpId_2 (cycles)", "OpId_251 ..."."""


class QnnSession(PluginSession):
    """An .onnx file with fixed sizes on a Hexagon processor, which rounds float32 to float16.

    settings: soc_model (57), Qualcomm's number of the chip; a file that QNN compiled says its own. context: a new file,
    into which QNN compiles this one, with weights and all (an .onnx file of EPContext nodes).
    """

    device = "qnn"
    provider = "QNNExecutionProvider"
    plugin = "onnxruntime-qnn"
    module = "onnxruntime_qnn"
    extra = "qnn"
    arithmetic = "float16"
    takes = ("soc_model", "context")
    fixed = True
    _cycles: Path | None = None
    """Where the processor is to write its profile."""

    def _options(self, onnxruntime: Any) -> Any:
        options = super()._options(onnxruntime)
        context = self.settings.get("context")
        if context is not None and not Path(context).exists():  # it is opened once more to ask for reasons
            options.add_session_config_entry("ep.context_enable", "1")
            options.add_session_config_entry("ep.context_file_path", context)
            options.add_session_config_entry("ep.context_embed_mode", "1")
            # Where the weights lie, for a model that is given as its content.
            folder = str(self.path.resolve().parent)
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        return options

    def _model(self) -> str | bytes:
        # The names in what QNN compiles are made of the path of the file, where it is given as one.
        return self.path.read_bytes() if "context" in self.settings else super()._model()

    def _provider_options(self) -> dict[str, str]:
        model = self.settings.get("soc_model", SOC_MODEL)
        if not model.isdecimal():
            raise UsageError(f"soc_model is {model!r}, which is no number.", "57 is a Snapdragon 8 Gen 3.")
        options = {"backend_type": "htp"}
        if "soc_model" in self.settings or not compiled(self.path):
            options["soc_model"] = model
        if "context" in self.settings:  # else the CPU keeps what makes integers of inputs, and floats of outputs
            options["offload_graph_io_quantization"] = "0"
        if self._cycles is not None:
            options |= {"profiling_level": "detailed", "profiling_file_path": str(self._cycles)}
        return options

    def _open(self) -> Signature:
        signature = super()._open()
        if free := signature.free_dims():
            raise InputError(
                f"{self.path} leaves {' and '.join(free)} free, and QNN needs every size.",
                "Fix them: mh-edge profile --batch 1 --sequence N, or the same with mh-edge export.",
            )
        if platform.machine() in ("x86_64", "AMD64"):
            self.notes = ("Qualcomm's simulator on this computer: its times say nothing about a phone",)
        return signature

    def _heard(self, log: str) -> dict[str, str]:
        return {
            node: AGAIN.sub("", reason.strip()) for block, reason in FAILED.findall(log) for node in NODE.findall(block)
        }

    def op_times(self, feeds: Feeds, calls: int) -> tuple[OpTime, ...]:
        with tempfile.TemporaryDirectory(prefix="mh-edge-") as folder:
            self._cycles = Path(folder, "cycles.csv")
            try:
                return super().op_times(feeds, calls)
            finally:
                self._cycles = None

    def _unfused(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The time of each part that QNN runs, divided by the cycles of what is in it."""
        ops = {node.name: node.op for node in recorded(self._session) or () if node.name}
        parts = self._parts()
        found = []
        for event in events:
            if event["cat"] != "Node" or event["args"]["provider"] != self.provider:
                found.append(event)
                continue
            cycles = next(parts, {})
            for name, own in cycles.items():
                known = max((node for node in ops if name.startswith(node)), key=len, default="")
                arguments = {"op_name": ops.get(known, name), "provider": self.provider, "node_index": ""}
                lasted = int(event["dur"]) * own / max(1, sum(cycles.values()))
                found.append(event | {"name": name + SUFFIX, "dur": lasted, "args": arguments})
        return found

    def _parts(self) -> Iterator[dict[str, int]]:
        """Name of a node -> cycles, for each run of each part."""
        part: dict[str, int] = {}
        with open(str(self._cycles), newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["Message"] == "EXECUTE":
                    yield part
                    part = {}
                elif row["Message"] == "NODE" and (match := CYCLES.fullmatch(row["Event Identifier"])) is not None:
                    name = match[1] or match[2] or ""
                    part[name] = part.get(name, 0) + int(row["Time"])
