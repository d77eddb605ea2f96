"""Candidates that fix the same sizes, and so share their feeds: running them, and judging them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mh_edge.errors import InputError, UsageError
from mh_edge.signature import Signature
from mh_edge.verification.failures import save, shrink
from mh_edge.verification.feeds import LEAST_FEEDS, Feed, Spec, build, grid, nudged, spares, user_feeds
from mh_edge.verification.judge import Finding, candidate, findings, worst_of
from mh_edge.verification.noise import Pool
from mh_edge.verification.reference import Arrays, Reference, Refused
from mh_edge.verification.report import Candidate
from mh_edge.verification.trial import Trial

CLOSE, CLEAR = 0.5, 1e3
"""Errors between these multiples of what is allowed are worth more samples of the noise: they cost as much as the
feeds.
"""

RESAMPLES = 4


@dataclass(frozen=True)
class Group:
    """signature: the reference's, with the sizes pinned that these candidates fix. tolerance: explicit (atol, rtol), or
    None.
    """

    reference: Reference
    signature: Signature
    tolerance: tuple[float, float] | None
    name: str
    seed: int

    def compare(
        self, trials: Sequence[Trial], given: Arrays | None, failures: str | Path | None
    ) -> dict[str, Candidate]:
        """Run every feed through the reference and all trials -> the verdicts by path."""
        pool = Pool(self.signature)
        used, skipped = self._run(trials, pool, given)
        if self.tolerance is None:
            self._measure_orders(pool, used)
            self._measure_again(pool, used, trials)
        noise = pool if self.tolerance is None else None
        verdicts = {}
        for trial in trials:
            judged = findings(trial, noise)
            saved = None if failures is None else self._save(trial, judged, noise, Path(failures))
            verdicts[trial.path] = candidate(trial, judged, skipped, saved)
        return verdicts

    def _run(self, trials: Sequence[Trial], pool: Pool, given: Arrays | None) -> tuple[list[Feed], int]:
        """The feeds that were used (without arrays that can be made again), and how many the reference refused."""
        used: list[Feed] = []
        refusals: list[str] = []

        def take(feed: Feed) -> None:
            try:
                expected = self.reference.expected(feed.arrays)
            except Refused as reason:
                refusals.append(str(reason))
                return
            if not any(output.size for output in expected.plain.values()):
                refusals.append("its outputs are empty there, so there is nothing to compare.")
                return
            used.append(feed.light())
            pool.add(feed.kind, expected)
            for trial in trials:
                trial.take(feed, expected)

        own = [] if given is None else list(user_feeds(self.signature, given))
        self._prepare(own)
        for feed in own:
            take(feed)
        if own and refusals:
            raise InputError(f"{self.name} does not take the feeds given: {refusals[0]}")
        for spec in self._shuffled(grid(self.signature, self.seed)):
            take(build(self.signature, spec))
        for spec in spares(self.signature, self.seed):
            if len(used) >= LEAST_FEEDS:
                break
            take(build(self.signature, spec))
        if len(used) < LEAST_FEEDS and not own:
            raise InputError(
                f"{self.name} itself refuses {len(refusals)} of {len(refusals) + len(used)} generated feeds, "
                f"and {LEAST_FEEDS} are needed: {refusals[0]}",
                "Give feeds it is made for: --feeds x.npz.",
            )
        for trial in trials:
            trial.finish()
        return used, len(refusals)

    def _prepare(self, own: Sequence[Feed]) -> None:
        """Let the reference choose its yardstick on the first feed that it takes; a model that takes none is found out
        later.
        """
        for feed in (*own, *self._attempts()):
            try:
                self.reference.prepare(feed.arrays)
            except Refused:
                continue
            return

    def _attempts(self) -> Iterator[Feed]:
        for spec in (*grid(self.signature, self.seed), *spares(self.signature, self.seed)):
            yield build(self.signature, spec)

    def _shuffled(self, specs: Sequence[Spec]) -> list[Spec]:
        """Random order, but feeds of one shape together: what a runtime keeps between calls, it loses when shapes
        change.
        """
        order = random.Random(self.seed)  # noqa: S311 - an order, not a secret
        sizes = list(dict.fromkeys(spec.sizes for spec in specs))
        order.shuffle(sizes)
        shuffled = list(specs)
        order.shuffle(shuffled)
        return sorted(shuffled, key=lambda spec: sizes.index(spec.sizes))

    def _measure_orders(self, pool: Pool, used: Sequence[Feed]) -> None:
        """Noise of the classes for which float64 is no yardstick."""
        needed = {feed.kind for feed in used if pool.needs_orders(feed.kind)}
        for feed in used:
            if feed.kind in needed:
                arrays = self._whole(feed).arrays
                plain = self.reference.plain(arrays)
                for other in self.reference.orders(arrays):
                    pool.add_order(feed.kind, plain, other)
        if any(not pool.measured(kind) for kind in needed):
            raise UsageError(
                f"nothing shows how exact float32 is in {self.name}.", "Give an explicit tolerance: --atol or --rtol."
            )

    def _measure_again(self, pool: Pool, used: Sequence[Feed], trials: Sequence[Trial]) -> None:
        """More samples of the noise, one operation at a time and at feeds one unit in the last place away, of the
        classes in which a verdict is close.

        (Where scores nearly tie, the error of float32 has no upper end: Keras may have been lucky on the feed itself,
        or in the graph that TensorFlow simplified.)
        """
        close = {
            finding.feed.kind for trial in trials for finding in findings(trial, pool) if CLOSE < finding.ratio < CLEAR
        }
        for feed in used:
            if feed.kind in close:
                arrays = self._whole(feed).arrays
                with suppress(Refused):
                    pool.add(feed.kind, self.reference.eager(arrays))
                for seed in range(RESAMPLES):
                    with suppress(Refused):
                        pool.add(feed.kind, self.reference.expected(nudged(self.signature, arrays, seed)))
        if close:
            self._measure_orders(pool, used)

    def _whole(self, feed: Feed) -> Feed:
        return feed if feed.spec is None else replace(build(self.signature, feed.spec), kind=feed.kind)

    def _save(self, trial: Trial, judged: Sequence[Finding], noise: Pool | None, folder: Path) -> str | None:
        """Where the failing feed is, shrunk and written, when there is one."""
        worst = worst_of(judged)
        if worst is not None and worst.failed:
            failed = worst.feed
        elif trial.broken:
            failed = trial.broken[0][0]
        else:
            return None

        def fails(feed: Feed) -> bool:
            # Whatever it was made into, it is judged by the noise of where it came from.
            feed = replace(feed, kind=failed.kind)
            probe = trial.fresh()
            try:
                probe.take(feed, self.reference.expected(feed.arrays))
            except Refused:
                return False
            return bool(probe.broken) or any(finding.failed for finding in findings(probe, noise))

        return save(shrink(self.signature, self._whole(failed), fails), folder, trial.path)
