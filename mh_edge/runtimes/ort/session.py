"""What all devices of ONNX Runtime share: options, types, errors; where nodes went and how long they take."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mh_edge.artifact import read_manifest
from mh_edge.errors import InputError, MhEdgeError
from mh_edge.packages import require
from mh_edge.runtimes.base import PRECISIONS, Feeds, Session, first_line
from mh_edge.runtimes.ort import wheels
from mh_edge.runtimes.ort.contents import precision
from mh_edge.runtimes.ort.hints import hints
from mh_edge.runtimes.ort.placement import (
    PROOF,
    RECORD,
    Assigned,
    edges_of,
    overheard,
    placed,
    reasons_in,
    recorded,
)
from mh_edge.runtimes.ort.times import op_times, rules_of
from mh_edge.runtimes.placement import OpTime, Placement
from mh_edge.signature import Dim, Signature, Tensor

# ONNX Runtime names types like C++; strings, sequences and maps have no numpy array to compare.
DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}

SEVERITY_VERBOSE, SEVERITY_WARNING = 0, 2
SEVERITY_FATAL = 4  # what goes wrong comes back as an exception; ONNX Runtime need not print it as well

WARM_CALLS = 3
"""Calls that are not counted among the times of operations: memory is asked for in the first ones."""


def failures() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a file or inputs that it cannot take: each status is a class with no base of their
    own. Names of a damaged file may be no text.
    """
    state = require("onnxruntime.capi.onnxruntime_pybind11_state", "cpu", "ONNX Runtime")
    return (
        state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoModel, state.NoSuchFile,
        state.NotImplemented, state.RuntimeException, state.EPFail, state.ModelRequiresCompilation, UnicodeDecodeError,
    )  # fmt: skip


