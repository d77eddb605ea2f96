"""The server of `--device browser`: what it gives, to whom, and all that it refuses."""

from __future__ import annotations

import io
import re
import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from mh_edge.errors import UnavailableError, UsageError
from mh_edge.profiling.browser import address as addresses
from mh_edge.profiling.browser import server as serving
from mh_edge.profiling.browser.address import Address, address
from mh_edge.profiling.browser.server import HEADERS, Post, RefusedError, Server
from profiling.browsers import Browser

INDEX = b"<!doctype html><p>the page</p>"
MOST = 1000


def echo(body: bytes) -> bytes:
    if body == b"no":
        raise RefusedError(HTTPStatus.CONFLICT, "Not now.")
    if body == b"fault":
        raise KeyError("a fault of ours")
    return b'{"bytes": %d}' % len(body)


def served(folder: Path, place: Address | None = None) -> Server:
    (folder / "model.onnx").write_bytes(b"model" * 200_000)
    files = {
        "/": INDEX,
        "/index.html": INDEX,
        "/models/model.onnx": folder / "model.onnx",
        "/app/main.js": b"// script",
    }
    posts = {"/profile/alive": Post(echo, MOST)}
    return Server(place or address("127.0.0.1"), 0, files, posts, "./?profile", seen.append)


seen: list[str] = []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    seen.clear()
    with served(tmp_path) as server:
        yield server


@pytest.fixture
def browser(server: Server) -> Browser:
    """One that opened the page."""
    browser = Browser(server.url)
    assert browser.open().status == 200
    return browser


def test_its_files(browser: Browser) -> None:
    for path, kind, content in (
        ("/", "text/html; charset=utf-8", INDEX),
        ("/index.html?profile", "text/html; charset=utf-8", INDEX),
        ("/app/main.js", "text/javascript; charset=utf-8", b"// script"),
        ("/models/model.onnx", "application/octet-stream", b"model" * 200_000),
    ):
        answer = browser.ask(path)
        assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, kind, content), path
        head = browser.ask(path, "HEAD")
        assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(content)), b""), path


@pytest.mark.parametrize(
    "path",
    [
        "/model.onnx", "/models/", "/models", "/models/../models/model.onnx", "/../../../../etc/passwd", "//etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd", "/models/model.onnx/", "/index.html%00", "/INDEX.HTML", "/profile/alive",
        "http://evil.example/index.html", "*", "/.", "\\index.html",
    ],
)  # fmt: skip
def test_nothing_else(browser: Browser, path: str) -> None:
    answer = browser.ask(path)
    assert (answer.status, answer.text) == (404, "There is no such file.\n")


def test_every_answer_says_what_a_page_may_do(server: Server, browser: Browser) -> None:
    answers = {
        200: browser.ask("/"),
        404: browser.ask("/nothing"),
        403: Browser(server.url).ask("/"),
        501: browser.ask("/", "OPTIONS"),
        409: browser.ask("/profile/alive", "POST", b"no"),
    }
    for status, answer in answers.items():
        assert answer.status == status
        assert set(HEADERS.items()) <= set(answer.headers.items())
        assert not {"Server", "Date", "Access-Control-Allow-Origin", "Last-Modified"} & set(answer.headers)
    assert HEADERS["Cross-Origin-Embedder-Policy"] == "require-corp"  # threads in WebAssembly
    assert answers[409].text == "Not now.\n"


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "TRACE", "CONNECT", "PATCH", "get", "X"])
def test_three_methods_and_no_more(browser: Browser, method: str) -> None:
    assert browser.ask("/", method).status == 501


def test_the_token_works_once(server: Server) -> None:
    first, second = Browser(server.url), Browser(server.url)
    for looking in ({"method": "HEAD"}, {"Sec_Purpose": "prefetch;prerender"}, {"Purpose": "prefetch"}):
        assert first.ask(server.url[server.url.index("/?") :], **looking).status == 503  # type: ignore[arg-type]
    assert (server.browser, seen) == (None, [])
    answer = first.open()
    assert (answer.status, 'content="0; url=./?profile"' in answer.text) == (200, True)
    assert re.fullmatch(
        rf"mh-edge-{server.port}=[\w-]{{43}}; Path=/; HttpOnly; SameSite=Strict", answer.headers["Set-Cookie"]
    )
    assert server.browser is not None
    assert "Android 15" in server.browser
    assert len(server.token) >= 22  # 128 bits
    refused = second.open()
    assert (refused.status, "Set-Cookie" in refused.headers) == (403, False)
    assert refused.text.startswith("This address was opened before, and works once.")
    assert second.ask("/").status == 403
    assert first.open().status == 200  # the same browser may
    assert first.ask("/").status == 200


