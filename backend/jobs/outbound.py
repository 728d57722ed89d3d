"""Whom this machine may call: the hosts that its admin allowed, and nobody else.

    <data>/outbound.txt     a host each line: chat.plant.example, *.plant.example, 10.20.0.7, 10.20.0.0/16, localhost; # begins a remark

Any visitor may set a channel in the app, and the machine that sends reaches what visitors do not: itself, other machines of the plant, the
address at which a cloud hands out its keys. So without the file nothing goes out. Hosts that stand in alerts.toml are allowed by that: who
writes there has the machine. A name that is allowed may still lead to this machine or to such an address (DNS is not ours): those are
called only where they are listed themselves. Knows nothing of channels or messages.
"""

import os
import socket
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from backend.config import data_root
from backend.errors import ConfigError, ResourceError

FILE = "outbound.txt"
# Where clouds answer with credentials, besides the link-local 169.254.169.254: AWS by IPv6, Azure's wire server, Alibaba.
METADATA = {"fd00:ec2::254", "168.63.129.16", "100.100.100.200"}
NAT64 = ip_network("64:ff9b::/96")
NOT_LISTED = ("{} is not among the hosts that messages may go to. Who keeps this machine allows it by a line in the file "
              f"{FILE} of the data folder.")
NOT_CALLED = "{} leads to {}, which is never called unless that very address stands in " + f"{FILE}."


def alerts_file() -> Path:
    return Path(os.environ.get("DIFFSPECT_ALERTS") or data_root() / "alerts.toml").expanduser()


def check(host: str) -> None:
    """Raises ConfigError where nobody has allowed this host."""
    if not listed(host):
        raise ConfigError(NOT_LISTED.format(host or "An address without a host"))


def listed(host: str) -> bool:
    return bool(host) and any(_fits(rule, _plain(host)) for rule in _rules())


def connect(address: tuple[str, int], timeout: Any = 15.0, source_address: Any = None) -> socket.socket:
    """As `socket.create_connection`, but to the very address that was looked at: DNS may answer otherwise the next time. A proxy that the
    machine is set to use is called as it is. Raises ResourceError, OSError."""
    host, port = address
    if host in {urlsplit(proxy).hostname for proxy in getproxies().values()}:
        return socket.create_connection(address, timeout, source_address)
    why: Exception = OSError(f"{host} has no address")
    for *_, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        found = str(place[0])
        if _is_special(found) and not listed(found) and not (_is_home(found) and host == "localhost" and listed(host)):
            why = ResourceError(NOT_CALLED.format(host, found))
            continue
        try:
            return socket.create_connection((found, port), timeout, source_address)
        except OSError as error:
            why = error
    raise why


def _rules() -> Iterator[str]:
    with suppress(OSError):
        for line in (data_root() / FILE).read_text("utf-8", "replace").splitlines():
            if rule := _plain(line.partition("#")[0]):
                yield rule
    with suppress(OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        tables = tomllib.loads(alerts_file().read_text()).get("channel")
        for channel in tables if isinstance(tables, list) else []:
            yield from (rule for rule in map(_plain, _hosts(channel)) if rule)


def _hosts(channel: Any) -> Iterator[str]:
    """Of a channel in alerts.toml, whatever else stands in it."""
    if isinstance(channel, dict):
        with suppress(ValueError):
            yield from (str(channel.get("server", "")), urlsplit(str(channel.get("url", ""))).hostname or "")


def _plain(host: str) -> str:
    return host.strip().lower().rstrip(".").removeprefix("[").removesuffix("]")


def _fits(rule: str, host: str) -> bool:
    if rule.startswith("*."):
        return host.endswith(rule[1:])
    if (at := _address(host)) is not None:
        with suppress(ValueError):
            return at in ip_network(rule, strict=False)
    return rule == host


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """An address; one of IPv4 that is written in IPv6, or reached by way of it, is what it is."""
    try:
        at = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(at, IPv6Address) and (at.ipv4_mapped or at in NAT64):
        return at.ipv4_mapped or IPv4Address(int(at) & 0xFFFFFFFF)
    return at


def _is_home(host: str) -> bool:
    at = _address(host)
    return at is not None and at.is_loopback


def _is_special(host: str) -> bool:
    """This machine, what is only on its own wire, and where clouds give keys away. A plant's private networks are not."""
    at = _address(host)
    return at is None or at.is_loopback or at.is_link_local or at.is_unspecified or at.is_multicast or at.is_reserved or str(at) in METADATA
