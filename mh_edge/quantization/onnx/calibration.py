"""Ranges of the tensors of an ONNX model, as seen on data."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mh_edge.errors import InputError
from mh_edge.packages import require
from mh_edge.quantization.scheme import Arrays, Range
from mh_edge.runtimes.base import first_line
from mh_edge.runtimes.ort.session import failures

if TYPE_CHECKING:
    import onnx

LARGEST = float(np.finfo(np.float32).max)
"""A range ends here: a mask of -infinity has to have a width, and a recipe is plain JSON."""

SEVERITY_FATAL = 4


def observe(model: onnx.ModelProto, tensors: Collection[str], batches: Iterable[Arrays]) -> dict[str, Range]:
    """The least and the greatest value of each float tensor over all batches, by name, in the order of the names.

    One batch is held at a time. Tensors that the main graph does not have, or that are not float, are left out. Raises
    InputError when there is no batch, when a tensor is NaN on one, or when the model cannot be run.
    """
    calibrate = require("onnxruntime.quantization.calibrate", "quantize,cpu", "calibration")
    onnxruntime = require("onnxruntime", "quantize,cpu", "calibration")
    save_model = require("onnx", "quantize", "calibration").save_model

    class One(calibrate.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self, feeds: Arrays) -> None:
            self.feeds: list[dict[str, np.ndarray]] = [dict(feeds)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.feeds.pop() if self.feeds else None

    class Chosen(calibrate.MinMaxCalibrater):  # type: ignore[misc, name-defined]
        def select_tensors_to_calibrate(self, model: onnx.ModelProto) -> tuple[set[str], dict[str, Any]]:
            found, types = super().select_tensors_to_calibrate(model)
            return found & set(tensors), types

        def create_inference_session(self) -> None:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = SEVERITY_FATAL
            self.infer_session = onnxruntime.InferenceSession(
                self.augmented_model_path, options, providers=self.execution_providers
            )

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        # Saving with external data takes the numbers out of the model it is given.
        save_model(copy.deepcopy(model), str(path), save_as_external_data=True, location="weights")
        calibrator = Chosen(
            path, augmented_model_path=str(Path(folder) / "augmented.onnx"), use_external_data_format=True
        )
        calibrator.augment_graph()
        try:
            calibrator.create_inference_session()
            for feeds in batches:
                # One call a batch: it keeps what it was given until it returns.
                calibrator.collect_data(One(feeds))
        except failures() as error:
            raise InputError(f"the float file cannot be run: {first_line(error)}", "Is it damaged?") from error
        seen = calibrator.compute_data()
    if seen is None:
        raise InputError("the calibration data holds no batch.", "Give some hundred samples like those of use.")
    return {name: _range(name, *seen[name].range_value) for name in sorted(seen)}


def _range(name: str, lowest: np.ndarray, highest: np.ndarray) -> Range:
    low, high = float(np.min(lowest)), float(np.max(highest))
    if np.isnan(low) or np.isnan(high):
        raise InputError(f"{name} is NaN on the calibration data.", "Look for inputs that the float model cannot take.")
    return Range(max(low, -LARGEST), min(high, LARGEST))
