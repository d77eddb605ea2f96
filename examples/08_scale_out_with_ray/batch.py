"""Ray Data: answers a Parquet set partition by partition. A partition whose folder is in the output is done."""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
from classifier import WIDTH, Classifier
from cluster import connect

from mh_edge.artifact import file_sha256

LISTS = pa.list_(pa.list_(pa.float32(), WIDTH))
BATCHES = 16  # in a block, which is what one call of an actor gets, what is repeated when it dies, and a file


class Answers:
    """What an actor does with a batch: id, rows -> id, digit, probabilities. Each actor opens the model once."""

    def __init__(self, model: str, threads: int) -> None:
        self.classify = Classifier(model, threads)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch["rows"].combine_chunks().cast(LISTS)  # refuses steps that are not nine numbers
        numbers = rows.flatten().flatten()
        if rows.null_count or numbers.null_count or not np.isfinite(numbers.to_numpy()).all():
            raise ValueError(
                f"a sequence or a number is missing or not finite in the rows {batch['id'][0]} to {batch['id'][-1]}."
            )
        given = self.classify(rows.value_lengths().to_numpy(), numbers.to_numpy().reshape(-1, WIDTH))
        probabilities = pa.FixedSizeListArray.from_arrays(given.ravel(), given.shape[1])
        return pa.table([batch["id"], given.argmax(axis=1), probabilities], ["id", "digit", "probabilities"])


def answer(part: Path, model: Path, target: Path, actors: int, threads: int, batch_size: int) -> None:
    """One partition: written under a name that readers of Parquet sets pass over, then renamed: all or nothing.

    Ray Data starts a dead actor again and repeats its calls, without limit unless told otherwise.
    """
    draft = target.with_name(f".{target.name}")
    shutil.rmtree(draft, ignore_errors=True)  # of a run that was cut off
    draft.mkdir(parents=True)
    rows = ray.data.read_parquet(str(part.resolve()), partitioning=None).select_columns(["id", "rows"])
    rows.repartition(target_num_rows_per_block=BATCHES * batch_size).map_batches(
        Answers,
        fn_constructor_args=(str(model.resolve()), threads),
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=0.5,  # in Ray's books, so that the tasks that read and write find room beside the actors
        batch_size=batch_size,
        batch_format="pyarrow",
    ).write_parquet(str(draft.resolve()))
    draft.rename(target)


def answer_all(data: Path, model: Path, output: Path, actors: int = 2, threads: int = 1, batch_size: int = 256) -> Path:
    """data/day=D/*.parquet -> output/model=<hash>/day=D/*.parquet; another model never passes for this one."""
    folder = output / f"model={file_sha256(model)[:12]}"
    for part in sorted(data.glob("*=*/")):
        if not (folder / part.name).exists():
            answer(part, model, folder / part.name, actors, threads, batch_size)
            print(f"{part.name} done", flush=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "data", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each actor; actors times threads = cores")
    parser.add_argument("--batch-size", type=int, default=256)
    options = parser.parse_args()
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    connect()
    answer_all(options.data, options.model, options.output, options.actors, options.threads, options.batch_size)


if __name__ == "__main__":
    main()
