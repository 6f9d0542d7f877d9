"""HTTP/1 as bytes: a client that sends whatever it is given, and a strict reader of answers.

The reader accepts only what RFC 9112 lets a server send; everything else is `MalformedAnswer`.
It knows nothing of Gunicorn, so that both worker classes are judged by the same rules.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""

PATIENCE_SECONDS = 120
"""How long to wait for a server before calling it hung."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-5]\d\d) [\t -~\x80-\xff]*")
_FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")


class MalformedAnswer(AssertionError):
    """The server sent bytes that are no HTTP answer, or a part of one."""


@dataclass(frozen=True)
class Answer:
    """One answer: its status, its fields with names in lower case, and its body without framing."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def __getitem__(self, name: str) -> str:
        """Give the one value of the field ``name``."""
        (value,) = self.all(name)
        return value

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name.lower()]

    def json(self) -> Any:
        return json.loads(self.body)


def take_answer(received: bytes, *, ended: bool, head: bool = False) -> tuple[Answer, bytes] | None:
    """Take one answer from the front of ``received``: give it and the rest, or None if it's cut.

    ``ended`` says that nothing will follow. ``head`` says that the request was a HEAD; an answer
    whose field X-Method says so is taken for one too.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        if ended:
            raise MalformedAnswer(f"the head of an answer is cut off: {received[-2000:]!r}")
        return None
    status_line, *lines = received[:end].split(b"\r\n")
    status, fields = _read_head(status_line, lines)
    answer = Answer(status, fields, b"")
    rest = received[end + 4 :]
    lengths, codings = answer.all("content-length"), answer.all("transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise MalformedAnswer(f"several framings: {received[:end]!r}")
    if codings not in ([], ["chunked"]):
        raise MalformedAnswer(f"not a coding that was asked for: {codings!r}")
    if (status < 200 or status == 204) and lengths + codings:
        raise MalformedAnswer(f"{status} has no framing: {received[:end]!r}")
    if status < 200 or status in (204, 304) or head or answer.all("x-method") == ["HEAD"]:
        return answer, rest
    if codings:
        taken = _take_chunks(rest)
    elif lengths:
        taken = _take_bytes(rest, lengths[0])
    else:
        taken = (rest, b"") if ended else None
    if taken:
        return Answer(status, fields, taken[0]), taken[1]
    if ended:
        raise MalformedAnswer(f"the body of an answer is cut off: {received[-2000:]!r}")
    return None


def _read_head(status_line: bytes, lines: list[bytes]) -> tuple[int, tuple[tuple[str, str], ...]]:
    matched = _STATUS_LINE.fullmatch(status_line)
    if not matched:
        raise MalformedAnswer(f"not a status line: {status_line[:200]!r}")
    fields = []
    for line in lines:
        field = _FIELD_LINE.fullmatch(line)
        if not field:
            raise MalformedAnswer(f"not a field line: {line[:200]!r}")
        fields.append((field[1].decode().lower(), field[2].decode("latin-1")))
    return int(matched[1]), tuple(fields)


def _take_bytes(received: bytes, length: str) -> tuple[bytes, bytes] | None:
    if not re.fullmatch("[0-9]+", length):
        raise MalformedAnswer(f"not a length: {length!r}")
    size = int(length)
    return (received[:size], received[size:]) if len(received) >= size else None


def _take_chunks(received: bytes) -> tuple[bytes, bytes] | None:
    chunks: list[bytes] = []
    at = 0
    while True:
        end = received.find(b"\r\n", at)
        if end < 0:
            return None
        line = received[at:end]
        if not _CHUNK_SIZE.fullmatch(line):
            raise MalformedAnswer(f"not the size of a chunk: {line[:200]!r}")
        start, at = end + 2, end + 2 + int(line, 16) + 2
        if len(received) < at:
            return None
        if received[at - 2 : at] != b"\r\n":
            raise MalformedAnswer(f"a chunk of {line!r} doesn't end: {received[start:][:200]!r}")
        if at - start == 2:
            return b"".join(chunks), received[at:]
        chunks.append(received[start : at - 2])


def all_answers(received: bytes, *, head: bool = False) -> list[Answer]:
    """Read ``received``, all that came until the server closed, as answers and nothing else."""
    answers = []
    while received:
        taken = take_answer(received, ended=True, head=head)
        assert taken is not None
        answer, received = taken
        answers.append(answer)
    return answers


class Connection:
    """A connection to a server, on which each call of `send` is a segment of its own."""

    def __init__(self, address: Address, *, receive_buffer: int | None = None) -> None:
        self._received = b""
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
        else:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            self.socket = socket.socket(family)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE_SECONDS)
        self.socket.connect(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """End the connection with a reset, as a client that crashed."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, *segments: bytes) -> Self:
        """Send segments, as long as the server takes them."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for segment in segments:
                self.socket.sendall(segment)
        return self

    def end(self) -> Self:
        """Say that nothing more will be sent."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        return self

    def receive_all(self) -> bytes:
        """Give what comes until the server closes, or resets, the connection."""
        parts, self._received = [self._received], b""
        with contextlib.suppress(ConnectionResetError):
            while part := self.socket.recv(1 << 20):
                parts.append(part)
        return b"".join(parts)

    def answers(self, *, head: bool = False) -> list[Answer]:
        """Give all answers until the server closes the connection."""
        return all_answers(self.receive_all(), head=head)

    def answer(self, *, head: bool = False) -> Answer | None:
        """Give the next answer, or None where the server closes before its first byte."""
        while True:
            taken = take_answer(self._received, ended=False, head=head)
            if taken:
                answer, self._received = taken
                return answer
            try:
                part = self.socket.recv(1 << 20)
            except ConnectionResetError:
                part = b""
            if not part:
                if not self._received:
                    return None
                taken = take_answer(self._received, ended=True, head=head)
                assert taken is not None
                answer, self._received = taken
                return answer
            self._received += part


def exchange(address: Address, *segments: bytes) -> bytes:
    """Send segments on a connection of their own, end it, and give all that comes back."""
    with Connection(address) as connection:
        return connection.send(*segments).end().receive_all()


def request(
    target: str = "/",
    *fields: str,
    method: str = "GET",
    body: bytes | None = None,
    version: str = "1.1",
) -> bytes:
    """Make a request; the field Content-Length comes with a body."""
    lines = [f"{method} {target} HTTP/{version}", "Host: lantern.example", *fields]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def chunked(*chunks: bytes, trailers: bytes = b"") -> bytes:
    """Frame chunks, and the last one."""
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return framed + b"0\r\n" + trailers + b"\r\n"


def ask(address: Address, *arguments: Any, **options: Any) -> Answer:
    """Make a `request` on a connection of its own, and give the one answer."""
    head = options.get("method") == "HEAD"
    with Connection(address) as connection:
        connection.send(request(*arguments, **options)).end()
        answers = connection.answers(head=head)
    finals = [answer for answer in answers if answer.status >= 200]
    assert len(finals) == 1, f"not one answer but {answers!r}"
    return finals[0]
