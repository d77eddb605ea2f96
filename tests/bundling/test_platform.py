"""Files that every platform places as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mh_edge
from mh_edge.errors import ConversionError


def saved(folder: Path, name: str, location: str, factor: float) -> Path:
    """y = factor x, with the factor in a file of its own."""
    folder.mkdir(exist_ok=True)
    (folder / location).parent.mkdir(exist_ok=True)
    x, y = (helper.make_tensor_value_info(one, TensorProto.FLOAT, (4,)) for one in "xy")
    weight = numpy_helper.from_array(np.full(4, factor, "float32"), "w")
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "times", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / name, save_as_external_data=True, location=location, size_threshold=0)
    return folder / name


def test_weights_in_files_of_their_own_come_along(plain: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    model = saved(tmp_path / "a", "m.onnx", "weights/w.bin", 3.0)
    mh_edge.bundle([model], plain, tmp_path / "kit")
    assert (tmp_path / "kit/models/weights/w.bin").read_bytes() == (tmp_path / "a/weights/w.bin").read_bytes()


def test_weights_of_two_artifacts_under_one_name_are_refused(plain: str, tmp_path: Path) -> None:
    models = [saved(tmp_path / one, f"{one}.onnx", "w.bin", factor) for one, factor in (("a", 3.0), ("b", 4.0))]
    with pytest.raises(ConversionError, match=r"'w\.bin'"):
        mh_edge.bundle(models, plain, tmp_path / "kit")
    assert not (tmp_path / "kit").exists()
