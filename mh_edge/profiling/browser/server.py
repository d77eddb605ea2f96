"""`Server`: files and a few POSTs for ONE browser, which proves itself by a token that works once.

Nothing of a request names a file: its path is looked up in a table. Every request must name one of the server's own
hosts, so that a page of another name that was bound to this address gets nothing (DNS rebinding). The token is
exchanged for a cookie that no script reads and no other site sends. What a POST holds is read only from that browser,
from a page of ours, and only as much as its path allows.
"""

from __future__ import annotations

import io
import secrets
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

from mh_edge.errors import UsageError
from mh_edge.profiling.browser.address import Address

HEAD_BYTES = 1 << 15
"""Of a request's first line and headers; a browser's are about 1 KB."""

HEAD_SECONDS = 10.0
"""For those."""

LEAST_RATE = 20_000
"""Bytes a second, at least, beside HEAD_SECONDS: of a body, and of what is sent to a slow phone."""

CONNECTIONS = 32
"""At the same time. Browsers open 6 for each host."""

FAREWELL_SECONDS = 2.0
"""For answers that are on their way when the server stops."""

CHUNK = 1 << 16
DRAINED = 1 << 20
"""Bytes of a refused request that are read and thrown away."""

BODY_TYPE = "application/octet-stream"
"""Of every POST. It is none of those that a form of another site could send."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval' blob:; "
    "worker-src 'self' blob:; connect-src 'self' blob: data:; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'; object-src 'none'",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""On every answer. Both Cross-Origin-...-Policy of the page are what gives it threads; wasm is compiled, and runtimes
start their workers from blobs.
"""

