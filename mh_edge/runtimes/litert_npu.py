"""LiteRT's path to Intel's NPUs, through OpenVINO: its own CPU stands in where there is no NPU."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

from mh_edge.errors import InputError, UnavailableError, UsageError
from mh_edge.packages import pip_line, require, version
from mh_edge.runtimes.lite.compiled import CompiledSession
from mh_edge.signature import Signature

PLUGIN = Path("vendors", "intel_openvino", "compiler", "libLiteRtCompilerPlugin_IntelOpenvino.so")
LIBRARY = re.compile(r"libopenvino\.so\.(\d\d)(\d)(\d)")

DEVICES = ("CPU", "GPU", "NPU")

SHARED = re.compile(
    r"Partitioned subgraph<0>, selected (\d+) ops, from a total of \d+ ops\. resulted in (\d+) partitions"
)
REFUSED = re.compile(r"op type (\d+) is not supported")
APPLIED = "1 compiler plugins were applied successfully"


class LiteRtNpuSession(CompiledSession):
    """A .tflite file in LiteRT's NPU accelerator, compiled by OpenVINO. Its sizes are fixed.

    settings: device (CPU; GPU or NPU where OpenVINO finds them). On a CPU that has bfloat16 OpenVINO computes in it
    here, which no option of LiteRT changes (asked for float32, its compiled file gives NaN).
    """

    device = "litert-npu"
    accelerator = "NPU"
    plugin = "openvino"
    extra = "litert-npu"
    arithmetic = "float16"
    takes = ("device",)
    others = "OpenVINO compiles none of a graph that it would have to take in several parts"

    @classmethod
    def load(cls) -> str:
        found = super().load()
        if version(cls.plugin) is None:
            raise UnavailableError(f"it needs the package {cls.plugin!r}, which is not installed", pip_line(cls.extra))
        package = Path(require("ai_edge_litert", cls.extra, f"the device {cls.device!r}").__path__[0])
        try:
            ctypes.CDLL(str(package / PLUGIN))
        except OSError as error:
            wanted = LIBRARY.search(str(error))
            fix = f'pip install "openvino==20{".".join(wanted.groups())}"' if wanted else pip_line(cls.extra)
            raise UnavailableError(f"LiteRT's part for OpenVINO does not load: {error}", fix) from error
        return found

    def _read_beside(self) -> None:
        super()._read_beside()
        for tensor in self._told.inputs:
            if any(isinstance(dim, str) for dim in tensor.shape):
                # It would take the file, at sizes of 1, and give too few numbers for any other.
                raise InputError(
                    f"LiteRT's NPU accelerator needs fixed sizes, and the input {tensor.name!r} of {self.path} has the "
                    f"free shape ({', '.join(map(str, tensor.shape))}).",
                    "Export it with --batch 1 and --sequence N (or --dim NAME=N).",
                )

    def _options(self) -> dict[str, Any]:
        device = self.settings.get("device", DEVICES[0])
        if device not in DEVICES:
            raise UsageError(f"OpenVINO has no device {device!r}.", f"device is one of {', '.join(DEVICES)}.")
        library = require("ai_edge_litert.intel_openvino_options", self.extra, f"the device {self.device!r}")
        backend = library.IntelOpenVinoGraphBackend[device]
        return {"intel_openvino_options": library.IntelOpenVinoOptions(graph_backend=backend)}

    def _open(self) -> Signature:
        signature = super()._open()
        if self.settings.get("device", DEVICES[0]) == "CPU":
            self.notes = ("OpenVINO's CPU instead of an NPU: its times say nothing about one",)
        if self.threads is not None:
            self.notes += ("LiteRT lets nobody set how many threads OpenVINO uses here",)
        return signature

    def _lacks(self, said: str) -> UnavailableError | None:
        device = self.settings.get("device", DEVICES[0])
        if device == "CPU" or SHARED.search(said) is None or APPLIED in said:
            return None
        return UnavailableError(f"OpenVINO finds no working {device} on this machine", "Install its driver.")

    def _shared_out(self, said: str) -> tuple[int, int, dict[str, str]]:
        shared = SHARED.search(said)
        names = {}
        if refused := {int(number) for number in REFUSED.findall(said)}:
            schema = require("ai_edge_litert.schema_py_generated", self.extra, f"the device {self.device!r}")
            names = {code: name for name, code in vars(schema.BuiltinOperator).items() if code in refused}
        reasons = dict.fromkeys(names.values(), "OpenVINO does not take it")
        if shared is None or APPLIED not in said:
            return 0, 0, reasons
        return int(shared[1]), int(shared[2]), reasons
