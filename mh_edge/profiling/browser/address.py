"""Where the page is served: the address to listen at, and the one by which a browser reaches it."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from mh_edge.errors import UnavailableError, UsageError

LOOPBACK = "127.0.0.1"

FAR = {socket.AF_INET: ("192.0.2.1", 9), socket.AF_INET6: ("2001:db8::1", 9)}
"""Addresses that stand for any far one (RFC 5737, RFC 3849): the system tells which of its own would lead there, and
nothing is sent.
"""


@dataclass(frozen=True)
class Address:
    """bind: the address to listen at, of that family. names: the hosts of which a request may be, as they stand in an
    URL; the first one is shown. loopback: nobody else can reach it, and browsers trust it as they trust https.
    """

    bind: str
    family: socket.AddressFamily
    names: tuple[str, ...]
    loopback: bool

    def hosts(self, port: int) -> tuple[str, ...]:
        """What the header Host may be."""
        return tuple(f"{name}:{port}" for name in self.names) + (self.names if port == 80 else ())


def address(host: str) -> Address:
    """The address of `--host`: an IP address or a name of this machine; 0.0.0.0 and :: listen at all of its addresses,
    and are reached by the one that leads to the network.

    Raises UsageError for what is no address, UnavailableError where this machine has no network.
    """
    try:
        number = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return _named(host)
    family = socket.AF_INET if number.version == 4 else socket.AF_INET6
    if "%" in str(number):
        raise UsageError(f"--host {host} names a network interface, which no URL can.", "Give an address without %.")
    if number.is_unspecified:
        outward = _outward(family)
        return Address(str(number), family, (_shown(outward),), loopback=False)
    names = (_shown(str(number)), *(("localhost",) if number.is_loopback else ()))
    return Address(str(number), family, names, number.is_loopback)


def _named(host: str) -> Address:
    try:
        family, _, _, _, place = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(
            f"--host {host!r} is no address of this machine.", "Give one, such as 192.168.1.5, or 0.0.0.0 for any."
        ) from error
    bind = str(place[0])
    if not any(one.isalpha() for one in host):  # browsers write 127.1 out before they ask for it
        return address(bind)
    return Address(bind, family, (host.lower(),), ipaddress.ip_address(bind).is_loopback)


def _outward(family: socket.AddressFamily) -> str:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(FAR[family])
        except OSError as error:
            raise UnavailableError(
                "this machine has no address by which others could reach it: no network.",
                "Connect it to one, or name its address: --host ADDRESS.",
            ) from error
        return str(probe.getsockname()[0])


def _shown(number: str) -> str:
    return f"[{number}]" if ":" in number else number
