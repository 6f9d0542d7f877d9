"""IP addresses: of callers without a key, and of servers that are exposed beyond loopback."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

from .header_names import FORWARDED_FOR, environ_key

_FORWARDED_FOR = environ_key(FORWARDED_FOR)
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([0-9.]+):\d+")
_NETWORK_BITS = 64
_LONGEST = 64
"""Characters of an address with brackets, zone and port; anything longer is not an address."""


def address_of(environ: Mapping[str, Any], proxies: int) -> str:
    """Return the address of the client, behind ``proxies`` trusted proxies.

    Each proxy appends its client to X-Forwarded-For, so the entry of the first trusted proxy is
    that many from the right; a client may have forged those before. Without such an entry it is
    the address of the peer.
    """
    peer: str = environ.get("REMOTE_ADDR") or ""
    if proxies:
        entries = environ.get(_FORWARDED_FOR, "").rsplit(",", proxies)
        entry = entries[-proxies].strip(" \t") if len(entries) >= proxies else ""
        entry = entry if len(entry) <= _LONGEST else ""
        return _caller(entry) or _caller(peer) or peer
    return _caller(peer) or peer


@lru_cache(maxsize=4096)
def _caller(text: str) -> str:
    """Return an address that is the same for all requests of a caller, empty for no address.

    For IPv6 it is the /64 network, all of which a single line is assigned.
    """
    match = _WITH_PORT.fullmatch(text)
    address = _parse((match[1] or match[2]) if match else text)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address.packed, _NETWORK_BITS), strict=False))
    return str(address or "")


def is_exposed(names: Iterable[object]) -> bool:
    """Return True if a server with sockets of these ``names`` is reachable from other machines.

    Names are those of ``getsockname``. Unix sockets are local to this machine.
    """
    return any(
        not isinstance(name, str | bytes) and not (isinstance(name, tuple) and is_loopback(name[0]))
        for name in names
    )


@lru_cache(maxsize=256)
def is_loopback(host: object) -> bool:
    """Return True if ``host``, an address or a name, is certain to be a loopback address."""
    address = _parse(str(host))
    return address.is_loopback if address else str(host).lower() == "localhost"


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
