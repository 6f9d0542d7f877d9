"""The formats of texts in settings: prefix, origin, rate, URL of a Redis, header, name.

Each is parsed by one function, which raises `ValueError`; its message continues from the setting's
name. `access` and `http` use these functions, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..model.naming import NAME, NAME_FORM

IN_MEMORY = "memory://"
"""``limits.rate_storage`` if each worker counts for itself."""
RATE_FORM = 'a number and a unit, such as "100/second"; units: second, minute, hour, day'
MICROSECONDS = 1_000_000
_RATE = re.compile(r"([1-9][0-9]{0,5})/(second|minute|hour|day)")
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_ORIGIN = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?")
# Nothing that is special to a browser, a shell or HTML, and no dot segments: it is written into
# pages and redirects. Percent-encoded characters could become any of these.
_PATH_PREFIX = re.compile(r"(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._~@:+=-]+)*")
_MAX_PATH_PREFIX = 200


@dataclass(frozen=True, slots=True)
class Rate:
    """A number of requests per time; ``interval`` is the time of one, ``burst`` of all but one.

    Both are in microseconds.
    """

    text: str
    interval: int
    burst: int

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Parse a rate like ``100/second``. Raises `ValueError`."""
        match = _RATE.fullmatch(text)
        if match is None:
            raise ValueError(f"must be {RATE_FORM}")
        requests = int(match[1])
        interval = _SECONDS[match[2]] * MICROSECONDS // requests
        return cls(text, interval, interval * (requests - 1))


def parse_host(text: str) -> str:
    """Return an address to listen on; an IPv6 address without the brackets that it has in URLs."""
    return text.removeprefix("[").removesuffix("]")


def parse_prefix(text: str) -> str:
    """Return ``text`` as a path prefix: empty for none, else without a trailing slash.

    Raises `ValueError`, whose message continues from the name of the setting or header.
    """
    if len(text) > _MAX_PATH_PREFIX:
        raise ValueError(
            f"has {len(text)} characters, which exceeds the limit of {_MAX_PATH_PREFIX}"
        )
    prefix = text.removesuffix("/")
    if not _PATH_PREFIX.fullmatch(prefix):
        raise ValueError(
            f"{text!a} is not an absolute path such as '/lantern': segments of letters, digits and "
            "._~@:+=-, each after one slash, and none of them '.' or '..'"
        )
    return prefix


def parse_device(text: str) -> str:
    """Return the name of a device that PyTorch knows."""
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", text):
        raise ValueError('must be "cpu", "cuda" or "cuda:N"')
    return text


def parse_header(text: str) -> str:
    """Return the name of a header that callers may set."""
    if not re.fullmatch(r"(?!(?i:content-(type|length))\Z)[A-Za-z0-9-]{1,64}", text):
        raise ValueError("must be the name of a header that callers can set")
    return text


def parse_model_name(text: str) -> str:
    """Return the name of a model, or an empty text for none."""
    if text and not NAME.fullmatch(text):
        raise ValueError(f"must be {NAME_FORM}: it is used in URLs")
    return text


def parse_rate(text: str) -> str:
    """Return a rate, or an empty text for none."""
    if text:
        Rate.parse(text)
    return text


def parse_rate_storage(text: str) -> str:
    """Return where callers are counted: `IN_MEMORY`, or the URL of a Redis."""
    if text != IN_MEMORY:
        check_redis_url(text)
    return text


def check_redis_url(url: str) -> None:
    """Raise `ValueError` unless the client of Redis accepts ``url``."""
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError(f'must be "{IN_MEMORY}", or the URL of a Redis (redis://host:6379/0)')
    from redis.connection import parse_url  # imported here: most services have no Redis

    try:
        parse_url(url)
    except ValueError:  # whose message may contain the password
        raise ValueError("is not the URL of a Redis (redis://host:6379/0)") from None


def is_origin(text: str) -> bool:
    """Return True if ``text`` is an origin as browsers write it: without path, in lower case."""
    default = {"http://": ":80", "https://": ":443"}
    is_default = any(text.startswith(s) and text.endswith(port) for s, port in default.items())
    return _ORIGIN.fullmatch(text) is not None and not is_default


def parse_origin(text: str) -> str:
    """Return an origin, or ``*`` for any."""
    if text != "*" and not is_origin(text):
        raise ValueError(
            f'{text!r} is not an origin: "*", or a scheme and a host as browsers write them, such '
            'as "https://shop.example:8443"'
        )
    return text
