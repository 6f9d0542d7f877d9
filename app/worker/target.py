"""Request targets and hosts (RFC 9112, section 3.2; RFC 3986, section 3.2)."""

from __future__ import annotations

import ipaddress
import re

_NOT_IN_TARGET = re.compile(r"[^\x21\x22\x24-\x7e]")  # no fragment
_ABSOLUTE = re.compile(r"https?://([^/?]*)[/?]?.*", re.IGNORECASE)
_HOST = re.compile(
    r"((?:[!$&'()*+,;=\-._~0-9A-Za-z]|%[0-9A-Fa-f]{2})+|\[[0-9A-Fa-f:.]+\]"
    r"|\[[vV][0-9A-Fa-f]+\.[!$&'()*+,;=\-._~:0-9A-Za-z]+\])"
    r"(?::0*([0-9]{0,5}))?"
)
"""A host that is not empty, and optionally a port (RFC 3986, section 3.2)."""


def is_target(method: str, target: str) -> bool:
    """Return True if ``target`` has one of the four forms (RFC 9112, section 3.2)."""
    if _NOT_IN_TARGET.search(target):
        return False
    if method == "CONNECT":
        return bool(port_of(target))
    if target == "*":
        return method == "OPTIONS"
    return target.startswith("/") or port_of(authority(target)) is not None


def authority(target: str) -> str:
    """Return the host and port, if any, of an absolute target; empty for other targets."""
    matched = _ABSOLUTE.fullmatch(target)
    return matched[1] if matched else ""


def port_of(text: str) -> str | None:
    """Return the port in ``text``, empty if there is none; None if ``text`` is not a host."""
    matched = _HOST.fullmatch(text)
    if not matched or int(matched[2] or 0) > 65535:
        return None
    host = matched[1]
    if host.startswith("[") and host[1] not in "vV":
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return None
    return matched[2] or ""
