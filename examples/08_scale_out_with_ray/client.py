"""Asks serve.py for the digits of an .npz, many at a time, and repeats what a dying worker left unanswered."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

TRIES = 8  # with pauses of 0.2, 0.4, 0.8 ... seconds: a new worker is there in less
AT_ONCE = 32


def patient() -> requests.Session:
    """Repeats on a lost connection and on what a server says while a worker is replaced. A request changes nothing
    there, so it may be asked twice; a 4xx is the client's own fault and would come again.
    """
    again = Retry(TRIES, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504), allowed_methods=("POST",))
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=again, pool_maxsize=AT_ONCE))
    return session


def ask_all(url: str, sequences: Sequence[np.ndarray], at_once: int = AT_ONCE) -> list[dict[str, Any]]:
    """sequences: each (steps, 9) -> the answers in the same order."""
    with patient() as session, ThreadPoolExecutor(at_once) as pool:

        def ask(rows: np.ndarray) -> dict[str, Any]:
            answer = session.post(url, json={"rows": rows.tolist()}, timeout=60)
            answer.raise_for_status()
            return answer.json()

        return list(pool.map(ask, sequences))


def main(url: str, digits: str) -> None:
    with np.load(digits, allow_pickle=False) as held:
        sequences = [rows[valid] for rows, valid in zip(held["rows"], held["valid"], strict=True)]
        labels = held["labels"]
    answers = ask_all(url, sequences)
    print(f"right: {np.mean([answer['digit'] for answer in answers] == labels):.1%}")
    batches = Counter(answer["batch"] for answer in answers)
    print("answered together: " + ", ".join(f"{size}: {count // size}x" for size, count in sorted(batches.items())))


if __name__ == "__main__":
    main(*sys.argv[1:])
