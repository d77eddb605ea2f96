"""The device's end of adb, so that the real `adb` can be tried without a phone: NOT A DEVICE, its shell is this
machine's `sh` in a folder.

As much of the protocol as adb 29 uses for `shell` and `push`: packages/modules/adb/protocol.txt, shell_protocol.h,
SYNC.TXT of Android.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

VERSION = 0x01000001  # the first without check sums
MOST = 1 << 18
BANNER = b"device::ro.product.name=stand_in;ro.product.model=Stand-in;ro.product.device=stand_in;features=shell_v2,cmd"
PROPERTIES = "getprop() { case $1 in *model) echo Stand-in;; *release) echo 15;; *abi) echo arm64-v8a;; esac; }; "
STDOUT, STDERR, EXIT = 1, 2, 3


class Device:
    """Listens on 127.0.0.1 until it is closed. there(path or command): where /data/local/tmp lies on this machine.
    arrived(path): called with each file that was pushed.
    """

    def __init__(self, there: Callable[[str], str], arrived: Callable[[Path], None]) -> None:
        self.there, self.arrived = there, arrived
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self.listening.close()

    def _listen(self) -> None:
        while True:
            try:
                host, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=_Transport(host, self).serve, daemon=True).start()


class _Transport:
    def __init__(self, host: socket.socket, device: Device) -> None:
        self.host, self.device = host, device
        self.streams: dict[int, _Stream] = {}
        self.sending = threading.Lock()

    def serve(self) -> None:
        while header := self._exactly(24):
            command, first, second, length, _, _ = struct.unpack("<4s5I", header)
            data = self._exactly(length)
            if command == b"CNXN":
                self.send(b"CNXN", VERSION, MOST, BANNER)
            elif command == b"OPEN":
                self.streams[first] = stream = _Stream(self, first)
                self.send(b"OKAY", first, first)
                serve = stream.sync if data.startswith(b"sync:") else stream.shell
                threading.Thread(target=serve, args=(data.rstrip(b"\0").decode(),), daemon=True).start()
            elif first in self.streams or second in self.streams:
                stream = self.streams[second]
                if command == b"WRTE":
                    stream.receive(data)
                    self.send(b"OKAY", second, first)
                elif command == b"OKAY":
                    stream.taken.release()
                elif command == b"CLSE":
                    stream.receive(b"")

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        magic = int.from_bytes(command, "little") ^ 0xFFFFFFFF
        with self.sending:
            self.host.sendall(struct.pack("<4s5I", command, first, second, len(data), 0, magic) + data)

    def _exactly(self, length: int) -> bytes:
        found = b""
        while len(found) < length:
            try:
                more = self.host.recv(length - len(found))
            except OSError:
                return b""
            if not more:
                return b""
            found += more
        return found


class _Stream:
    """One service for the host; here both ends call it by the host's number."""

    def __init__(self, transport: _Transport, number: int) -> None:
        self.transport, self.number = transport, number
        self.taken = threading.Semaphore(0)
        self.arriving = threading.Condition()
        self.buffer, self.ended = b"", False

    def receive(self, data: bytes) -> None:
        with self.arriving:
            self.buffer += data
            self.ended |= not data
            self.arriving.notify()

    def shell(self, service: str) -> None:
        """shell,v2,raw:COMMAND"""
        command = PROPERTIES + self.transport.device.there(service.partition(":")[2])
        done = subprocess.run(["sh", "-c", command], capture_output=True, stdin=subprocess.DEVNULL)
        for kind, data in ((STDOUT, done.stdout), (STDERR, done.stderr), (EXIT, bytes([done.returncode % 256]))):
            if data:
                self._write(struct.pack("<BI", kind, len(data)) + data)
        self.transport.send(b"CLSE", self.number, self.number)

    def sync(self, service: str) -> None:
        """STAT, RECV and SEND with DATA and DONE, QUIT."""
        while (request := self._read(8)) and request[:4] != b"QUIT":
            text = self._read(int.from_bytes(request[4:], "little")).decode()
            path = Path(self.transport.device.there(text))
            if request[:4] == b"STAT":
                found = path.stat() if path.is_file() else None
                told = (found.st_mode, found.st_size, int(found.st_mtime)) if found else (0, 0, 0)
                self._write(b"STAT" + struct.pack("<3I", *told))
                continue
            if request[:4] == b"RECV":
                content = path.read_bytes()
                self._write(b"DATA" + struct.pack("<I", len(content)) + content + b"DONE" + bytes(4))
                continue
            assert request[:4] == b"SEND", request
            path = Path(self.transport.device.there(text.rpartition(",")[0]))
            path.parent.mkdir(parents=True, exist_ok=True)
            content = b""
            while (part := self._read(8))[:4] == b"DATA":
                content += self._read(int.from_bytes(part[4:], "little"))
            path.write_bytes(content)
            self.transport.device.arrived(path)
            self._write(b"OKAY" + bytes(4))
        self.transport.send(b"CLSE", self.number, self.number)

    def _write(self, data: bytes) -> None:
        for start in range(0, len(data), MOST):
            self.transport.send(b"WRTE", self.number, self.number, data[start : start + MOST])
            self.taken.acquire()

    def _read(self, length: int) -> bytes:
        with self.arriving:
            self.arriving.wait_for(lambda: len(self.buffer) >= length or self.ended)
            found, self.buffer = self.buffer[:length], self.buffer[length:]
        return found
