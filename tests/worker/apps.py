"""WSGI applications that show what a worker gives them and does with what they give.

They run inside Gunicorn, and know nothing of Lantern. `zoo` holds one behaviour for each path.
"""

from __future__ import annotations

import asyncio
import builtins
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from wsgiref.validate import validator

from app.worker.contract import (
    MEMORY,
    OVERDUE,
    REJECTION,
    overdue_seconds,
    rejection,
    set_held_bytes,
)

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]

recorded: list[str] = []
"""What happened in this worker, in order; ``/recorded`` of the zoo gives it."""

BLOCK = bytes(range(256)) * 256
"""64 KiB, of which huge answers are made."""


def seen(environ: Environ) -> str:
    """Write the environ as JSON: values as they are, objects as the names of their types."""
    return json.dumps(
        {
            key: value if isinstance(value, str | bool | tuple) else type(value).__name__
            for key, value in environ.items()
            if not key.startswith("test.") and key != MEMORY  # which only some requests have
        },
        sort_keys=True,
    )


def echo(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the environ in the field X-Environ and the body as it came."""
    body = environ["wsgi.input"].read()
    headers = [
        ("X-Environ", seen(environ)),
        ("X-Method", environ["REQUEST_METHOD"]),
        ("Content-Type", "application/octet-stream"),
        ("Content-Length", str(len(body))),
    ]
    start_response("200 OK", headers)
    return [body]


class Parts:
    """An iterable that records each of its steps, and that it was closed."""

    def __init__(self, name: str, parts: Iterable[bytes]) -> None:
        self.name = name
        self.parts = iter(parts)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        part = next(self.parts)
        recorded.append(f"{self.name} gave {len(part)}")
        return part

    def close(self) -> None:
        recorded.append(f"{self.name} closed")


def _argument(environ: Environ, name: str, default: str) -> str:
    return parse_qs(environ["QUERY_STRING"]).get(name, [default])[0]


def _stream(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Parts(_argument(environ, "name", "stream"), [b"one ", b"", b"two ", b"three"])


def _sized_stream(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return Parts(_argument(environ, "name", "sized"), [b"one ", b"", b"two ", b"three"])


def _too_long(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Give more than the length that was promised."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
    return [b"four", b"HTTP/1.1 200 OK\r\n\r\n"]


def _too_short(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Give less than the length that was promised."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "100")])
    return [b"four"]


def _write(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"written ")
    write(b"")
    write(b"twice ")
    return [b"and returned"]


def _file(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the part of a file that follows its first 10 bytes."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 (the worker closes it)
    file.write(BLOCK * 3)
    file.seek(10)
    start_response("200 OK", [("Content-Length", str(len(BLOCK) * 3 - 10))])
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
    return wrapped


def _list(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with one body and no length."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the whole body"]


def _nothing(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    status = _argument(environ, "status", "204 No Content")
    start_response(status, [("X-Empty", "yes")])
    return []


def _forbidden_body(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Give a body with a status that has none."""
    status = _argument(environ, "status", "204 No Content")
    start_response(status, [("Content-Length", "5")])
    return [b"smell"]


def _unread(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer without reading the body."""
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def _lines(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Read the body in all the ways there are, and answer with what each gave."""
    stream = environ["wsgi.input"]
    got = [
        stream.read(3),
        stream.read(0),
        stream.readline(),
        stream.readline(2),
        next(iter(stream)),
        *stream.readlines(),
        stream.read(10),
        stream.read(),
        stream.readline(),
    ]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([part.decode() for part in got]).encode()]


def _slow(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    name = _argument(environ, "name", "")
    # To a file: what a worker that ends has begun must outlive it.
    if os.environ.get("BEGUN"):
        with open(os.environ["BEGUN"], "a") as file:  # noqa: PTH123 (one write, appended)
            file.write(f"{name}\n")
    time.sleep(float(_argument(environ, "seconds", "0.5")))
    body = f"{os.getpid()} {name}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def _overdue(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Tell what the worker says of the wait."""
    body = json.dumps(overdue_seconds(environ) if OVERDUE in environ else None).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def _huge(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with many blocks, counted while they are given."""
    blocks = int(_argument(environ, "blocks", "800"))
    headers = [("Content-Type", "application/octet-stream")]
    if "sized" in environ["QUERY_STRING"]:
        headers.append(("Content-Length", str(blocks * len(BLOCK))))
    write = start_response("200 OK", headers)
    if "whole" in environ["QUERY_STRING"]:
        return [BLOCK * blocks]
    if "keeps" in environ["QUERY_STRING"]:
        set_held_bytes(environ, int(_argument(environ, "keeps", "0")))
    if "written" in environ["QUERY_STRING"]:
        write(BLOCK * blocks)
        return []
    return Parts(_argument(environ, "name", "huge"), (BLOCK for _ in range(blocks)))


def _raise(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    raise RuntimeError("raised before the start")


def _raise_started(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    raise RuntimeError("raised after the start")


def _raise_midway(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    def parts() -> Iterator[bytes]:
        yield b"the first part "
        raise RuntimeError("raised midway")

    start_response("200 OK", [("Content-Type", "text/plain")])
    return Parts("midway", parts())


def _raise_midway_sized(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    def parts() -> Iterator[bytes]:
        yield b"the first part "
        raise RuntimeError("raised midway")

    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "100")])
    return Parts("midway", parts())


def _raise_in_close(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    class Bad(Parts):
        def close(self) -> None:
            super().close()
            raise RuntimeError("raised in close")

    start_response("200 OK", [("Content-Length", "4")])
    return Bad("bad", [b"body"])


def _replace(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Start again with exc_info before anything was sent, which replaces the first start."""
    start_response("200 OK", [("X-First", "yes"), ("Content-Length", "100")])
    try:
        raise RuntimeError("replaced")
    except RuntimeError:
        start_response("503 Service Unavailable", [("Content-Length", "5")], sys.exc_info())
    return [b"sorry"]


def _start_twice(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def _no_start(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    return [b"an answer that was never started"]


def _split_answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Give a field that would end the head of the answer."""
    start_response("200 OK", [("X-Bad", "a\r\nX-Injected: yes"), ("Content-Length", "0")])
    return []


def _bad_status(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK\r\nX-Injected: yes", [("Content-Length", "0")])
    return []


def _text(environ: Environ, start_response: StartResponse) -> Iterable[Any]:
    """Give text where bytes are asked for."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["text"]


def _none(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", [("Content-Type", "text/plain")])


def _exit(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    raise SystemExit("the application asks to end")


def _raise_to_end(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Raise an exception that is none of `Exception`, where the query says so."""
    what, where = _argument(environ, "what", ""), _argument(environ, "where", "call")
    kind = asyncio.CancelledError if what == "CancelledError" else getattr(builtins, what)

    class Bad(Parts):
        def close(self) -> None:
            super().close()
            if where == "close":
                raise kind

    def parts() -> Iterator[bytes]:
        yield b"body"
        if where == "iteration":
            raise kind

    if where == "call":
        raise kind
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Bad("ended", parts())


def _wait_for_file(path: str) -> str:
    """Wait until somebody makes the file ``path``, or long enough to say that nobody will."""
    begun = time.monotonic()
    while not Path(path).exists():
        if time.monotonic() - begun > 120:
            return "gave up"
        time.sleep(0.01)
    return "went on"


def _work_after(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer, and then work on until there is the file that the query names."""
    name, path = _argument(environ, "name", "after"), _argument(environ, "path", "")

    def parts() -> Iterator[bytes]:
        yield b"body"
        if "in-the-iterable" in environ["QUERY_STRING"]:
            recorded.append(f"{name} {_wait_for_file(path)}")

    class Late(Parts):
        def close(self) -> None:
            if "in-close" in environ["QUERY_STRING"]:
                recorded.append(f"{name} {_wait_for_file(path)}")
            super().close()

    is_stream = "stream" in environ["QUERY_STRING"]
    start_response("200 OK", [] if is_stream else [("Content-Length", "4")])
    return Late(name, parts())


def _call(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the thread of this call, once there is the file that the query names, if any."""
    name, path = _argument(environ, "name", "call"), _argument(environ, "path", "")
    recorded.append(f"{name} began")
    if "write" in environ["QUERY_STRING"]:
        start_response("200 OK", [("Content-Type", "text/plain")])(b"written, ")
    if path:
        _wait_for_file(path)
    recorded.append(f"{name} ended")
    if "fail" in environ["QUERY_STRING"]:
        raise SystemExit("this call failed")
    body = threading.current_thread().name.encode()
    if "write" not in environ["QUERY_STRING"]:
        start_response("200 OK", [("Content-Type", "text/plain")])
    return Parts(name, [body]) if "stream" in environ["QUERY_STRING"] else [body]


_released: set[str] = set()


def _until_released(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Give parts until another request releases this one, or until none is served meanwhile."""
    name = _argument(environ, "name", "")
    part = BLOCK if "blocks" in environ["QUERY_STRING"] else b""

    def parts() -> Iterator[bytes]:
        begun = time.monotonic()
        while name not in _released:
            if time.monotonic() - begun > 120:
                recorded.append(f"{name} gave up")
                return
            yield part
        recorded.append(f"{name} was released")
        yield b"released"

    start_response("200 OK", [("Content-Type", "text/plain")])
    return parts()


def _release(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    _released.add(_argument(environ, "name", ""))
    start_response("200 OK", [("Content-Length", "0")])
    return []


def _writes(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Write many small parts."""
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    for number in range(int(_argument(environ, "count", "5000"))):
        write(b"%06d" % number)
    return []


def _empty_part(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response(_argument(environ, "status", "200 OK"), [("X-Empty", "yes")])
    return [b""]


def _two_lengths(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "2"), ("Content-Length", "5")])
    return [b"hello"]


def _swallow(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Start again with what can't be sent, and go on as if nothing had happened."""
    start_response("200 OK", [("X-First", "yes")])
    try:
        raise RuntimeError("replaced")
    except RuntimeError:
        fields = [("X-Second", "yes"), ("Content-Length", "100"), ("X-Bad", "a\r\nb")]
        try:
            start_response("304 Not Modified", fields, sys.exc_info())
        except Exception:
            recorded.append("swallow swallowed")
    return [b"sorry", b", but here I am"]


def _hop_by_hop(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Give fields that belong to the server alone."""
    start_response(
        "200 OK",
        [
            ("Connection", "keep-alive"),
            ("Keep-Alive", "timeout=100"),
            ("Transfer-Encoding", "chunked"),
            ("Content-Length", "2"),
        ],
    )
    return [b"ok"]


def _errors(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    environ["wsgi.errors"].write("a word to the log of errors\n")
    environ["wsgi.errors"].flush()
    start_response("200 OK", [("Content-Length", "0")])
    return []


def _pid(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def _recorded(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    body = json.dumps(recorded).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


_PATHS = {
    "/stream": _stream,
    "/sized-stream": _sized_stream,
    "/too-long": _too_long,
    "/too-short": _too_short,
    "/write": _write,
    "/file": _file,
    "/list": _list,
    "/nothing": _nothing,
    "/forbidden-body": _forbidden_body,
    "/unread": _unread,
    "/lines": _lines,
    "/slow": _slow,
    "/call": _call,
    "/overdue": _overdue,
    "/huge": _huge,
    "/raise": _raise,
    "/raise-started": _raise_started,
    "/raise-midway": _raise_midway,
    "/raise-midway-sized": _raise_midway_sized,
    "/raise-in-close": _raise_in_close,
    "/replace": _replace,
    "/start-twice": _start_twice,
    "/no-start": _no_start,
    "/split-answer": _split_answer,
    "/bad-status": _bad_status,
    "/text": _text,
    "/none": _none,
    "/exit": _exit,
    "/raise-to-end": _raise_to_end,
    "/work-after": _work_after,
    "/until-released": _until_released,
    "/release": _release,
    "/writes": _writes,
    "/empty-part": _empty_part,
    "/two-lengths": _two_lengths,
    "/swallow": _swallow,
    "/hop-by-hop": _hop_by_hop,
    "/errors": _errors,
    "/pid": _pid,
    "/recorded": _recorded,
}


def zoo(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Behave as the path says; echo on all others."""
    return _PATHS.get(environ["PATH_INFO"], echo)(environ, start_response)


def left(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Say that the call is that of WSGI, and what a direct call has left; echo the body. As the zoo
    for GET.
    """
    if environ["REQUEST_METHOD"] == "GET":
        return zoo(environ, start_response)
    body = environ["wsgi.input"].read()
    headers = [
        ("X-Way", "wsgi"),
        ("X-Left", environ.get("test.left", "")),
        ("X-Overdue", "yes" if OVERDUE in environ else "no"),
        ("Content-Length", str(len(body))),
    ]
    start_response("200 OK", headers)
    return [body]


def wording(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Echo, and word what the worker refuses."""
    if REJECTION not in environ:
        return echo(environ, start_response)
    rejected = rejection(environ)
    body = json.dumps(
        [environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["wsgi.input"].read().decode()]
    ).encode()
    status = HTTPStatus(rejected.status)
    fields = [("Content-Length", str(len(body))), ("X-Detail", rejected.detail)]
    start_response(f"{status.value} {status.phrase}", fields)
    return [body]


def _valid(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Echo, by the letter of PEP 3333, streamed where the path says so."""
    body = b""
    while part := environ["wsgi.input"].read(7):
        body += part
    environ["wsgi.errors"].write("")
    environ["wsgi.errors"].flush()
    headers = [("Content-Type", "application/octet-stream")]
    if environ["PATH_INFO"] != "/stream":
        headers.append(("Content-Length", str(len(body))))
    start_response("200 OK", headers)
    if environ["REQUEST_METHOD"] == "HEAD":
        return []
    return [body[at : at + 5] for at in range(0, len(body), 5)]


validated = validator(_valid)
