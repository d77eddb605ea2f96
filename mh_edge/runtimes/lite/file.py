"""What a .tflite file says of itself, whichever of TFLite's runtimes it is opened in: names, sizes, operations."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from mh_edge.errors import InputError
from mh_edge.packages import require, version
from mh_edge.runtimes.base import Scale, Session, first_line
from mh_edge.runtimes.lite.nodes import Node, listed
from mh_edge.signature import Dim, Signature, Tensor

FLATBUFFER_ID = b"TFL3"  # bytes 4 to 8 of every TFLite file
DEFAULT_SIGNATURE = "serving_default"


class LiteFile(Session):
    """A .tflite file, read by an interpreter that is let go again.

    Names are those of the file's signature; a file without one gives the names of its tensors.
    """

    module: ClassVar[str]
    """The package that holds the interpreter, "ai_edge_litert"."""

    runtime = "LiteRT"
    formats = ("tflite",)

    @classmethod
    def load(cls) -> str:
        require(f"{cls.module}.interpreter", cls.extra, f"the device {cls.device!r}")
        return version(cls.packages[0]) or ""

    def _read_beside(self) -> None:
        with self.path.open("rb") as file:
            if file.read(8)[4:] != FLATBUFFER_ID:
                raise InputError(
                    f"{self.path} is not a TFLite model: the mark {FLATBUFFER_ID.decode()} of the format is not in it."
                )
        try:
            self._read(self._interpreters().Interpreter(model_path=str(self.path)))
        except (ValueError, RuntimeError) as error:
            # Names are decoded when they are asked for; those of a damaged file may be no text.
            raise self._unreadable(error) from error

    def _read(self, interpreter: Any) -> None:
        self._nodes = listed(interpreter)
        self._refuse_foreign_ops(self._nodes)
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        input_names, output_names = _names(interpreter, inputs, outputs)
        self._inputs = dict(zip(input_names, (item["index"] for item in inputs), strict=True))
        self._outputs = [item["index"] for item in outputs]
        self.input_scales, self.output_scales = _scales(input_names, inputs), _scales(output_names, outputs)
        if any(any(node.scales) for node in self._nodes):
            self.precision = "integers"
        self._told = Signature(
            tuple(_tensor(name, item) for name, item in zip(input_names, inputs, strict=True)),
            tuple(_tensor(name, item) for name, item in zip(output_names, outputs, strict=True)),
        )

    def _interpreters(self) -> Any:
        return require(f"{self.module}.interpreter", self.extra, f"running {self.path}")

    def _unreadable(self, error: Exception) -> InputError:
        return InputError(
            f"{self.path} is not a TFLite model that {self.runtime} can run: {first_line(error)}",
            "Check that the file is whole, and convert it again if it is.",
        )

    def _refuse_foreign_ops(self, nodes: tuple[Node, ...]) -> None:
        """Flex operations stop the interpreter with a message that names one of them; name them all instead."""
        if flex := sorted({node.op for node in nodes if node.op.startswith("Flex")}):
            raise InputError(
                f"{self.path} needs TensorFlow itself on the device for {', '.join(flex)}; {self.runtime} cannot run "
                "it.",
                "Convert it so that only built-in operations are left; fixed sizes (--batch, --sequence) often help.",
            )


def _names(
    interpreter: Any, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]
) -> tuple[list[str], list[str]]:
    signatures = interpreter.get_signature_list()
    if signatures:
        key = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in signatures else next(iter(signatures))
        runner = interpreter.get_signature_runner(key)
        by_input = {item["index"]: name for name, item in runner.get_input_details().items()}
        by_output: dict[int, list[str]] = {}  # one tensor may be several outputs
        for name, item in runner.get_output_details().items():
            by_output.setdefault(item["index"], []).append(name)
        # A signature of another subgraph than the one that is run has other tensors: its names are not ours.
        known = by_output.keys() >= {item["index"] for item in outputs}
        if by_input.keys() == {item["index"] for item in inputs} and known:
            return [by_input[item["index"]] for item in inputs], [by_output[item["index"]].pop(0) for item in outputs]
    return [plain_name(item["name"]) for item in inputs], [plain_name(item["name"]) for item in outputs]


def _tensor(name: str, item: dict[str, Any]) -> Tensor:
    def dim(axis: int, size: int) -> Dim:
        return size if size >= 0 else f"{name}_dim_{axis}"

    # A file without free sizes has an empty shape_signature.
    shape = item["shape_signature"] if len(item["shape_signature"]) else item["shape"]
    return Tensor(name, np.dtype(item["dtype"]).name, tuple(dim(axis, int(size)) for axis, size in enumerate(shape)))


def _scales(names: list[str], items: list[dict[str, Any]]) -> dict[str, Scale]:
    return {
        name: Scale(float(scale), int(zero_point), np.dtype(item["dtype"]).name)
        for name, item in zip(names, items, strict=True)
        for scale, zero_point in [item["quantization"]]
        if scale and np.issubdtype(item["dtype"], np.integer)
    }


def plain_name(tensor: str) -> str:
    """The name of a tensor without the decoration that TensorFlow gives it: `serving_default_x:0` -> `x`."""
    return tensor.removeprefix(f"{DEFAULT_SIGNATURE}_").partition(":")[0]
