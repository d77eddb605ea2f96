"""The older package of the same interpreter, for devices that still carry it: 2.14 was its last release."""

from __future__ import annotations

import sys

from mh_edge.errors import InputError, UnavailableError
from mh_edge.packages import version
from mh_edge.runtimes.base import first_line
from mh_edge.runtimes.lite.session import LiteSession
from mh_edge.runtimes.placement import Placement
from mh_edge.signature import Signature

NEWEST_PYTHON = (3, 11)
"""The last Python for which it has wheels."""

NEWER = "An older version of this builtin might be supported"

OTHERWISE = "Run it in ai-edge-litert, or quantize it with --scheme fp16."


class TfliteRuntimeSession(LiteSession):
    """A .tflite file in tflite-runtime's interpreter, with XNNPACK as it was then.

    It refuses operations in a newer version than it knows. A FULLY_CONNECTED with float activations, and weights that
    have a scale for each channel, it takes and computes wrongly without a word: that is refused here. So it does in the
    bodies of loops, which the interpreter does not show: compare with ai-edge-litert.
    """

    device = "tflite-runtime"
    runtime = "TFLite"
    module = "tflite_runtime"
    packages = ("tflite-runtime",)
    extra = "tflite-runtime"
    delegate = "XNNPACK"

    def _open(self) -> Signature:
        wrong = [one for one in self._nodes if one.op == "FULLY_CONNECTED" and one.scales[0] == 0 and one.scales[1] > 1]
        if wrong:
            raise InputError(
                f"tflite-runtime computes wrong numbers from {self.path}: it takes the weights of FULLY_CONNECTED "
                f"{wrong[0].name!r} ({len(wrong)} in all) to have one scale, and they have {wrong[0].scales[1]}.",
                OTHERWISE,
            )
        return super()._open()

    def _unreadable(self, error: Exception) -> InputError:
        if NEWER not in str(error):
            return super()._unreadable(error)
        return InputError(
            f"{self.path} is newer than tflite-runtime: {first_line(error).partition('. ')[0]}.",
            OTHERWISE,
        )

    def placement(self) -> Placement:
        """All of it, because the device is the interpreter; the proof says what its delegate took."""
        found = super().placement()
        proof = f"{found.proof}, of which {self.delegate} took {found.on_device} in {found.partitions} parts"
        return Placement(found.nodes, found.nodes, 1, (), proof)

    @classmethod
    def install(cls) -> str:
        if sys.version_info[:2] <= NEWEST_PYTHON:
            return super().install()
        return f"python{_dotted(NEWEST_PYTHON)} -m venv tflite && tflite/bin/{super().install()}"

    @classmethod
    def load(cls) -> str:
        numpy = version("numpy") or ""
        if sys.version_info[:2] > NEWEST_PYTHON:
            newest, running = map(_dotted, (NEWEST_PYTHON, sys.version_info[:2]))
            raise UnavailableError(
                f"tflite-runtime has no wheels for Python {running}, {newest} is the last", cls.install()
            )
        if version(cls.packages[0]) is not None and not numpy.startswith("1."):
            raise UnavailableError(
                f"tflite-runtime {version(cls.packages[0])} was built for numpy 1, and numpy {numpy} is installed",
                'pip install "numpy<2"',
            )
        return super().load()


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
