"""The failing feed, made as small as it still fails, and kept in a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from mh_edge.arrayfiles import write_npz
from mh_edge.commit import system_errors_named
from mh_edge.signature import Signature
from mh_edge.verification.feeds import Feed, Spec, batch_name, build

MOST_ATTEMPTS = 40


def shrink(signature: Signature, feed: Feed, fails: Callable[[Feed], bool]) -> Feed:
    """The simplest feed found that still fails: fewer rows, shorter, without mask, ordinary values, then zero in most
    places.

    Greedy: a simplification that still fails is kept and everything is tried again from there; the user's own feeds
    stay as they are.
    """
    attempts = 0
    while feed.spec is not None and attempts < MOST_ATTEMPTS:
        for simpler in _simpler(signature, feed.spec):
            attempts += 1
            smaller = build(signature, simpler)
            if fails(smaller):
                feed = smaller
                break
        else:
            break
    return feed


def _simpler(signature: Signature, spec: Spec) -> Iterator[Spec]:
    batch = batch_name(signature)
    for position, (name, size) in enumerate(spec.sizes):
        for smaller in dict.fromkeys((1, size // 2) if name == batch else (1, 2, size // 2)):
            if 0 < smaller < size:
                yield replace(spec, sizes=(*spec.sizes[:position], (name, smaller), *spec.sizes[position + 1 :]))
    if spec.mask != "none":
        yield replace(spec, mask="none")
    if spec.values == "large":
        yield replace(spec, values="normal")
    if spec.values == "normal":
        yield replace(spec, values="zero")


def save(feed: Feed, folder: Path, artifact: str) -> str:
    """Write the feed as .npz -> its path."""
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", feed.name).strip("-")
    path = folder / f"{Path(artifact).name}.{slug}.npz"
    with system_errors_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_npz(path, feed.arrays)
    return str(path)
