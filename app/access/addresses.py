"""Whom an address stands for: a caller without a key, and how far a server can be reached."""

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
"""Characters of an address with brackets, zone and port; what is longer is none."""


def address_of(environ: Mapping[str, Any], proxies: int) -> str:
    """Return the address that a request came from, as far as ``proxies`` in front vouch for it.

    Each proxy appends to X-Forwarded-For whom it was asked by, so the entry of the first of ours
    is the one so many from the right; what stands before it, the caller may have made up. Without
    such an entry it is the peer's address.
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
    """Write an address as one caller has it: one of IPv6 by its network, for a line has a /64.

    Empty for what is no address.
    """
    match = _WITH_PORT.fullmatch(text)
    address = _parse((match[1] or match[2]) if match else text)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address.packed, _NETWORK_BITS), strict=False))
    return str(address or "")


def is_exposed(names: Iterable[object]) -> bool:
    """Return whether others than this machine reach a server with sockets of these ``names``.

    A name is what ``getsockname`` gives. A socket of the file system is for this machine.
    """
    return any(
        not isinstance(name, str | bytes) and not (isinstance(name, tuple) and is_loopback(name[0]))
        for name in names
    )


@lru_cache(maxsize=256)
def is_loopback(host: object) -> bool:
    """Return whether ``host``, an address or a name, surely means this machine alone."""
    address = _parse(str(host))
    return address.is_loopback if address else str(host).lower() == "localhost"


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
