"""What holds for every device: inherit from Contract, and give a fixture `device`.

It needs no TensorFlow, and of the runtimes only that of the device: numbers are compared with y = softmax(relu(x W) V)
in float64, which lies beside the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from mh_edge.errors import InputError, UsageError
from mh_edge.profiling.agreement import ALLOWED
from mh_edge.runtimes import adapter
from mh_edge.runtimes.apart import Apart
from mh_edge.runtimes.base import PRECISIONS, Session

FILES = Path(__file__).parents[1] / "fixtures" / "runtimes"
BATCH, DIM = 2, 16
WRONG_FEEDS = [
    ({}, r"no array for input 'x'"),
    ({"x": np.zeros((BATCH, DIM), "float32"), "more": np.zeros(1)}, r"no input 'more'"),
    ({"x": np.zeros((BATCH, DIM), "float64")}, r"'x' of .* is float32, the array given is float64"),
    ({"x": np.zeros((BATCH, DIM), "float16")}, r"'x' of .* is float32, the array given is float16"),
    ({"x": np.zeros((BATCH, DIM + 1), "float32")}, rf"axis 1 must be {DIM}, not {DIM + 1}"),
    ({"x": np.zeros((BATCH + 1, DIM), "float32")}, rf"axis 0 must be {BATCH}, not {BATCH + 1}"),
    ({"x": np.zeros(DIM, "float32")}, r"the array given has \(16,\)"),
]


def file(device: str, name: str = "dense") -> Path:
    """A file of the device's format: "dense" with batch 2, "free" with any."""
    return FILES / f"{name}.{adapter(device).formats[0]}"


def rows(begin: int = 0, count: int = BATCH) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Feeds, and what they give."""
    with np.load(FILES / "feeds.npz", allow_pickle=False) as arrays:
        return {"x": arrays["x"][begin : begin + count]}, arrays["y"][begin : begin + count]


def require_right(session: Session, begin: int = 0, count: int = BATCH) -> None:
    """The numbers are right, and what is not exactly so is no larger than the device's own precision."""
    feeds, expected = rows(begin, count)
    got = session.run(feeds)
    (name,) = [tensor.name for tensor in session.signature.outputs]
    assert list(got) == [name] == ["y"]
    assert (got[name].shape, got[name].dtype) == (expected.shape, np.float32)
    np.testing.assert_allclose(got[name], expected, rtol=0, atol=ALLOWED[session.precision] * expected.max())


def opened_free(device: str, sizes: Mapping[str, int] | None = None) -> Iterator[Session]:
    """The file with a free batch, opened; none where the device refuses it with a word of what would help."""
    try:
        session = adapter(device)(file(device, "free"), sizes=sizes)
    except InputError as error:
        if "--batch" not in str(error):
            raise
        return
    with session:
        yield session


