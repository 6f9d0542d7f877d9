"""Two servers side by side: what does the application see of the same bytes in each?

`gthread` is the reference: it is what Gunicorn's users know, and has been attacked for years. The
rule is: never more lenient. What it refuses is refused, and what both accept, the application sees
alike; a request that follows on the connection is served only where `gthread` serves it too.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from tests.worker.wire import Address, Answer, all_answers, exchange, request

AFTER = request("/after", "Connection: close")
"""A request that follows a case on its connection: is it served, and as what?"""

UNLIKE = frozenset(
    {
        "SERVER_PORT",  # the two listen on two,
        "REMOTE_PORT",  # and each connection has its own
        "gunicorn.socket",
        "wsgi.early_hints",
        "wsgi.errors",
        "wsgi.file_wrapper",
        "wsgi.input",
        "wsgi.multithread",  # `gthread` has threads
    }
)
"""The keys of the environ that may differ between the two workers."""

Served = list[tuple[dict[str, Any], bytes]]
"""The requests that the application answered: of each the environ and the body."""


def served(answers: list[Answer]) -> Served:
    """Give what the application saw, from its answers; the server's own are left out."""
    return [
        (
            {k: v for k, v in json.loads(answer["X-Environ"]).items() if k not in UNLIKE},
            answer.body,
        )
        for answer in answers
        if answer.all("X-Environ")
    ]


def _host_of_target(environ: dict[str, Any]) -> str:
    """Return the host of an absolute target, which wins over Host (RFC 9112, section 3.2.2)."""
    target = environ["RAW_URI"]
    is_absolute = "://" in target and not target.startswith("/")
    return urlsplit(target).netloc if is_absolute else ""


def compare(reference: Address, server: Address, data: bytes) -> tuple[Served, Served]:
    """Send the same bytes to both, hold the second to the rule, and give what each served."""
    theirs = served(all_answers(exchange(reference, data)))
    received = exchange(server, data)
    ours = served(all_answers(received))
    context = (
        f"\nsent: {data[:3000]!r}\ngthread served {theirs}\nthe keep-alive worker served {ours}"
        f"\nand answered {received[:3000]!r}"
    )
    for number, (own, their) in enumerate(zip(ours, theirs, strict=False), 1):
        host = _host_of_target(their[0]) or their[0].get("HTTP_HOST")
        expected = ({**their[0], "HTTP_HOST": host} if host else their[0], their[1])
        assert own == expected, f"the application saw request {number} unlike on gthread{context}"
    assert len(ours) <= len(theirs), f"more lenient than gthread{context}"
    return ours, theirs
