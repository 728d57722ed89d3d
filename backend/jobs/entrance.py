"""Who may reach the dashboard at all: where the server listens, and whether a request comes from this machine or over a protected line.

Without accounts the product is for one person at this machine: a server that listens wider does not start, and a request that came from
elsewhere, be it through a proxy on this machine, is refused. With accounts it may be reached from outside over TLS alone: the server's own
certificate, or a reverse proxy that is declared (DIFFSPECT_PROXY: its addresses or networks, separated by commas) and says
`X-Forwarded-Proto: https`. Knows nothing of Streamlit or of sessions.
"""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass

from backend.errors import ConfigError
from backend.jobs import accounts

FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")
ALONE = ("Diffspect answers at this machine only, because nobody has set up accounts here. At this machine open Users and set up the first "
         "account, or run: python -m backend accounts add NAME --role admin")
BARE = ("Diffspect is reached over an unprotected line, on which passwords could be read. Give the server a certificate "
        "(server.sslCertFile and server.sslKeyFile), or put it behind a reverse proxy with TLS and name that in DIFFSPECT_PROXY; see "
        "docs/proxy.md.")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Request:
    """What is known of a request. `peer`: the address that it came from; `rewritten`: a proxy on this machine put the browser's there."""

    peer: str
    rewritten: bool
    headers: Mapping[str, str]         # names in lower case
    tls: bool                          # by the server's own certificate


def loopback(host: str) -> bool:
    """Whether this names the machine itself: localhost, 127.0.0.0/8, ::1; with or without brackets."""
    bare = host.strip().strip("[]").casefold().rstrip(".")
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost" or bare.endswith(".localhost")


def host_of(value: str) -> str:
    """'plant.example' of 'https://plant.example:8501'; '::1' of '[::1]:8501'."""
    bare = value.rpartition("://")[2].partition("/")[0]
    return bare.partition("]")[0].lstrip("[") if bare.startswith("[") else bare.partition(":")[0]


def proxies() -> list[Network]:
    """Addresses of the declared reverse proxy. Raises ConfigError."""
    try:
        said = [part.strip() for part in os.environ.get("DIFFSPECT_PROXY", "").split(",") if part.strip()]
        return [ipaddress.ip_network(part, strict=False) for part in said]
    except ValueError as error:
        raise ConfigError("DIFFSPECT_PROXY names the addresses of the reverse proxy, such as 127.0.0.1 or 10.0.0.0/24, separated by "
                          f"commas: {error}.") from error


def may_listen(address: str | None, tls: bool) -> None:
    """Whether a server may listen at this address, None being all of the machine's. Raises ConfigError with what to do."""
    declared = proxies()
    if address is not None and loopback(address):
        return
    where = f"at {address}" if address else "at all addresses of this machine (server.address is not set)"
    if not accounts.there():
        raise ConfigError(f"Diffspect would listen {where}, open to everybody in the network, because nobody has set up accounts. Let it "
                          "listen at 127.0.0.1 (server.address), or set up the first account: python -m backend accounts add NAME --role "
                          "admin")
    if not tls and not declared:
        raise ConfigError(f"Diffspect would listen {where} without TLS, so passwords could be read in the network. Give it a certificate "
                          "(server.sslCertFile and server.sslKeyFile), or put a reverse proxy before it and name that in DIFFSPECT_PROXY; "
                          "see docs/proxy.md.")


def here(request: Request) -> bool:
    """Whether somebody at this machine asks, by its own name and through nobody. A page elsewhere that has its name lead here does not."""
    names = [request.headers.get("host", "localhost"), request.headers.get("origin", "localhost")]
    return not request.rewritten and loopback(request.peer) and all(loopback(host_of(name)) for name in names) \
        and not any(name in request.headers for name in FORWARDED)


def why_not(request: Request) -> str:
    """Why a request is refused; '' where it is not."""
    if here(request):
        return ""
    if not accounts.there():
        return ALONE
    return "" if request.tls or _by_proxy(request) else BARE


def _by_proxy(request: Request) -> bool:
    """Whether a declared proxy says that it took the request over TLS. Behind one on this machine the server sees the browser's address."""
    said = request.headers.get("x-forwarded-proto", "").rpartition(",")[2].strip() == "https"
    peer = "127.0.0.1" if request.rewritten else request.peer
    try:
        return said and any(ipaddress.ip_address(peer) in network for network in proxies())
    except ValueError:
        return False


def over_tls(request: Request) -> bool:
    """Whether the browser reached us over TLS, so that its cookie may be for TLS alone."""
    return request.tls or _by_proxy(request)
