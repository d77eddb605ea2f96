"""serve.py: answers over HTTP are those of a single process, whoever is killed; it ends without cutting one off."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests
from client import ask_all

from conftest import SCRIPTS, TOLERANCE, descendants

PATIENCE = 120.0
REPLICA = "ray::ServeReplica:default:Digits"


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    url: str

    def replicas(self) -> list[int]:
        return [pid for pid, title in descendants(self.process.pid) if title.startswith(REPLICA)]


@pytest.fixture(scope="module")
def server(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = [sys.executable, str(SCRIPTS / "serve.py"), str(exported / "digits.onnx"), "--port", str(port)]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as file, subprocess.Popen(run, stdout=file, stderr=file, text=True) as process:
        until = time.monotonic() + PATIENCE
        while "ready on" not in log.read_text() and time.monotonic() < until:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield Server(process, re.search(r"ready on (\S+)", log.read_text())[1])
        process.terminate()


def test_requests_of_several_lengths_are_answered_together(
    server: Server, sequences: list[np.ndarray], alone: np.ndarray
) -> None:
    answers = ask_all(server.url, sequences)
    given = np.array([answer["probabilities"] for answer in answers])
    assert np.abs(given - alone).max() <= TOLERANCE
    assert [answer["digit"] for answer in answers] == list(given.argmax(axis=1))
    assert np.abs(given - np.roll(alone, 1, axis=0)).max() > TOLERANCE  # had two been exchanged, it would show
    sizes = [answer["batch"] for answer in answers]
    assert 1 < max(sizes) <= 16
    assert np.mean(sizes) > 2


def test_one_request_alone_does_not_wait_for_others(server: Server, sequences: list[np.ndarray]) -> None:
    assert [answer["batch"] for answer in ask_all(server.url, sequences[:3], at_once=1)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "body: Field required."),
        ("{", "JSON decode error."),
        ("[1]", "body: Input should be a valid dictionary"),
        ('{"rows": []}', "body.rows: List should have at least 1 item"),
        ('{"rows": [[0, 0]]}', "body.rows.0: List should have at least 9 items"),
        ('{"rows": [[0, 0, 0, 0, 0, 0, 0, 0, "x"]]}', "body.rows.0.8: Input should be a valid number"),
        ('{"rows": [[0, 0, 0, 0, 0, 0, 0, 0, NaN]]}', "body.rows.0.8: Input should be a finite number"),
        ('{"rows": [[0, 0, 0, 0, 0, 0, 0, 0, 1e300]]}', "body.rows.0.8: Input should be less than or equal to 1"),
        (json.dumps({"rows": [[0] * 9] * 513}), "body.rows: List should have at most 512 items"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(server: Server, body: str, said: str) -> None:
    answer = requests.post(server.url, data=body, headers={"Content-Type": "application/json"}, timeout=PATIENCE)
    assert answer.status_code == 422
    assert said in answer.json()["error"]


def test_another_method_or_path_is_refused(server: Server) -> None:
    assert requests.get(server.url, timeout=PATIENCE).status_code == 405
    assert requests.post(f"{server.url}other", timeout=PATIENCE).status_code == 404


@pytest.mark.parametrize("count", [1, 2])
def test_killed_replicas_lose_no_request(
    server: Server, sequences: list[np.ndarray], alone: np.ndarray, count: int
) -> None:
    """One, whose part the other takes over, and both."""
    until = time.monotonic() + PATIENCE
    while len(before := server.replicas()) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask_all, server.url, sequences * 4)
        time.sleep(0.5)
        for pid in before[:count]:
            os.kill(pid, signal.SIGKILL)
        assert not asked.done()
        answers = asked.result()
    assert np.abs(np.array([answer["probabilities"] for answer in answers]) - np.tile(alone, (4, 1))).max() <= TOLERANCE
    assert not set(before[:count]) & set(server.replicas())


def test_it_finishes_what_it_answers_and_leaves_nothing_behind(server: Server, sequences: list[np.ndarray]) -> None:
    """Sixteen clients ask on and on; when it stops, each is refused before its request is taken, not cut off."""
    answered = threading.Semaphore(0)

    def last(rows: np.ndarray) -> str:
        while True:
            try:
                answer = requests.post(server.url, json={"rows": rows.tolist()}, timeout=PATIENCE)
            except requests.ConnectionError as error:
                return str(error)
            if answer.status_code != 200:
                return str(answer.status_code)
            answered.release()

    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(last, rows) for rows in sequences[:16]]
        for _ in asked:
            assert answered.acquire(timeout=PATIENCE)
        processes = [pid for pid, _ in descendants(server.process.pid)]
        server.process.terminate()
        ends = {one.result() for one in asked}
    assert all(end == "404" or "refused" in end for end in ends), ends
    assert server.process.wait(PATIENCE) == 0
    until = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in processes) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()]
