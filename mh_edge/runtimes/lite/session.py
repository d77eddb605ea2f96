"""What all devices of the TFLite interpreter share: the interpreter itself, names, free sizes, foreign operations."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from mh_edge.errors import InputError
from mh_edge.packages import require, version
from mh_edge.runtimes.base import Scale, Session, first_line
from mh_edge.signature import Dim, Signature, Tensor

FLATBUFFER_ID = b"TFL3"  # bytes 4 to 8 of every TFLite file
DEFAULT_SIGNATURE = "serving_default"


class LiteSession(Session):
    """A .tflite file in the TFLite interpreter; inputs with free sizes are resized to each feed.

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

    def _open(self) -> Signature:
        with self.path.open("rb") as file:
            if file.read(8)[4:] != FLATBUFFER_ID:
                raise InputError(
                    f"{self.path} is not a TFLite model: the mark {FLATBUFFER_ID.decode()} of the format is not in it."
                )
        module = require(f"{self.module}.interpreter", self.extra, f"running {self.path}")
        try:
            self._interpreter = module.Interpreter(model_path=str(self.path), num_threads=self.threads)
            self._refuse_foreign_ops()
            return self._read_details()
        except (ValueError, RuntimeError) as error:
            # Names are decoded when they are asked for; those of a damaged file may be no text.
            raise self._unreadable(error) from error

    def _read_details(self) -> Signature:
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        # A free size stands as 1 in the file, which may be too small to prepare (a convolution wants a kernel's width).
        free = any(-1 in item["shape_signature"] for item in inputs)
        if not free:
            self._interpreter.allocate_tensors()
        input_names, output_names = self._names(inputs, outputs)
        self._inputs = dict(zip(input_names, (item["index"] for item in inputs), strict=True))
        self._outputs = [item["index"] for item in outputs]
        self.input_scales, self.output_scales = _scales(input_names, inputs), _scales(output_names, outputs)
        self._shapes = {
            name: () if free else tuple(int(size) for size in item["shape"])
            for name, item in zip(input_names, inputs, strict=True)
        }
        return Signature(
            tuple(_tensor(name, item) for name, item in zip(input_names, inputs, strict=True)),
            tuple(_tensor(name, item) for name, item in zip(output_names, outputs, strict=True)),
        )

    def _unreadable(self, error: Exception) -> InputError:
        return InputError(
            f"{self.path} is not a TFLite model that LiteRT can run: {first_line(error)}",
            "Check that the file is whole, and convert it again if it is.",
        )

    def _refuse_foreign_ops(self) -> None:
        """Flex and custom operations stop the interpreter with a message that names one of them; name them all
        instead.
        """
        # The interpreter has no public list of its operations before it is allocated, and allocating is what fails.
        names = {operation["op_name"] for operation in self._interpreter._get_ops_details()}
        if flex := sorted(name for name in names if name.startswith("Flex")):
            raise InputError(
                f"{self.path} needs TensorFlow itself on the device for {', '.join(flex)}; LiteRT cannot run it.",
                "Convert it so that only built-in operations are left; fixed sizes (--batch, --sequence) often help.",
            )

    def _names(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
        signatures = self._interpreter.get_signature_list()
        if signatures:
            key = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in signatures else next(iter(signatures))
            runner = self._interpreter.get_signature_runner(key)
            by_input = {item["index"]: name for name, item in runner.get_input_details().items()}
            by_output: dict[int, list[str]] = {}  # one tensor may be several outputs
            for name, item in runner.get_output_details().items():
                by_output.setdefault(item["index"], []).append(name)
            # A signature of another subgraph than the one that is run has other tensors: its names are not ours.
            if by_input.keys() == {item["index"] for item in inputs} and by_output.keys() >= {
                item["index"] for item in outputs
            }:
                return [by_input[item["index"]] for item in inputs], [
                    by_output[item["index"]].pop(0) for item in outputs
                ]
        return _tensor_names(inputs), _tensor_names(outputs)

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        try:
            # Resizing drops the prepared plan and clears variable tensors, so only where the shape is new.
            changed = [name for name, array in feeds.items() if array.shape != self._shapes[name]]
            for name in changed:
                self._interpreter.resize_tensor_input(self._inputs[name], feeds[name].shape)
                self._shapes[name] = feeds[name].shape
            if changed:
                self._interpreter.allocate_tensors()
            for name, array in feeds.items():
                self._interpreter.set_tensor(self._inputs[name], array)
            self._interpreter.invoke()
            return [np.array(self._interpreter.get_tensor(index)) for index in self._outputs]
        except (ValueError, RuntimeError) as error:
            self._shapes = dict.fromkeys(self._shapes, ())  # what a failed call left behind is prepared anew
            raise self.refuse(error) from error

    def close(self) -> None:
        del self._interpreter


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


def _tensor_names(items: list[dict[str, Any]]) -> list[str]:
    """Names of tensors without the decoration that TensorFlow gives them: `serving_default_x:0` -> `x`."""
    return [item["name"].removeprefix(f"{DEFAULT_SIGNATURE}_").partition(":")[0] for item in items]