def test_of_many_at_once_one_gets_the_cookie(server: Server) -> None:
    browsers = [Browser(server.url) for _ in range(8)]
    threads = [threading.Thread(target=one.open) for one in browsers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(bool(one.cookie) for one in browsers) == 1


@pytest.mark.parametrize("token", ["", "x", "é" * 22, "A" * 22, "A" * 5000])
def test_another_token(server: Server, token: str) -> None:
    answer = Browser(server.url).ask(f"/?token={token.encode().hex() if 'é' in token else token}")
    assert answer.status in (403, 404)
    assert "Set-Cookie" not in answer.headers
    assert server.browser is None


@pytest.mark.parametrize(
    "cookie",
    [None, "", "mh-edge-{port}=", "mh-edge-{port}=x", "other={cookie}", "mh-edge-1={cookie}", "=;=;", "é={cookie}"],
)
def test_without_the_cookie_nothing(server: Server, browser: Browser, cookie: str | None) -> None:
    said = cookie and cookie.format(port=server.port, cookie=server.cookie)
    stranger = Browser(server.url)
    before = list(seen)
    assert stranger.ask("/", Cookie=said).status == 403
    assert stranger.ask("/profile/alive", "POST", b"{}", Cookie=said).status == 403
    assert seen == before
    assert browser.ask("/", Cookie=f"a=b; {browser.cookie}; c=d").status == 200


def test_hosts_of_others(server: Server, browser: Browser) -> None:
    """A name that was bound to this address: its page would be of the same origin as ours."""
    port = server.port
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port + 1}",
        "",
        None,
        f"[::1]:{port}",
    ):
        assert browser.ask("/", Host=host).status == 403, host
        assert browser.open(Host=host).status == 403, host
        refused = browser.ask("/profile/alive", "POST", b"{}", Host=host, Origin=f"http://{host}")
        assert refused.status == 403, host
    assert browser.ask("/", Host=f"LOCALHOST:{port}").status == 200
    assert raw(server, f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.example\r\n\r\n").startswith(
        b"HTTP/1.0 400"
    )


def test_posts_of_other_sites(server: Server, browser: Browser) -> None:
    for origin in (
        None,
        "null",
        "http://evil.example",
        f"https://127.0.0.1:{server.port}",
        f"http://localhost:{server.port}",
    ):
        assert browser.ask("/profile/alive", "POST", b"{}", Origin=origin).status == 403, origin
    for site in ("cross-site", "same-site", "none"):
        assert browser.ask("/profile/alive", "POST", b"{}", Sec_Fetch_Site=site).status == 403, site
    for site in ("cross-site", "same-site"):
        assert browser.ask("/app/main.js", Sec_Fetch_Site=site).status == 403, site
    assert browser.ask("/profile/alive", "POST", b"{}", Sec_Fetch_Site="same-origin").body == b'{"bytes": 2}'


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/json"}, 415),
        ({"Content_Type": None}, 415),
        ({"Content_Length": None}, 411),
        ({"Content_Length": "-1"}, 411),
        ({"Content_Length": "+2"}, 411),
        ({"Content_Length": "0x2"}, 411),
        ({"Content_Length": "٢"}, 411),
        ({"Transfer_Encoding": "chunked"}, 411),
        ({"Content_Length": str(MOST + 1)}, 413),
        ({"Content_Length": "9" * 5000}, 413),
    ],
)
def test_bodies_that_are_not_read(browser: Browser, headers: dict[str, str | None], status: int) -> None:
    headers = {name: value and value.encode().decode("latin-1") for name, value in headers.items()}
    before = list(seen)
    assert browser.ask("/profile/alive", "POST", b"{}", **headers).status == status
    assert seen == before


def test_bodies_up_to_the_limit(browser: Browser) -> None:
    assert browser.ask("/profile/alive", "POST", b"x" * MOST).body == b'{"bytes": 1000}'
    assert browser.ask("/profile/alive", "POST", b"x" * (MOST + 1)).status == 413
    assert browser.ask("/profile/other", "POST", b"").status == 404


def raw(server: Server, text: str | bytes, *, end: bool = True) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(text.encode("latin-1") if isinstance(text, str) else text)
        if end:
            connection.shutdown(socket.SHUT_WR)
        got = b""
        while read := connection.recv(1 << 16):
            got += read
        return got


def test_heads_that_are_too_long_or_none(server: Server, browser: Browser) -> None:
    line = f"GET / HTTP/1.1\r\nHost: {browser.host}\r\nCookie: {browser.cookie}\r\n"
    assert raw(server, f"{line}\r\n").endswith(INDEX)
    assert raw(server, line + f"X: {'x' * serving.HEAD_BYTES}\r\n\r\n").startswith(b"HTTP/1.0 431")
    assert raw(server, line + "".join(f"X-{n}: 1\r\n" for n in range(200)) + "\r\n").startswith(b"HTTP/1.0 431")
    assert raw(server, "GET /" + "x" * 70_000 + " HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.0 431")
    for odd in (
        "\x16\x03\x01\x02\x00\r\n",
        "GET\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1 x\r\n\r\n",
        "\r\n\r\n",
        "",
    ):
        assert INDEX not in raw(server, odd), odd
    assert INDEX not in raw(server, "GET /\r\n\r\n"), "HTTP 0.9"
    short = f"POST /profile/alive HTTP/1.1\r\nHost: {browser.host}\r\nCookie: {browser.cookie}\r\nOrigin: http://{browser.host}\r\n"
    assert b"shorter than was said" in raw(
        server, f"{short}Content-Type: application/octet-stream\r\nContent-Length: 9\r\n\r\n123"
    )


