"""What a quantization scheme is, how it is named, and where schemes are found.

A scheme's name is `[TARGET-]WEIGHTS[-ACTIVATIONS]`, the same for both formats where the arithmetic is the same:

    fp16           weights and products in 16-bit floats
    int8           weights and activations in 8-bit integers, activations by ranges seen on calibration data
    int8-dynamic   weights in 8-bit integers; the range of each activation is taken anew at every call
    int8-a16       8-bit weights, 16-bit activations by calibrated ranges (ONNX)
    int16x8        the same, under the name that TFLite gives it
    int4           weights in 4-bit integers, in blocks with a scale each; activations stay float
    qnn-a16w8      int8-a16 as Qualcomm's QNN wants it

An integer q stands for the number x = scale · (q − zero_point). `auto` is no scheme: it tries them.

A scheme lies in <format>/schemes/<module>.py as one function with the decorator:

    @scheme("onnx", "int8", calibrate=observe, options=("per_channel", "keep_float"))
    def int8(source: Artifact, ranges: Ranges, options: Options) -> Quantized: ...

It reads the float file at `source.path` and returns what to write; it neither evaluates nor writes, so that the same
source, ranges and options give the same bytes.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mh_edge.artifact import Artifact
from mh_edge.errors import UsageError

AUTO = "auto"

ASKED = "named by keep_float"
"""Why an operation stays in float that the user wants there."""

HOMES = {"onnx": "mh_edge.quantization.onnx.schemes", "tflite": "mh_edge.quantization.tflite.schemes"}
"""The package of each format's schemes."""

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Range:
    """The least and the greatest value of a tensor."""

    low: float
    high: float


Ranges = Mapping[str, Range]
"""By tensor name."""


@dataclass(frozen=True)
class Options:
    """What a user may tell a scheme; the recipe keeps it.

    per_channel: a scale for each output channel of a weight instead of one for all. block_size: weights that share a
    scale under int4. integer_io: inputs and outputs are integers too (TFLite int8, int16x8). keep_float: names of
    layers or operations that stay in float, see `belongs`.
    """

    per_channel: bool = True
    block_size: int = 32
    integer_io: bool = False
    keep_float: tuple[str, ...] = ()


FLAGS: Mapping[str, str] = {
    "per_channel": "--per-tensor (per_channel=False)",
    "block_size": "--block-size (block_size=)",
    "integer_io": "--integer-io (integer_io=True)",
    "keep_float": "--keep-float (keep_float=)",
}
"""How each option is given, on the command line and in Python."""


@dataclass(frozen=True)
class RangeChange:
    """The range that a tensor had on the calibration data, and the range it is quantized with. after: None when it
    stays in float. why: empty when it was taken as it was seen.
    """

    tensor: str
    before: Range
    after: Range | None
    why: str = ""


@dataclass(frozen=True)
class KeptFloat:
    """A tensor (or the operation that makes it) that a scheme would quantize and did not, and why."""

    tensor: str
    reason: str


@dataclass(frozen=True)
class Quantized:
    """What a scheme hands back: a quantized model, not yet written.

    save(path) writes the file, and external data beside it where the format needs it -> all files written, the model
    first. ranges, kept_float: what `--explain` prints. notes: sentences for the user.
    """

    save: Callable[[Path], Sequence[Path]]
    ranges: tuple[RangeChange, ...] = ()
    kept_float: tuple[KeptFloat, ...] = ()
    notes: tuple[str, ...] = ()


Calibrate = Callable[[Artifact, Options, Iterable[Arrays]], Ranges]
"""Runs the float model on the batches -> the range of every tensor that the scheme may quantize."""

Quantize = Callable[[Artifact, Ranges, Options], Quantized]


@dataclass(frozen=True)
class Scheme:
    """A registered scheme. calibrate: None when it needs no data. options: the fields of Options that it reads."""

    format: str
    name: str
    quantize: Quantize
    calibrate: Calibrate | None
    options: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The first line of the scheme's docstring."""
        return (self.quantize.__doc__ or "").strip().partition("\n")[0]

    def check(self, options: Options) -> None:
        """Raise UsageError for an option that was set and that this scheme does not read."""
        usual = Options()
        for name, value in vars(options).items():
            if value != vars(usual)[name] and name not in self.options:
                known = ", ".join(FLAGS[option] for option in self.options)
                raise UsageError(
                    f"the scheme {self.name} of .{self.format} files takes no {FLAGS[name]}.",
                    f"It takes {known}." if known else "It takes no options.",
                )


_REGISTRY: dict[tuple[str, str], Scheme] = {}


def scheme(
    format: str, name: str, *, calibrate: Calibrate | None = None, options: Sequence[str] = ()
) -> Callable[[Quantize], Quantize]:
    """Register the decorated function as the scheme `name` of a format. Raises ValueError for an unknown format or
    option.
    """
    if format not in HOMES or (unknown := set(options) - vars(Options()).keys()):
        raise ValueError(f"scheme {name}: format {format!r}, options {tuple(options)}: one is unknown")
    del unknown

    def register(quantize: Quantize) -> Quantize:
        _REGISTRY[format, name] = Scheme(format, name, quantize, calibrate, tuple(options))
        return quantize

    return register


def schemes_for(format: str) -> dict[str, Scheme]:
    """The schemes of a format by name."""
    package: Any = importlib.import_module(HOMES[format])
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return {name: found for (of, name), found in sorted(_REGISTRY.items()) if of == format}


def find_scheme(format: str, name: str) -> Scheme:
    """Raises UsageError when the format has no scheme of that name."""
    known = schemes_for(format)
    if name not in known:
        elsewhere = [other for other in HOMES if other != format and name in schemes_for(other)]
        also = f" {name} is a scheme of .{elsewhere[0]} files." if elsewhere else ""
        raise UsageError(
            f"there is no scheme {name!r} for .{format} files.", f"Known are {', '.join(known)}, {AUTO}.{also}"
        )
    return known[name]


def belongs(operation: str, names: Iterable[str]) -> bool:
    """Whether an operation is one of those named, or lies in a layer named: `dense/MatMul` lies in `dense`.

    operation: a node's name in ONNX, the name of the first output tensor in TFLite.
    """
    return any(operation == name or operation.startswith(f"{name}/") for name in names)
