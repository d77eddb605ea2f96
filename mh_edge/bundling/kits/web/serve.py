"""Serve this folder: python serve.py [--host 127.0.0.1] [--port 8000]. It needs Python alone.

It sends the two headers with which browsers let a page have threads and a fine clock. With --host 0.0.0.0 other
machines reach it too; over plain http they then get neither these nor WebGPU, which browsers keep for secure contexts.
"""

from __future__ import annotations

import argparse
import contextlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cache-Control": "no-cache",
}


class Handler(SimpleHTTPRequestHandler):
    """Files of one folder, with HEADERS."""

    extensions_map = {  # noqa: RUF012  as in the base class
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        """Send HEADERS with every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()


def main() -> None:
    """Serve until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any that is free")
    given = parser.parse_args()
    folder = Path(__file__).resolve().parent
    with ThreadingHTTPServer((given.host, given.port), partial(Handler, directory=str(folder))) as server:
        print(f"http://{given.host}:{server.server_port}/", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