def test_a_request_that_takes_its_time_is_ended(
    server: Server, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEAD_SECONDS", 0.2)
    assert raw(server, "GET / HT", end=False) == b""
    with socket.create_connection(("127.0.0.1", server.port), 0.05) as connection:
        for _ in range(100):  # a byte now and then, each in time
            try:
                connection.sendall(b"G")
                if connection.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            pytest.fail("it waits for ever")
    assert browser.ask("/").status == 200


def test_no_more_connections_than_a_browser_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "CONNECTIONS", 2)
    with served(tmp_path) as server:
        browser = Browser(server.url)
        browser.open()
        held = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(2)]
        for one in held:
            one.sendall(b"GET ")
        with socket.create_connection(("127.0.0.1", server.port), 10) as third:
            assert third.recv(1) == b""
        for one in held:
            one.close()
        until = threading.Event()
        while server._free._value < 2:
            until.wait(0.01)
        assert browser.ask("/").status == 200


def test_nothing_is_printed_and_no_fault_is_lost(
    browser: Browser, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - closed without an answer
        browser.ask("/profile/alive", "POST", b"fault")
    assert isinstance(server.fault, KeyError)
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(b"GET /models/model.onnx HTTP/1.1\r\nHo")  # goes away
    assert browser.ask("/nothing").status == 404
    assert capfd.readouterr() == ("", "")


def test_when_it_is_left_it_is_gone(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        browser = Browser(server.url)
        browser.open()
    with pytest.raises(ConnectionRefusedError):
        browser.ask("/")
    with served(tmp_path) as again:
        assert (again.token, again.cookie) != (server.token, server.cookie)


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert address("127.0.0.1") == Address("127.0.0.1", socket.AF_INET, ("127.0.0.1", "localhost"), True)
    assert address("::1") == address("[::1]") == Address("::1", socket.AF_INET6, ("[::1]", "localhost"), True)
    assert address("192.168.1.5").names == ("192.168.1.5",)
    assert not address("192.168.1.5").loopback
    assert address("localhost").loopback
    assert address("127.1") == address("127.0.0.1")
    assert address("LOCALHOST").names == ("localhost",)
    monkeypatch.setattr(addresses, "_outward", {socket.AF_INET: "10.0.0.7", socket.AF_INET6: "2001:db8::7"}.__getitem__)
    assert address("0.0.0.0") == Address("0.0.0.0", socket.AF_INET, ("10.0.0.7",), False)  # noqa: S104
    assert address("::").hosts(8000) == ("[2001:db8::7]:8000",)
    assert address("0.0.0.0").hosts(80) == ("10.0.0.7:80", "10.0.0.7")  # noqa: S104


@pytest.mark.parametrize(
    "host", ["fe80::1%eth0", "no such host", "999.1.1.1", "", "host.invalid", "http://x", "x" * 300]
)
def test_what_is_no_address(host: str) -> None:
    with pytest.raises(UsageError, match="--host"):
        address(host)


def test_a_machine_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "FAR", {socket.AF_INET: ("255.255.255.255", 9)})  # not without a permission
    with pytest.raises(UnavailableError, match="no network"):
        address("0.0.0.0")  # noqa: S104


def test_a_phone_reaches_it_by_the_address_that_is_shown_and_by_no_other(tmp_path: Path) -> None:
    everywhere = Address("0.0.0.0", socket.AF_INET, ("127.0.0.1",), False)  # noqa: S104
    with served(tmp_path, everywhere) as server:
        browser = Browser(server.url)
        assert browser.open().status == 200
        for host in (f"localhost:{server.port}", f"0.0.0.0:{server.port}"):
            assert browser.ask("/", Host=host).status == 403


@pytest.mark.skipif(not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists(), reason="no IPv6 here")
def test_ipv6(tmp_path: Path) -> None:
    with served(tmp_path, address("::1")) as server:
        assert server.url.startswith(f"http://[::1]:{server.port}/?token=")
        browser = Browser(server.url)
        assert browser.open().status == 200
        assert browser.ask("/profile/alive", "POST", b"{}").status == 200


def test_a_port_that_is_taken_or_an_address_of_another_machine(tmp_path: Path, server: Server) -> None:
    with pytest.raises(UsageError, match=r"nothing can be served at 127\.0\.0\.1"):
        Server(address("127.0.0.1"), server.port, {}, {}, "", seen.append)
    with pytest.raises(UsageError, match=r"nothing can be served at 192\.0\.2\.1"):
        Server(address("192.0.2.1"), 0, {}, {}, "", seen.append)


def test_what_is_read_ends_where_it_may() -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"x" * 100)
        patient = serving._Patient(here)
        patient.left = 10
        reader = io.BufferedReader(patient)
        assert reader.read(10) == b"x" * 10
        with pytest.raises(RefusedError, match="too long"):
            reader.read(1)
        patient.allow(90)
        assert reader.read(90) == b"x" * 90