class Contract:
    """The suite for the device of the fixture `device`."""

    def test_it_says_what_it_is(self, device: str) -> None:
        found = adapter(device)
        assert found.device == device
        assert found.load()[0].isdigit()
        assert all((found.packages, found.runtime, found.formats))
        assert found.arithmetic in PRECISIONS

    def test_the_signature_is_that_of_the_file(self, device: str) -> None:
        with adapter(device)(file(device)) as session:
            (x,), (y,) = session.signature.inputs, session.signature.outputs
            assert (x.name, x.dtype, x.shape) == ("x", "float32", (BATCH, DIM))
            assert (y.name, y.dtype, y.shape) == ("y", "float32", (BATCH, 8))
            assert session.load_seconds > 0
            assert session.precision in PRECISIONS
            assert all(session.notes)

    def test_numbers_are_right_on_every_call(self, device: str) -> None:
        with adapter(device)(file(device)) as session:
            for begin in (0, 2, 0, 1):
                require_right(session, begin)

    def test_results_are_copies(self, device: str) -> None:
        with adapter(device)(file(device)) as session:
            first = session.run(rows(0)[0])["y"]
            kept = first.copy()
            session.run(rows(2)[0])
            np.testing.assert_array_equal(first, kept)

    def test_free_sizes_are_any_or_refused_with_what_would_help(self, device: str) -> None:
        for session in opened_free(device):
            for begin, count in ((0, 2), (0, 5), (4, 1), (1, 2)):
                require_right(session, begin, count)

    def test_free_sizes_can_be_fixed_before(self, device: str) -> None:
        for session in opened_free(device, {"batch": BATCH}):
            require_right(session)

    @pytest.mark.parametrize(("feeds", "message"), WRONG_FEEDS)
    def test_feeds_that_do_not_fit_are_refused(self, device: str, feeds: dict[str, np.ndarray], message: str) -> None:
        with adapter(device)(file(device)) as session:
            with pytest.raises(InputError, match=message):
                session.run(feeds)
            with pytest.raises(InputError, match=message):
                session.prepared(feeds)
            require_right(session)

    def test_two_sessions_at_once(self, device: str) -> None:
        with adapter(device)(file(device)) as one, adapter(device)(file(device)) as other:
            for begin in (0, 1, 2):
                require_right(one, begin)
                require_right(other, 3 - begin)
        with adapter(device)(file(device)) as third:
            require_right(third)

    def test_what_is_closed_does_not_run(self, device: str) -> None:
        session = adapter(device)(file(device))
        session.close()
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever says that there is nothing to run
            session.run(rows()[0])

    @pytest.mark.parametrize("threads", [1, 2, None])
    def test_any_number_of_threads(self, device: str, threads: int | None) -> None:
        with adapter(device)(file(device), threads=threads) as session:
            require_right(session)

    def test_what_is_timed_runs_and_changes_no_result(self, device: str) -> None:
        with adapter(device)(file(device)) as session:
            call = session.prepared(rows(1)[0])
            call()
            call()
            require_right(session)
            call()

    def test_all_of_it_is_placed_on_the_device(self, device: str) -> None:
        with adapter(device)(file(device)) as session:
            require_right(session)
            placement = session.placement()
            assert placement.whole, placement
            assert (placement.on_device, placement.fallbacks) == (placement.nodes, ())
            assert 2 <= placement.nodes <= 8
            assert placement.partitions == 1
            assert placement.proof
            require_right(session)

    def test_operations_have_times_or_none_has(self, device: str) -> None:
        with adapter(device)(file(device)) as session:
            require_right(session)
            times = session.op_times(rows()[0], 3)
            assert all(one.ms >= 0 and one.op and one.where for one in times)
            if times:
                assert sum(one.ms for one in times) < 1e3
                assert any(one.on_device for one in times)
            require_right(session)

    def test_an_unknown_setting_is_refused(self, device: str) -> None:
        with pytest.raises(UsageError, match=rf"the device '{device}' has no setting 'no_such'"):
            adapter(device)(file(device), settings={"no_such": "1"})

    @pytest.mark.parametrize("damage", ["half", "foreign", "empty"])
    def test_a_file_that_is_no_model_is_refused(self, device: str, damage: str, tmp_path: Path) -> None:
        whole = file(device).read_bytes()
        content = {"half": whole[: len(whole) // 2], "foreign": b"PK\x03\x04 a zip archive" * 40, "empty": b""}[damage]
        path = tmp_path / f"bad.{adapter(device).formats[0]}"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"bad\."):
            adapter(device)(path)

    def test_a_path_without_a_file_is_refused(self, device: str, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="there is no file"):
            adapter(device)(tmp_path / f"absent.{adapter(device).formats[0]}")

    def test_the_same_in_a_process_of_its_own(self, device: str, tmp_path: Path) -> None:
        feeds, expected = rows()
        np.savez(tmp_path / "feeds.npz", **feeds)  # type: ignore[arg-type]
        with Apart(device) as session:
            opened = session.open(file(device), threads=1)
            session.run(tmp_path / "feeds.npz", tmp_path / "outputs.npz")
            session.prepare(tmp_path / "feeds.npz")
            assert all(ms > 0 for ms in session.calls(3))
            assert session.placement().whole
            np.savez(tmp_path / "more.npz", more=np.zeros(1), **feeds)  # type: ignore[arg-type]
            with pytest.raises(InputError, match="no input 'more'"):
                session.run(tmp_path / "more.npz", tmp_path / "outputs.npz")
        with np.load(tmp_path / "outputs.npz", allow_pickle=False) as outputs:
            allowed = ALLOWED[opened.precision] * expected.max()
            np.testing.assert_allclose(outputs["y"], expected, rtol=0, atol=allowed)
