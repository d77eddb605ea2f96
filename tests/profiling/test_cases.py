"""An artifact made ready: feeds that tell devices apart, a reference that is asked twice, and all bytes counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save_model

from mh_edge.arrayfiles import read_npz
from mh_edge.profiling.cases import Asked, Case, _telling, prepare


def model(path: Path, *ops: str) -> Path:
    names = ["x", *(f"h{place}" for place in range(1, len(ops))), "y"]
    nodes = [helper.make_node(op, [a], [b]) for op, a, b in zip(ops, names[:-1], names[1:], strict=True)]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:])
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    np.savez(folder / "x.npz", x=np.array([[1, 2, 3, 4]], np.float32))
    return prepare(model(folder / "m.onnx", "Tanh"), Asked(arrays=dict(read_npz(folder / "x.npz"))), 1, folder)


class Device:
    """Tanh; what it gives for each call is up to `kept`."""

    device = "odd"

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.given: list[np.ndarray] = []

    def run(self, feeds: Path, outputs: Path) -> None:
        self.given.append(np.tanh(read_npz(feeds)["x"]))
        right, calls = self.given[-1], len(self.given)
        y = {"right": right, "stale": self.given[max(0, calls - 2)], "state": right * 1.1 ** (calls // 3)}[self.kind]
        np.savez(outputs, y=y)


def test_one_sample_is_run_altered_too_and_once_more_at_the_end(case: Case) -> None:
    first, altered, last = case.files
    assert first == last
    np.testing.assert_array_equal(read_npz(altered)["x"], [[2, 1.5, 1, 0.5]])
    assert case.batch == 1


@pytest.mark.parametrize(("kind", "right"), [("right", True), ("stale", False), ("state", False)])
def test_what_a_device_keeps_from_call_to_call_shows(case: Case, kind: str, right: bool) -> None:
    found = case.compare(Device(kind), case.opened, None)  # type: ignore[arg-type]
    assert (found.equal, found.feeds) == (right, 2)


def test_a_file_that_draws_numbers_cannot_be_compared(tmp_path: Path) -> None:
    made = prepare(model(tmp_path / "m.onnx", "RandomNormalLike", "Tanh"), Asked(), 1, tmp_path)
    found = made.compare(Device("right"), made.opened, None)  # type: ignore[arg-type]
    assert (found.equal, found.why) == (None, "it gives other numbers at every call, on 'cpu', too")


def test_external_data_are_counted_without_a_manifest(tmp_path: Path) -> None:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [64]) for name in "xy"]
    weights = helper.make_tensor("w", TensorProto.FLOAT, [64], bytes(256), raw=True)
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", value[:1], value[1:], [weights])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "m.onnx"
    save_model(made, path, save_as_external_data=True, size_threshold=0, location="w.data")
    assert prepare(path, Asked(), 1, tmp_path).bytes == path.stat().st_size + 256


@pytest.mark.parametrize(
    ("others", "count"),
    [
        ([[[5.0, 6.0], [7.0, 8.0]]], 2),  # each sample is another one
        ([[[1.0, 2.0], [7.0, 8.0]]], 3),  # the first is the same
        ([[[1.0, 2.0], [7.0, 8.0]], [[5.0, 6.0], [7.0, 8.0]]], 3),
        ([], 2),
    ],
)
def test_a_feed_is_added_where_none_differs_in_every_sample(others: list[list[list[float]]], count: int) -> None:
    feeds = [{"x": np.array(one, np.float32)} for one in ([[1.0, 2.0], [3.0, 4.0]], *others)]
    assert len(_telling(feeds, 2)) == count


def test_the_added_feed_is_one_that_a_file_takes() -> None:
    ids, mask = np.array([[5, 6, 0]]), np.array([[True, True, False]])
    x = np.array([[[1, 2], [3, 4], [0, 0]]], np.float16)
    made = _telling([{"ids": ids, "mask": mask, "x": x, "scalar": np.array(3)}], None)[1]
    assert made["ids"].tolist() == [[0, 6, 5]]
    assert made["mask"].tolist() == [[False, True, True]]
    assert made["x"].tolist() == [[[0, 0], [2, 1.5], [1, 0.5]]]
    assert (made["x"].dtype, made["ids"].dtype, int(made["scalar"])) == (x.dtype, ids.dtype, 3)
