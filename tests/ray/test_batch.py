"""batch.py: what Ray Data writes is what a single process gives, row by row, whoever is killed on the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import batch
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from cluster import connect
from data import write
from ray._common.usage.usage_lib import usage_stats_enabled

from conftest import SCRIPTS, TOLERANCE

COPIES = 4
SMALL = 8  # rows of a batch: the 360 rows of a partition are 45 batches in 3 blocks
PATIENCE = 120.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, exported: Path) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write(exported / "digits.npz", folder, COPIES)
    return folder


@pytest.fixture(scope="module")
def expected(alone: np.ndarray) -> np.ndarray:
    return np.tile(alone, (COPIES, 1))


@pytest.fixture(scope="module")
def here() -> Iterator[None]:
    connect()
    yield
    ray.shutdown()


def same(table: pa.Table, expected: np.ndarray) -> bool:
    """Whether each id from 0 on is there once, with the numbers of the single process."""
    ids = table["id"].to_numpy()
    if not np.array_equal(np.sort(ids), np.arange(len(expected))):
        return False
    given = np.stack(table["probabilities"].to_numpy())[np.argsort(ids)]
    digits = table["digit"].to_numpy()[np.argsort(ids)]
    return bool(np.abs(given - expected).max() <= TOLERANCE and np.array_equal(digits, given.argmax(axis=1)))


def state(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}


def command(exported: Path, data: Path, output: Path) -> list[str]:
    return [sys.executable, str(SCRIPTS / "batch.py"), str(exported / "digits.onnx"), str(data), str(output)]


def test_a_lost_a_doubled_and_an_exchanged_row_are_noticed(expected: np.ndarray) -> None:
    ids = np.arange(len(expected))
    table = pa.table({"id": ids, "digit": expected.argmax(axis=1), "probabilities": list(expected)})
    assert same(table, expected)
    assert not same(table.slice(1), expected)
    assert not same(pa.concat_tables([table, table.slice(0, 1)]), expected)
    exchanged = np.concatenate([[1, 0], ids[2:]])
    assert not same(table.set_column(0, "id", pa.array(exchanged)), expected)


def test_a_run_that_was_cut_off_is_repeated_where_it_stopped(
    tmp_path: Path, exported: Path, data: Path, expected: np.ndarray
) -> None:
    run = command(exported, data, tmp_path)
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as cut:
        assert cut.stdout is not None
        assert cut.stdout.readline() == "day=1 done\n"
        until = time.monotonic() + PATIENCE
        while not list(tmp_path.glob("model=*/.day=2")) and time.monotonic() < until:
            time.sleep(0.01)
        cut.kill()
    (folder,) = tmp_path.glob("model=*")
    assert sorted(path.name for path in folder.iterdir()) == [".day=2", "day=1"]
    assert pq.read_table(folder).num_rows == len(expected) // 4  # readers see what is done, and no half
    first = state(folder / "day=1")

    done = subprocess.run(run, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.splitlines() == ["day=2 done", "day=3 done", "day=4 done"]
    assert same(pq.read_table(folder), expected)
    assert state(folder / "day=1") == first

    whole = state(folder)
    again = subprocess.run(run, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert again.stdout == ""
    assert state(folder) == whole


@pytest.mark.usefixtures("here")
def test_a_killed_worker_loses_no_row_and_doubles_none(
    tmp_path: Path, exported: Path, data: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, middle = tmp_path / "pid", len(expected) * 3 // 8  # of the second partition

    class Slow(batch.Answers):
        """Waits in the middle of the set until it is killed, once."""

        def __call__(self, rows: pa.Table) -> pa.Table:
            if middle in rows["id"].to_pylist() and not note.exists():
                note.with_suffix(".new").write_text(str(os.getpid()))
                note.with_suffix(".new").rename(note)
                time.sleep(PATIENCE)
            return super().__call__(rows)

    killed: list[int] = []

    def kill() -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if note.exists():
                killed.append(int(note.read_text()))
                os.kill(killed[0], signal.SIGKILL)
                return
            time.sleep(0.05)

    monkeypatch.setattr(batch, "Answers", Slow)
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    started = time.monotonic()
    folder = batch.answer_all(data, exported / "digits.onnx", tmp_path / "output", batch_size=SMALL)
    killer.join()
    assert time.monotonic() - started < PATIENCE  # it did not sleep to the end
    assert not Path(f"/proc/{killed[0]}").exists()
    assert same(pq.read_table(folder), expected)
    assert len(list((folder / "day=2").glob("*.parquet"))) > 1


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([[[0.5] * 9], None], "is missing"),
        ([[[0.5] * 9], [[0.5] * 8 + [None]]], "is missing"),
        ([[[0.5] * 8 + [float("nan")]]], "not finite"),
        ([[[0.5] * 8]], "9"),
    ],
    ids=["no sequence", "no number", "not a number", "eight numbers"],
)
def test_a_row_that_cannot_be_answered_stops_its_partition(
    tmp_path: Path, exported: Path, rows: list[object], reason: str
) -> None:
    kind = pa.list_(pa.list_(pa.float32()))
    (tmp_path / "data" / "day=1").mkdir(parents=True)
    table = pa.table({"id": np.arange(len(rows)), "rows": pa.array(rows, kind)})
    pq.write_table(table, tmp_path / "data" / "day=1" / "0.parquet")
    with pytest.raises(ray.exceptions.RayError, match=reason):
        batch.answer_all(tmp_path / "data", exported / "digits.onnx", tmp_path / "output")
    assert not list(tmp_path.glob("output/model=*/day=1"))


@pytest.mark.usefixtures("here")
def test_an_empty_partition_is_done_and_an_empty_sequence_answered(
    tmp_path: Path, exported: Path, data: Path, expected: np.ndarray
) -> None:
    (tmp_path / "data" / "day=0").mkdir(parents=True)
    whole = pq.read_table(data / "day=1" / "0.parquet", partitioning=None)
    pq.write_table(whole.slice(0, 0), tmp_path / "data" / "day=0" / "0.parquet")
    shutil.copytree(data / "day=1", tmp_path / "data" / "day=1")
    empty = pa.table({"id": [len(whole) * 2], "rows": pa.array([[]], whole.schema.field("rows").type), "label": [0]})
    pq.write_table(empty, tmp_path / "data" / "day=1" / "2.parquet")
    folder = batch.answer_all(tmp_path / "data", exported / "digits.onnx", tmp_path / "output")
    assert sorted(path.name for path in folder.iterdir()) == ["day=0", "day=1"]
    answers = pq.read_table(folder).sort_by("id")
    assert same(answers.slice(0, len(whole) * 2), expected[: len(whole) * 2])
    assert np.isfinite(answers["probabilities"][len(whole) * 2].values.to_numpy()).all()


@pytest.mark.usefixtures("here")
def test_nothing_is_reported_to_anyone() -> None:
    assert not usage_stats_enabled()
