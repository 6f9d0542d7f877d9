"""Bytes good and bad, each sent to the keep-alive worker and to `gthread`: never more lenient."""

from __future__ import annotations

import pytest

from tests.worker.cases import CASES
from tests.worker.conftest import Gunicorn
from tests.worker.differential import AFTER, compare, served
from tests.worker.mutate import mutant
from tests.worker.wire import all_answers, exchange

MUTANTS = 2500

STRICTER: dict[str, tuple[str, ...]] = {
    "gthread hands over as much of a body as came, and takes any length": (
        "a body shorter than its length",
        *(
            f"content-length {length!r}"
            for length in (
                "99999999999999999999",
                "18446744073709551621",
                "9223372036854775813",
                "4294967301",
                "2147483653",
                "9" * 400,
            )
        ),
    ),
    "gthread measures the line with a chunk's size only while its end isn't there": (
        f"a chunk of size {b'0' * 9000 + b'5'!r}",
        f"a chunk with the extension {(b';a=b' * 3000)[:40]!r} of 12000 bytes",
    ),
    "gthread doesn't count the fields that it drops": tuple(
        f"the field line {line[:60]!r} of {len(line)} bytes"
        for line in (b"X_%d: 1\r\n" % n * 99 + b"X: 1" for n in (1, 2))
    ),
    "an expectation is met once": ("expect twice",),
    "gthread asks for no Host, and takes an empty one (RFC 9112, section 3.2)": (
        "no host",
        "an empty host",
    ),
    "gthread takes a target of none of the four forms for a path (RFC 9112, section 3.2)": tuple(
        f"the request line {line!r} of {len(line)} bytes"
        for line in (
            *(
                b"GET %s HTTP/1.1" % target
                for target in (
                    *(b"/#", b"/#a", b"/a#b?c", b"/a?b#c", b"ftp://a/b", b"a://b", b"1://b"),
                    *(b"http:///a", b"http://", b"://", b"http://a:b/c", b"http://u:p@a/b"),
                    b"http://a\\b/",
                )
            ),
            b"CONNECT / HTTP/1.1",
            b"CONNECT lantern.example HTTP/1.1",
            b"CONNECT http://a/ HTTP/1.1",
        )
    ),
    "gthread reads the first of several fields, and no list; RFC 9112 closes for any close": (
        "connection 'keep-alive' and 'close' of HTTP/1.0",
        "connection 'close, keep-alive' of HTTP/1.1",
        "connection 'keep-alive, close' of HTTP/1.1",
        "connection 'close,' of HTTP/1.1",
        "connection ',close' of HTTP/1.1",
        "connection 'x, close' of HTTP/1.1",
        "connection 'TE, close' of HTTP/1.1",
        "connection 'keep-alive' and 'close' of HTTP/1.1",
        "connection 'x' and 'close' of HTTP/1.1",
    ),
}
"""The cases in which the keep-alive worker serves less, by the reason."""


@pytest.mark.parametrize("name", CASES)
def test_what_gthread_refuses_is_refused_and_the_rest_is_seen_alike(
    name: str, reference: Gunicorn, server: Gunicorn
) -> None:
    alone, followed = (
        compare(reference.address, server.address, data)
        for data in (CASES[name], CASES[name] + AFTER)
    )
    stricter = [(o, t) for o, t in (alone, followed) if len(o) < len(t)]
    if any(name in names for names in STRICTER.values()):
        assert stricter, f"it is as lenient as gthread, take it from the list: {CASES[name]!r}"
    else:
        assert not stricter, f"stricter than gthread: {CASES[name][:3000]!r}: {stricter}"
    data = CASES[name] + AFTER
    size = 1 if len(data) < 1000 else len(data) // 20
    apart = exchange(server.address, *(data[n : n + size] for n in range(0, len(data), size)))
    assert served(all_answers(apart)) == followed[0], (
        f"it depends on where the bytes are split.\nsent: {data[:3000]!r}\nin pieces of {size}: "
        f"{apart[:3000]!r}\ntogether, the application saw: {followed[0]}"
    )


def test_mutants_of_valid_requests_are_never_taken_more_leniently(
    reference: Gunicorn, server: Gunicorn
) -> None:
    worker = server.worker()
    both = 0
    for seed in range(MUTANTS):
        data = mutant(seed) + AFTER
        try:
            ours, theirs = compare(reference.address, server.address, data)
        except (AssertionError, TimeoutError) as error:
            raise AssertionError(f"mutant {seed}, {data!r}: {error}") from error
        both += ours == theirs and len(ours) > 0
    assert both > MUTANTS / 5, "hardly a mutant is served: this compares nothing"
    assert server.worker() == worker, server.text[-5000:]
    assert "Traceback" not in server.text, server.text[-5000:]
