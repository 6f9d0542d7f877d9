"""A mutator: it makes nearly valid bytes from valid requests, the same ones for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from tests.worker.cases import VALID

# fmt: off
_PIECES = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b" ", b"\t", b"\x00", b"\x0b", b"\x7f", b"\x80",
    b"\xff", b":", b";", b",", b"=", b'"', b"\\", b"/", b"?", b"#", b"%", b"%00", b"*", b"_", b"-",
    b"+", b"0x", b"0\r\n\r\n", b"5\r\nabcde\r\n", b"0", b"1", b"9", b"ffffffffffffffff",
    b"10000000000000005", b"A", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n",
    b"Content-Length", b"Transfer-Encoding", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"chunked", b"gzip, ", b"Host: a\r\n",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n",
    b"Upgrade: websocket\r\n", b"Connection: upgrade\r\n", b"X_Y: 1\r\n", b"X-Y: 1\r\n",
    b"X: a\r\n b\r\n", b"Content-Type: a/b\r\n", b"X-Forwarded-Proto: https\r\n",
    b"X-Forwarded-Ssl: on\r\n", b" HTTP/1.1", b"HTTP/1.0", b"HTTP/1.1", b"GET / HTTP/1.1\r\n",
    b"POST", b"HEAD", b"CONNECT", b"OPTIONS", b"http://",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
)
# fmt: on


def mutant(seed: int, valid: Sequence[bytes] = VALID) -> bytes:
    """Make the mutant of this number: one of ``valid`` requests after one to four changes."""
    random = Random(seed)
    data = random.choice(valid)
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        data = random.choice(_CHANGES)(data, random)
    return data


def _span(data: bytes, random: Random, longest: int) -> tuple[int, int]:
    start = random.randint(0, len(data))
    return start, min(len(data), start + random.randint(1, longest))


def _insert(data: bytes, random: Random) -> bytes:
    at = random.randint(0, len(data))
    return data[:at] + random.choice(_PIECES) + data[at:]


def _insert_line(data: bytes, random: Random) -> bytes:
    """Insert where a line ends, which is where it matters most."""
    ends = [n + 2 for n in range(len(data)) if data.startswith(b"\r\n", n)] or [0]
    at = random.choice(ends)
    return data[:at] + random.choice(_PIECES) + data[at:]


def _replace(data: bytes, random: Random) -> bytes:
    start, end = _span(data, random, 6)
    return data[:start] + random.choice(_PIECES) + data[end:]


def _delete(data: bytes, random: Random) -> bytes:
    start, end = _span(data, random, 6)
    return data[:start] + data[end:]


def _repeat(data: bytes, random: Random) -> bytes:
    start, end = _span(data, random, 30)
    return data[:end] + data[start:end] * random.choice((1, 1, 2, 50)) + data[end:]


def _set_byte(data: bytes, random: Random) -> bytes:
    start, end = _span(data, random, 1)
    return data[:start] + bytes([random.randrange(256)]) + data[end:]


def _flip_bit(data: bytes, random: Random) -> bytes:
    changed = bytearray(data or b"\0")
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(data: bytes, random: Random) -> bytes:
    return data[: random.randint(0, len(data))]


def _swap_lines(data: bytes, random: Random) -> bytes:
    lines = data.split(b"\r\n")
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"\r\n".join(lines)


def _splice(data: bytes, random: Random) -> bytes:
    other = random.choice(VALID)
    return data[: random.randint(0, len(data))] + other[random.randint(0, len(other)) :]


_CHANGES = (
    *(_insert, _insert, _insert_line, _insert_line, _replace, _delete, _repeat, _set_byte),
    *(_flip_bit, _cut, _swap_lines, _splice),
)
