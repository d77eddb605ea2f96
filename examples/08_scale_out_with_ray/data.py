"""Writes the test digits as a Parquet set in partitions, one folder for each day, each with two files.

A row is an id, a list of steps (nine numbers each) and the label; `--copies` repeats the digits for a larger set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DAYS, FILES = 4, 2


def table(ids: np.ndarray, rows: np.ndarray, valid: np.ndarray, labels: np.ndarray) -> pa.Table:
    """rows: (n, time, 9), valid: (n, time) -> id, rows (a list for each sequence, without its padding), label."""
    ends = np.concatenate([[0], np.cumsum(valid.sum(axis=1))])
    steps = pa.FixedSizeListArray.from_arrays(pa.array(rows[valid].ravel()), rows.shape[2])
    lists = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), steps)
    return pa.table({"id": ids, "rows": lists, "label": labels})


def write(digits: Path, folder: Path, copies: int = 1) -> None:
    """digits: rows, valid and labels in an .npz -> folder/day=D/F.parquet."""
    with np.load(digits, allow_pickle=False) as held:
        rows, valid, labels = held["rows"], held["valid"], held["labels"]
    ids = np.arange(len(rows) * copies)
    for part, chosen in enumerate(np.array_split(ids, DAYS * FILES)):
        path = folder / f"day={part // FILES + 1}" / f"{part % FILES}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        one = chosen % len(rows)
        pq.write_table(table(chosen, rows[one], valid[one], labels[one]), path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("digits", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--copies", type=int, default=1)
    options = parser.parse_args()
    write(options.digits, options.folder, options.copies)
