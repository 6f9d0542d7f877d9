"""Whom a request is for: its Host and the four forms of its target (RFC 9112, section 3.2)."""

from __future__ import annotations

import json

import pytest

from tests.worker.conftest import Gunicorn
from tests.worker.wire import Connection


def statuses(gunicorn: Gunicorn, data: bytes) -> list[int]:
    with Connection(gunicorn.address) as connection:
        return [answer.status for answer in connection.send(data).end().answers()]


def hosts(gunicorn: Gunicorn, data: bytes) -> list[str | None]:
    """Return the Host that the application saw of each request."""
    with Connection(gunicorn.address) as connection:
        answers = connection.send(data).end().answers()
    return [json.loads(answer["X-Environ"]).get("HTTP_HOST") for answer in answers]


IMPOSSIBLE = (
    *("", " ", "a b", "a\tb", "a/b", "a/", "/", "a?b", "a#b", "a@b", "u:p@a", "a\\b", "<a>", '"a"'),
    *("a:b", "a:-1", "a:+1", "a:80:80", "a: 80", "a:65536", "a:" + "9" * 5000, ":80", ":", "::1"),
    *(
        "[::1",
        "::1]",
        "[]",
        "[a]",
        "[::g]",
        "[1.2.3.4]",
        "[::1]a",
        "[::1%25eth0]",
        "[v]",
        "[v1.]",
        "[vz.a]",
        "[v1.a@b]",
        "[v1<a>]",
        "%",
        "%4",
        "%zz",
    ),
    *("a\xa0", "\xa0a", "\xe9", "\xff", "a^b", "{a}", "a|b", "`a`"),
)
POSSIBLE = (
    *("a", "A.Example", "a.", "a:80", "a:", "a:0080", "my_service:8000", "a-b~c!", "%41", "a,b"),
    *("127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000", "[::ffff:1.2.3.4]", "[v1.a:b]"),
)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_host_that_can_not_be_one_is_refused(version: str, server: Gunicorn) -> None:
    for host in IMPOSSIBLE:
        data = f"GET / HTTP/{version}\r\nHost: {host}\r\n\r\n".encode("latin-1")
        assert statuses(server, data) == [400], host


def test_a_host_that_can_be_one_is_seen_as_it_came(server: Gunicorn) -> None:
    for host in POSSIBLE:
        for _ in range(2):  # the second time it is known
            assert hosts(server, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()) == [host]


def test_http_1_1_and_what_follows_it_takes_a_host(server: Gunicorn) -> None:
    for target in ("/", "http://a/", "*"):
        method = "OPTIONS" if target == "*" else "GET"
        for version in ("1.1", "1.2", "1.9"):
            data = f"{method} {target} HTTP/{version}\r\nX: a\r\n\r\n".encode()
            assert statuses(server, data) == [400], data
    assert hosts(server, b"GET / HTTP/1.0\r\n\r\n") == [None]


def test_the_host_of_an_absolute_target_wins(server: Gunicorn) -> None:
    for target, host in (
        ("http://other.example/a?b", "other.example"),
        ("http://other.example:81", "other.example:81"),
        ("HTTP://Other.Example?b", "Other.Example"),
        ("https://[::1]:8000/a", "[::1]:8000"),
        ("http://a/http://b/", "a"),
    ):
        for method in ("GET", "POST", "OPTIONS"):
            data = f"{method} {target} HTTP/1.1\r\nHost: lantern.example\r\n\r\n".encode()
            assert hosts(server, data * 2) == [host, host], target
    assert hosts(server, b"GET http://a/ HTTP/1.0\r\n\r\n") == ["a"]
    assert statuses(server, b"GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n") == [400]


@pytest.mark.parametrize(
    ("method", "targets"),
    [
        (
            "GET",
            (
                *(
                    "metrics",
                    "metrics?x=://",
                    "a://",
                    "a?://b/",
                    "?a",
                    "*",
                    "*a",
                    "a:80",
                    "1.2.3.4",
                ),
                *(
                    "http:/a",
                    "http:a",
                    "http://",
                    "http:///a",
                    "http://?a",
                    "http://:80/",
                    "",
                ),
                *("http://u@a/", "http://u:p@a/", "http://a:b/", "http://a:65536/", "http://[::1/"),
                *("ftp://a/", "urn:a:b", "file:///etc/passwd", "javascript://a/", "xhttp://a/"),
                *("/a#b", "/#", "http://a/#b", "\\a"),
            ),
        ),
        ("POST", ("*", "predict", "http://", "a:80")),
        ("OPTIONS", ("*a", "**", "*/", "a", "a:80")),
        (
            "CONNECT",
            (
                *("/predict", "/", "*", "predict", "a", "a:", "a:b", "a:0", "a:65536", ":80", "80"),
                *("http://a/", "http://a:80", "a:80/", "a:80?b", "u@a:80", "[::1]", "1.2.3.4"),
            ),
        ),
    ],
)
def test_a_target_of_none_of_the_four_forms_is_refused(
    method: str, targets: tuple[str, ...], server: Gunicorn
) -> None:
    for target in targets:
        data = f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        assert statuses(server, data) == [400], data


def test_targets_of_the_four_forms_are_served(server: Gunicorn) -> None:
    for line in (
        *("GET /", "GET //a", "GET /a:b@c", "GET /a|b?{c}", "GET /?x=://", "GET http://a"),
        *("OPTIONS *", "OPTIONS /", "OPTIONS http://a", "CONNECT a:443", "CONNECT [::1]:443"),
    ):
        data = f"{line} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        assert statuses(server, data) == [200], data
