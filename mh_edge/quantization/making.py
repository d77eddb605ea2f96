"""One quantized file: ranges seen on data, the scheme applied, the file written, checked and opened."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mh_edge.artifact import Artifact
from mh_edge.errors import ConversionError, InputError
from mh_edge.packages import require
from mh_edge.progress import Progress, silent
from mh_edge.quantization.data.sets import Data
from mh_edge.quantization.scheme import Arrays, Options, Quantized, Ranges, Scheme
from mh_edge.runtimes import open_session
from mh_edge.runtimes.base import first_line


@dataclass(frozen=True)
class Made:
    """A quantized file. data: its external data files."""

    path: Path
    data: tuple[Path, ...]
    quantized: Quantized


def calibrated(
    scheme: Scheme, source: Artifact, options: Options, data: Data | None, tell: Progress = silent
) -> Ranges:
    """The range of every tensor that the scheme asks for; none for a scheme that needs no data. Raises InputError when
    it needs some and got none.
    """
    if scheme.calibrate is None:
        return {}
    if data is None:
        raise InputError(
            f"the scheme {scheme.name} needs calibration data: the ranges of activations are seen on real inputs.",
            "Give some hundred samples like those of use, --calibration calib.npz (a folder, or "
            "package.module:function); --calibration random is for trying things out.",
        )
    return scheme.calibrate(source, options, _feeds(data, tell))


def _feeds(data: Data, tell: Progress) -> Iterator[Arrays]:
    done = 0
    for batch in data.batches():
        yield batch.feeds
        done += batch.count
        tell("calibrating", done, data.samples)


def make(scheme: Scheme, source: Artifact, ranges: Ranges, options: Options, path: Path) -> Made:
    """Write the quantized model at `path`, which nobody else sees yet, and prove that it is one: it passes the format's
    checker and its runtime opens it. Raises ConversionError when the scheme cannot take this model.
    """
    scheme.check(options)
    quantized = scheme.quantize(source, ranges, options)
    model, *data = quantized.save(path)
    if source.format == "onnx":
        _check_onnx(model, source.path)
    try:
        open_session(model).close()
    except InputError as error:
        raise ConversionError(
            f"the scheme {scheme.name} made a file of {source.path} that its runtime does not open: {error.message}",
            "Keep the layer it names in float (--keep-float), or take another scheme.",
        ) from error
    return Made(model, tuple(data), quantized)


def _check_onnx(path: Path, source: Path) -> None:
    """Raises ConversionError for what ONNX's checker finds wrong, unless the source is wrong in the same way."""
    onnx = require("onnx", "quantize", "checking an .onnx file")
    wrong = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except wrong as error:
        with contextlib.suppress(*wrong):
            onnx.checker.check_model(str(source), full_check=True)
            raise ConversionError(f"{path.name} is not valid ONNX: {first_line(error)}") from error
