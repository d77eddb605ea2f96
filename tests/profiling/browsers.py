"""A browser's part, played in Python: it opens the address, and sends what a page would. NO BROWSER IS TESTED HERE."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from mh_edge.bundling.web import RUNTIMES

AGENT = "Mozilla/5.0 (Linux; Android 15; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
BODY = "application/octet-stream"

Arrays = Mapping[str, np.ndarray]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Browser:
    """One that shows the address."""

    url: str
    cookie: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str | None) -> Answer:
        """headers: in place of what a browser sends, with _ for -; None leaves one out."""
        said: dict[str, str | None] = {"Host": self.host, "User-Agent": AGENT, "Cookie": self.cookie or None}
        if body is not None:
            said |= {"Origin": f"http://{self.host}", "Content-Type": BODY, "Content-Length": str(len(body))}
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in said.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def open(self, **headers: str | None) -> Answer:
        """Exchange the token for the cookie."""
        place = urlsplit(self.url)
        answer = self.ask(f"{place.path}?{place.query}", **headers)
        if "Set-Cookie" in answer.headers:
            self.cookie = answer.headers["Set-Cookie"].partition(";")[0]
        return answer

    def post(self, where: str, told: object, arrays: Sequence[np.ndarray] = (), **headers: str | None) -> Answer:
        return self.ask(f"/profile/{where}", "POST", frame(told, arrays), **headers)

    def plan(self) -> Any:
        self.open()
        return json.loads(self.ask("/profile.json").body)


def frame(told: object, arrays: Sequence[np.ndarray] = ()) -> bytes:
    text = json.dumps(told).encode()
    return len(text).to_bytes(4, "little") + text + b"".join(one.tobytes() for one in arrays)


def described(run: Arrays) -> dict[str, Any]:
    return {name: {"dtype": str(one.dtype), "shape": list(one.shape)} for name, one in run.items()}


def whole(nodes: int = 1) -> dict[str, Any]:
    return {"nodes": nodes, "on_device": nodes, "partitions": 1, "fallbacks": [], "proof": "its log", "whole": True}


def checked(row: int, runs: Sequence[Arrays], **other: Any) -> tuple[dict[str, Any], list[np.ndarray]]:
    """What is posted of a row before it is timed."""
    told = {"row": row, "absent": None, "error": None, "runtime": "onnxruntime-web 1.30.0", "threads": 1}
    told |= {"placement": whole(), "outputs": [described(run) for run in runs]}
    return told | other, [one for run in runs for one in run.values()]


def timed(row: int, run: Arrays, ms: float = 1.0, **other: Any) -> tuple[dict[str, Any], list[np.ndarray]]:
    """What is posted of a row after it was timed."""
    opening = {"load_ms": 30.0, "first_ms": 5.0, "ms": [ms, ms * 1.01, ms * 0.99] * 4, "control_ms": [ms] * 3}
    told = {"row": row, "error": None, "openings": [opening] * 5, "group": 1, "steady": None}
    return told | {"outputs": [described(run)]} | other, list(run.values())


def node_modules(folder: Path) -> Path:
    """A folder like that which npm makes, with nothing in the packages."""
    for runtime in RUNTIMES.values():
        for package, files in {runtime.package: {**runtime.files, **runtime.gpu}, **runtime.needs}.items():
            for name in files:
                path = folder / package / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text('{"version": "1.30.0"}' if name == "package.json" else "// nothing")
    return folder
