"""What all devices of ONNX Runtime share: options, types, errors; where nodes went and how long they take."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from mh_edge.artifact import read_manifest
from mh_edge.errors import InputError
from mh_edge.packages import require
from mh_edge.runtimes.base import Session, first_line
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

HINTS = {"session.set_denormal_as_zero": ("0", "1")}
"""The session options that are taken from a manifest, and their values: others could do more than change the speed."""

SEVERITY_FATAL = 4  # what goes wrong comes back as an exception; ONNX Runtime need not print it as well


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
    """An .onnx file in ONNX Runtime with one execution provider and the session options that its manifest asks for."""

    provider: ClassVar[str]
    """ONNX Runtime's name of the execution provider, "CPUExecutionProvider"."""

    runtime = "ONNX Runtime"
    formats = ("onnx",)

    @classmethod
    def load(cls) -> str:
        return str(require("onnxruntime", cls.extra, f"the device {cls.device!r}").__version__)

    def _read_beside(self) -> None:
        manifest = read_manifest(self.path)
        self._hints = {} if manifest is None else manifest.session_options

    def _options(self, onnxruntime: Any) -> Any:
        """The session options; devices add theirs."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = SEVERITY_FATAL
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        for key, value in self._hints.items():
            if value in HINTS.get(key, ()):
                options.add_session_config_entry(key, value)
        return options

    def _made(self, onnxruntime: Any, options: Any) -> Any:
        """The InferenceSession on the device."""
        return onnxruntime.InferenceSession(str(self.path), options, providers=[self.provider])

    def _open(self) -> Signature:
        onnxruntime = require("onnxruntime", self.extra, f"running {self.path}")
        self._errors = failures()
        try:
            self._session = self._made(onnxruntime, self._options(onnxruntime))
            inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
            return Signature(tuple(map(self._tensor, inputs)), tuple(map(self._tensor, outputs)))
        except self._errors as error:
            raise InputError(
                f"ONNX Runtime {onnxruntime.__version__} cannot open {self.path}: {first_line(error)}",
                "Check that the file is whole and that its opset and operators are known to this ONNX Runtime.",
            ) from error

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
        try:
            return list(self._session.run(None, feeds))
        except self._errors as error:
            raise self.refuse(error) from error

    def close(self) -> None:
        del self._session
