"""What is remembered of requests and answers is bounded, and what is common is remembered."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from gunicorn.config import Config

from app.worker import response
from app.worker.head import HeadParser
from app.worker.rejection import Rejection
from app.worker.response import Response
from tests.worker.wire import request

MANY = 10_000
MOST = 1000
"""More than is remembered of any kind."""

COMMON = request(
    "/v1/predictions",
    *("User-Agent: a", "Accept: */*", "content-type: application/json", "x-request-id: a"),
    *("X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "Connection: keep-alive"),
)[:-4]


@pytest.fixture
def parser() -> HeadParser:
    return HeadParser(Config(), trusted=False)


def calls(act: Callable[[], object]) -> Counter[str]:
    """Count the functions of the worker that are called while ``act`` runs."""
    counted: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            counted[frame.f_code.co_name] += 1

    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
    return counted


def environ() -> dict[str, Any]:
    return {"SCRIPT_NAME": "", "SERVER_NAME": "a", "wsgi.url_scheme": "http"}


def parse(parser: HeadParser, head: bytes) -> dict[str, Any]:
    return parser.parse(head, environ()).environ


def another(head: bytes) -> bytes:
    """Return a head that has not been parsed, of parts that have."""
    return head.replace(b"1.2.3.4", b"4.3.2.1")


def remembered(of: object) -> int:
    """Give the size of the largest dictionary that ``of`` holds."""
    return max(len(value) for value in vars(of).values() if isinstance(value, dict))


def test_request_lines_are_remembered_within_bounds(parser: HeadParser) -> None:
    for number in range(MANY):
        head = b"GET /%d?a=%d HTTP/1.1\r\nHost: a" % (number, number)
        assert parse(parser, head)["PATH_INFO"] == f"/{number}"
    assert remembered(parser) < MOST
    parse(parser, COMMON)
    assert "_request_line" not in calls(lambda: parse(parser, another(COMMON)))
    long = request("/" + "a" * 2000)[:-4]
    parse(parser, long)
    assert "_request_line" in calls(lambda: parse(parser, long)), "as much as a client likes"


def test_heads_are_remembered_within_bounds(parser: HeadParser) -> None:
    first = parser.parse(COMMON, environ())
    assert "_parse" in calls(lambda: parse(parser, another(COMMON)))
    first.environ["HTTP_ACCEPT"] = "changed by the application"
    first.keep_alive = False
    assert "_parse" not in calls(lambda: parse(parser, COMMON))
    again = parser.parse(COMMON, environ() | {"REMOTE_ADDR": "1.2.3.4"})
    assert again.environ["HTTP_ACCEPT"] == "*/*"
    assert again.environ["REMOTE_ADDR"] == "1.2.3.4", "that of its own connection"
    assert again.keep_alive
    for number in range(MANY):
        parse(parser, b"GET / HTTP/1.1\r\nHost: a\r\nX-Id: %d" % number)
    assert remembered(parser) < MOST
    assert "_parse" in calls(lambda: parse(parser, COMMON)), "others came since"


def test_a_head_that_is_remembered_names_the_server_of_each_connection(parser: HeadParser) -> None:
    """A Unix socket has no name of its own, and takes it from the Host."""
    unix = {"SCRIPT_NAME": "", "wsgi.url_scheme": "http"}
    head = b"GET / HTTP/1.1\r\nHost: asked:81"
    for _ in range(2):
        for template, name in ((environ(), "a"), (unix, "asked")):
            assert parser.parse(head, template).environ["SERVER_NAME"] == name


def test_names_of_fields_are_remembered_within_bounds(parser: HeadParser) -> None:
    for number in range(MANY):
        head = b"GET / HTTP/1.1\r\nHost: a\r\nX-%d: 1" % number
        assert parse(parser, head)[f"HTTP_X_{number}"] == "1"
    assert remembered(parser) < MOST
    assert "_key" not in calls(lambda: parse(parser, COMMON))
    own = b"GET / HTTP/1.1\r\nHost: a\r\nX-Own: 1"
    parse(parser, own)
    assert "_key" not in calls(lambda: parse(parser, own + b"2")), "one that came after the others"


def test_what_was_refused_or_dropped_once_is_so_again(parser: HeadParser) -> None:
    for _ in range(2):
        with pytest.raises(Rejection):
            parse(parser, b"GET / HTTP/1.1\r\nHost: a\r\nX(: 1")
        assert "HTTP_X_Y" not in parse(parser, b"GET / HTTP/1.1\r\nHost: a\r\nX_Y: 1")
        with pytest.raises(Rejection):
            parse(parser, b"GET /\xff HTTP/1.1\r\nHost: a")


def start(parser: HeadParser, status: str, name: str) -> Response:
    made = Response(parser.parse(COMMON, environ()), deque(), keep_alive=True)
    made.start(status, [(name, "a"), ("Content-Length", "2")])
    return made


def test_names_and_statuses_of_answers_are_remembered_within_bounds(parser: HeadParser) -> None:
    for number in range(MANY):
        made = start(parser, f"200 OK {number}", f"X-{number}")
        assert made.headers == [(f"X-{number}", "a"), ("Content-Length", "2")]
    assert remembered(response) < MOST
    start(parser, "200 OK", "X-Common")
    counted = calls(lambda: start(parser, "200 OK", "X-Common"))
    assert not counted.keys() & {"_check_name", "_check_status"}, counted


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("b", "X-A: b\r\n"),
        ("", "X-A: \r\n"),
        (" b\t", "X-A: b\r\n"),
        ("b  :  c", "X-A: b  :  c\r\n"),
        ("100 %s %d", "X-A: 100 %s %d\r\n"),
        ("\xe9", "X-A: \xe9\r\n"),
        ("b\r\nX-B: c", ValueError),
        ("b\x7f", ValueError),
        ("\u20ac", ValueError),
        (b"b", TypeError),
        (1, TypeError),
    ],
)
def test_values_are_looked_at_however_often_their_names_came(
    parser: HeadParser, value: Any, sent: str | type[Exception]
) -> None:
    start(parser, "200 OK", "X-A")
    made = Response(parser.parse(COMMON, environ()), deque(), keep_alive=True)
    headers = [("X-A", value), ("Content-Length", "2")]
    if isinstance(sent, type):
        with pytest.raises(sent):
            made.start("200 OK", headers)
        return
    made.start("200 OK", headers)
    assert made.headers == [("X-A", value.strip(" \t")), ("Content-Length", "2")]
    made.write(b"ok")
    assert sent.encode("latin-1") in made._out[0]


@pytest.mark.parametrize("length", ["", "x", "-1", "1.0"])
def test_lengths_are_looked_at_however_often_their_names_came(
    parser: HeadParser, length: str
) -> None:
    start(parser, "200 OK", "X-A")
    made = Response(parser.parse(COMMON, environ()), deque(), keep_alive=True)
    with pytest.raises(ValueError, match="Content-Length"):
        made.start("200 OK", [("X-A", "a"), ("Content-Length", length)])


def test_a_percent_sign_in_a_name_is_one(parser: HeadParser) -> None:
    for _ in range(2):
        made = start(parser, "200 OK", "X-%s%")
        made.write(b"ok")
        assert b"X-%s%: a\r\n" in made._out[0]


def test_an_answer_without_a_body_has_no_length_whatever_came_before(parser: HeadParser) -> None:
    start(parser, "200 OK", "X-A")
    made = start(parser, "204 No Content", "X-A")
    assert made.headers == [("X-A", "a")]
    again = start(parser, "200 OK", "Server")
    assert again.headers == [("Content-Length", "2")], "the server's own is dropped"