TYPES = {
    ".css": "text/css; charset=utf-8", ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8", ".json": "application/json", ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}  # fmt: skip
"""Suffix -> type; of any other file it is BODY_TYPE."""

WELCOME = """<!doctype html><html lang="en"><meta charset="utf-8"><title>mh-edge</title>
<link rel="icon" href="data:,"><meta http-equiv="refresh" content="0; url={}"><p>One moment ...</p></html>"""
"""The answer to the token: a page that leads on from itself. A redirection would be made in the name of whoever sent
the browser here, and then a SameSite cookie is not sent.
"""


class RefusedError(Exception):
    """A request that is not answered, and why: a sentence."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


@dataclass(frozen=True)
class Post:
    """What is done with the body of a POST -> the body of the answer, JSON. most: bytes that it may hold. It raises
    RefusedError.
    """

    take: Callable[[bytes], bytes]
    most: int


class Server(ThreadingTCPServer):
    """Runs while it is entered. `url` is what the browser is to open. `browser` is its User-Agent once it came, None
    before. `fault` is what went wrong here and must not be lost.

    files: path ("/index.html") -> content, or the file that holds it. home: path and query to which the token leads.
    on_request(path): is told every request of that browser.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = CONNECTIONS

    def __init__(
        self,
        place: Address,
        port: int,
        files: Mapping[str, bytes | Path],
        posts: Mapping[str, Post],
        home: str,
        on_request: Callable[[str], None],
    ) -> None:
        """Raises UsageError where it cannot listen there."""
        self.address_family = place.family
        self.files, self.posts, self.home, self.on_request = files, posts, home, on_request
        self.browser: str | None = None
        self.fault: BaseException | None = None
        self.token, self.cookie = secrets.token_urlsafe(16), secrets.token_urlsafe(32)
        self.exchange = threading.Lock()
        self._free = threading.Semaphore(CONNECTIONS)
        try:
            super().__init__((place.bind, port), _Handler)
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(
                f"nothing can be served at {place.bind}, port {port}: {why}.",
                "--port 0 takes a free one; --host names an address of this machine.",
            ) from error
        self.port: int = self.server_address[1]
        self.hosts = place.hosts(self.port)
        self.cookie_name = f"mh-edge-{self.port}"  # cookies of one host are those of all its ports
        self.url = f"http://{self.hosts[0]}/?token={self.token}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()
        self.server_close()
        until = time.monotonic() + FAREWELL_SECONDS
        for _ in range(CONNECTIONS):
            self._free.acquire(timeout=max(0.0, until - time.monotonic()))

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing is printed: a browser that went away is none of our faults, and others are kept."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.fault = error


class _Patient(io.RawIOBase):
    """What a connection sends, at most so many bytes and until a moment; beyond that it raises."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.left = HEAD_BYTES
        self.until = time.monotonic() + HEAD_SECONDS

    def readable(self) -> bool:
        return True

    def allow(self, count: int) -> None:
        """So many bytes more, and the time for them."""
        self.left += count
        self.until += count / LEAST_RATE

    def readinto(self, buffer: Any) -> int:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if not self.left:
            raise RefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers of this request are too long.")
        self.connection.settimeout(left)
        count = self.connection.recv_into(memoryview(buffer)[: self.left])
        self.left -= count
        return count


class _Handler(BaseHTTPRequestHandler):
    """One request; the connection is closed after it."""

    server: Server
    command = request_version = ""  # until a first line was read

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.patient = _Patient(self.connection)
        self.rfile = io.BufferedReader(self.patient)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except RefusedError as refused:
            self._refuse(refused.status, refused.why)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses: methods that there are not, malformed requests."""
        del message, explain
        self._refuse(HTTPStatus(code), f"{HTTPStatus(code).phrase}.")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self._require_host()
        path, _, query = self.path.partition("?")
        given = parse_qs(query).get("token")
        if path == "/" and given is not None:
            self._exchange(given[0])
            return
        if self._header("Sec-Fetch-Site") not in (None, "same-origin", "none"):
            raise RefusedError(HTTPStatus.FORBIDDEN, "Another site may not ask for this.")
        self._require_cookie()
        content = self.server.files.get(path)
        if content is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "There is no such file.")
        self.server.on_request(path)
        suffix = Path(path).suffix if path != "/" else ".html"
        self._answer(HTTPStatus.OK, TYPES.get(suffix, BODY_TYPE), content)

    def do_POST(self) -> None:
        self._require_host()
        host = self._header("Host")
        if self._header("Origin") != f"http://{host}" or self._header("Sec-Fetch-Site") not in (None, "same-origin"):
            raise RefusedError(HTTPStatus.FORBIDDEN, "Another site may not send this.")
        self._require_cookie()
        post = self.server.posts.get(self.path)
        if post is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "Nothing is taken there.")
        if self._header("Content-Type") != BODY_TYPE:
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"The body must be of the type {BODY_TYPE}.")
        body = self._body(post.most)
        self.server.on_request(self.path)
        self._answer(HTTPStatus.OK, TYPES[".json"], post.take(body))

    def _body(self, most: int) -> bytes:
        length = self._header("Content-Length") or ""
        if not (length.isascii() and length.isdigit()) or self._header("Transfer-Encoding") is not None:
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "The length of the body must be said.")
        if len(length) > len(str(most)) or int(length) > most:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body may hold at most {most} bytes.")
        self.patient.allow(int(length))
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "The body is shorter than was said.")
        return body

    def _header(self, name: str) -> str | None:
        """None where it is missing. One that comes twice is nothing that a browser sends."""
        found = self.headers.get_all(name, [])
        if len(found) > 1:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"The header {name} comes twice.")
        return str(found[0]) if found else None

    def _require_host(self) -> None:
        if (self._header("Host") or "").lower() not in self.server.hosts:
            raise RefusedError(HTTPStatus.FORBIDDEN, "This server is not reached by that name.")

    def _require_cookie(self) -> None:
        if not self._has_cookie():
            raise RefusedError(HTTPStatus.FORBIDDEN, "Open the address that mh-edge printed, with its token.")

    def _has_cookie(self) -> bool:
        given = [one.strip().partition("=") for one in (self._header("Cookie") or "").split(";")]
        return any(_same(value, self.server.cookie) for name, _, value in given if name == self.server.cookie_name)

    def _exchange(self, token: str) -> None:
        """The cookie for the token, once; whoever looks without opening gets none."""
        if not _same(token, self.server.token):
            raise RefusedError(HTTPStatus.FORBIDDEN, "This is not the token that mh-edge printed.")
        if self.command == "HEAD" or "prefetch" in (self._header("Sec-Purpose") or self._header("Purpose") or ""):
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "This address works once: when it is opened.")
        with self.server.exchange:
            if self.server.browser is not None and not self._has_cookie():
                raise RefusedError(
                    HTTPStatus.FORBIDDEN,
                    "This address was opened before, and works once. Run mh-edge profile again for another one.",
                )
            self.server.browser = self._header("User-Agent") or ""
        self.server.on_request("/")
        cookie = f"{self.server.cookie_name}={self.server.cookie}; Path=/; HttpOnly; SameSite=Strict"
        self._answer(HTTPStatus.OK, TYPES[".html"], WELCOME.format(self.server.home).encode(), {"Set-Cookie": cookie})

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._answer(status, "text/plain; charset=utf-8", f"{why}\n".encode())
        # A connection that is closed while something lies there unread is reset, and the answer is lost with it.
        self.connection.shutdown(socket.SHUT_WR)
        left, until = DRAINED, time.monotonic() + FAREWELL_SECONDS
        while left > 0 and (seconds := until - time.monotonic()) > 0:
            self.connection.settimeout(seconds)
            if not (read := len(self.connection.recv(CHUNK))):
                return
            left -= read

    def _answer(
        self, status: HTTPStatus, kind: str, content: bytes | Path, headers: Mapping[str, str] | None = None
    ) -> None:
        length = len(content) if isinstance(content, bytes) else content.stat().st_size
        self.connection.settimeout(HEAD_SECONDS)
        self.send_response_only(status)
        told = {
            **HEADERS,
            **(headers or {}),
            "Content-Type": kind,
            "Content-Length": str(length),
            "Connection": "close",
        }
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if isinstance(content, bytes):
            self.connection.settimeout(HEAD_SECONDS + length / LEAST_RATE)
            self.wfile.write(content)
            return
        with content.open("rb") as file:
            shutil.copyfileobj(file, self.wfile, round(HEAD_SECONDS * LEAST_RATE))  # each piece has HEAD_SECONDS


def _same(given: str, known: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "replace"), known.encode())
