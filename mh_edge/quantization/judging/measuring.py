"""Verdicts on quantized files: numbers on data, sizes, and times in one interleaved run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from mh_edge.artifact import Artifact
from mh_edge.inspection import inspect
from mh_edge.progress import Progress, silent
from mh_edge.quantization.data.sets import Data
from mh_edge.quantization.judging.judge import Metric, judge
from mh_edge.quantization.judging.latency import SECONDS, compare_latency
from mh_edge.quantization.judging.verdict import Verdict
from mh_edge.runtimes import open_session

SECONDS_EACH = 0.5
"""Of timing, for each file, where there are several."""


@dataclass(frozen=True)
class Measure:
    """How quantized files are measured. metric: in place of the share of right answers. batch, threads: of the timing;
    threads=None leaves it out. classes: see judge.
    """

    data: Data
    metric: Metric | None = None
    batch: int = 1
    threads: int | None = 1
    classes: bool | None = None

    def verdicts(self, source: Artifact, files: Mapping[str, Path], tell: Progress = silent) -> dict[str, Verdict]:
        """Float against each of the files, by the names they are given under."""
        with ExitStack() as stack:
            reference = stack.enter_context(open_session(source.path))
            sessions = {name: stack.enter_context(open_session(path)) for name, path in files.items()}
            verdicts = judge(reference, sessions, self.data, metric=self.metric, classes=self.classes, progress=tell)
        sized = {
            name: replace(verdict, size_ratio=inspect(files[name]).bytes / source.bytes)
            for name, verdict in verdicts.items()
        }
        return self.timed(source, files, sized, tell)

    def timed(
        self, source: Artifact, files: Mapping[str, Path], verdicts: Mapping[str, Verdict], tell: Progress = silent
    ) -> dict[str, Verdict]:
        """The verdicts with the time of each file beside the float one's, all in one run."""
        if self.threads is None:
            return dict(verdicts)
        tell("timing")
        feeds = next(iter(self.data.batches())).feeds
        seconds = max(SECONDS, SECONDS_EACH * len(files))
        found = compare_latency(source.path, files, feeds, batch=self.batch, threads=self.threads, seconds=seconds)
        return {
            name: replace(
                verdicts[name],
                latency_ratio=one.ratio,
                latency_interval=one.interval,
                latency_ms=one.ms,
                latency_batch=one.batch,
                latency_words=one.sentence,
            )
            for name, one in found.items()
        }