class OrtSession(Session):
    """An .onnx file in ONNX Runtime with one execution provider and the session options that its manifest asks for.

    A device is a subclass with the names below; it overrides `_options` and `_made` where it needs more than that.
    """

    provider: ClassVar[str]
    """ONNX Runtime's name of the execution provider, "CPUExecutionProvider"."""
    fixed: ClassVar[bool] = False
    """Whether it wants free sizes fixed before it opens the file, where they are known."""

    runtime = "ONNX Runtime"
    packages: ClassVar[tuple[str, ...]] = wheels.WHEELS
    formats = ("onnx",)

    @classmethod
    def load(cls) -> str:
        onnxruntime = wheels.load(cls.device, cls.extra)
        if cls.plugin is None:
            wheels.require_provider(onnxruntime, cls.provider, cls.install)
        return str(onnxruntime.__version__)

    @classmethod
    def install(cls) -> str:
        return super().install() if cls.plugin is not None else wheels.instead(wheels.wheels(), cls.extra)

    def _read_beside(self) -> None:
        self.precision = max(self.precision, precision(self.path), key=PRECISIONS.index)
        manifest = read_manifest(self.path)
        self._hints = {} if manifest is None else manifest.session_options

    def _options(self, onnxruntime: Any) -> Any:
        """The session options; devices add theirs."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = SEVERITY_FATAL
        options.add_session_config_entry(RECORD, "1")
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        for key, value in hints(self._hints).items():
            options.add_session_config_entry(key, value)
        if self.fixed:
            for name, size in self.sizes.items():
                options.add_free_dimension_override_by_name(name, size)
        return options

    def _made(self, onnxruntime: Any, options: Any) -> Any:
        """The InferenceSession on the device. ONNX Runtime must not make another one where this fails."""
        providers = [(self.provider, self._provider_options())]
        return onnxruntime.InferenceSession(str(self.path), options, providers=providers, enable_fallback=0)

    def _provider_options(self) -> dict[str, str]:
        """Those of the execution provider, from the settings."""
        return self.settings

    def _open(self) -> Signature:
        self._onnxruntime = require("onnxruntime", self.extra, f"running {self.path}")
        self._errors = failures()
        self._fed: Mapping[str, np.ndarray] = {}
        try:
            self._session = self._made(self._onnxruntime, self._options(self._onnxruntime))
            inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
            signature = Signature(tuple(map(self._tensor, inputs)), tuple(map(self._tensor, outputs)))
        except self._errors as error:
            raise self._unreadable(error) from error
        if any(tensor.dtype == "float16" for tensor in signature.inputs + signature.outputs):
            self._rounds()
        return signature

    def _rounds(self) -> None:
        """Say that it computes in float16, or in numbers as coarse, if in no coarser ones."""
        self.precision = max(self.precision, "float16", key=PRECISIONS.index)

    def _unreadable(self, error: Exception) -> MhEdgeError:
        """What to raise for an error of ONNX Runtime while it opened the file."""
        return InputError(
            f"ONNX Runtime {self._onnxruntime.__version__} cannot open {self.path}: {first_line(error)}",
            "Check that the file is whole and that its opset and operators are known to this ONNX Runtime.",
        )

    def _tensor(self, item: object) -> Tensor:
        name, kind, shape = item.name, item.type, item.shape  # type: ignore[attr-defined]
        if kind not in DTYPES:
            raise InputError(
                f"{name!r} of {self.path} has the type {kind}.", "Only tensors of numbers and booleans can be compared."
            )

        def dim(axis: int, size: int | str | None) -> Dim:
            return f"{name}_dim_{axis}" if size is None else size

        return Tensor(name, DTYPES[kind], tuple(dim(axis, size) for axis, size in enumerate(shape or ())))

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        self._fed = feeds
        try:
            return list(self._session.run(None, feeds))
        except self._errors as error:
            raise self.refuse(error) from error

    def placement(self) -> Placement:
        nodes = recorded(self._session)
        if nodes is not None:
            return placed(nodes, self.provider, PROOF, self._edges, self._reasons)
        names = dict.fromkeys((one.node, one.op, one.where) for one in self.op_times(self._fed, 1))
        nodes = tuple(Assigned(*name, part) for part, name in enumerate(names))
        return placed(nodes, self.provider, "ONNX Runtime's profile", self._edges, self._reasons)

    def _edges(self) -> list[tuple[str, str]]:
        """Which nodes are connected in the graph that the providers were offered."""
        with tempfile.TemporaryDirectory(prefix="mh-edge-") as folder:
            options, optimized = self._options(self._onnxruntime), Path(folder, "optimized.onnx")
            options.graph_optimization_level = self._onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
            options.optimized_model_filepath = str(optimized)
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")
            self._onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
            return list(edges_of(optimized))

    def _reasons(self) -> dict[str, str]:
        """Open the file once more, with ONNX Runtime's log -> why nodes were not taken."""
        options = self._options(self._onnxruntime)
        options.log_severity_level = SEVERITY_VERBOSE
        self._onnxruntime.set_default_logger_severity(SEVERITY_VERBOSE)
        try:
            with overheard() as log:
                self._made(self._onnxruntime, options)
                return self._heard(log())
        finally:
            self._onnxruntime.set_default_logger_severity(SEVERITY_WARNING)

    def _heard(self, log: str) -> dict[str, str]:
        """Name of a node -> why it was not taken, out of that log."""
        return reasons_in(log)

    def op_times(self, feeds: Feeds, calls: int) -> tuple[OpTime, ...]:
        """In a session of its own, after `WARM_CALLS`."""
        checked = self._checked(feeds)
        with tempfile.TemporaryDirectory(prefix="mh-edge-") as folder:
            options = self._options(self._onnxruntime)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder, "profile"))
            session = self._made(self._onnxruntime, options)
            for _ in range(WARM_CALLS + calls):
                session.run(None, checked)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8", errors="replace"))
            events = self._unfused(events)
        return tuple(op_times(events, self.provider, calls, rules_of(self.path)))

    def _unfused(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The events of a profile, with those of nodes that the provider fused replaced by those of what went into
        them, as far as it tells them.
        """
        return events

    def close(self) -> None:
        del self._session
