"""What is sent: mutants of valid requests, byte by byte, and bodies that are nearly right.

Everything is made from a seed and a number, so that any of it can be made again alone.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import orjson

from benchmarks import payloads
from tests.worker.mutate import mutant
from tests.worker.wire import chunked, request
from trials.expected import BATCH, INFER, SINGLE, post
from trials.fuzz.conversations import Conversation

_PIPELINED = 16
_PATHS = (
    SINGLE,
    SINGLE,
    BATCH,
    "/models/campaign-response/predict",
    "/models/campaign-response/predict/batch",
)
_DEEP = 3000


def valid_requests() -> list[bytes]:
    """Return requests of every kind that the service takes, for a mutator to begin with."""
    samples = payloads.golden_samples()
    single, batch = payloads.single(samples[0]), payloads.batch(samples[:3])
    tensors = orjson.dumps(
        {
            "inputs": [
                {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
                for name, value in samples[0].items()
            ]
        }
    )
    json_field = "Content-Type: application/json"
    health = ("/health", "/health/live", "/health/ready")
    gets = ("/", *health, "/model/info", "/models", "/metrics", "/v2")
    return [
        post(SINGLE, single),
        post(SINGLE, single, "X-Request-ID: abc", "X-Model-Version: 1", "X-Routing-Key: ann"),
        post(BATCH, batch),
        post("/models/campaign-response/predict", single, "Accept: application/json"),
        request(SINGLE, json_field, "Transfer-Encoding: chunked", method="POST")
        + chunked(single[:40], single[40:], trailers=b"X-Sum: 1\r\n"),
        request(SINGLE, json_field, "Expect: 100-continue", method="POST", body=single),
        request(SINGLE, json_field, method="POST", body=single, version="1.0"),
        post(SINGLE, single) + post(BATCH, batch) + request("/health"),
        request(
            SINGLE,
            "Content-Type: application/problem+json; charset=utf-8",
            method="POST",
            body=single,
        ),
        post(INFER, tensors),
        post(INFER, tensors, "X-Model-Version: 1", "Accept-Encoding: gzip"),
        request(
            INFER.replace("/infer", "/versions/1/infer"),
            f"Inference-Header-Content-Length: {len(tensors)}",
            "Content-Type: application/octet-stream",
            method="POST",
            body=tensors,
        ),
        request(INFER, "Inference-Header-Content-Length: 0", method="POST", body=bytes(24)),
        *(request(path) for path in (*gets, "/docs", "/openapi.json", "/docs/?a=b#c")),
        request("/model/info", method="HEAD"),
        request(SINGLE, method="OPTIONS"),
    ]


def raw(seed: int, count: int) -> Iterator[Conversation]:
    """Return ``count`` mutants of valid requests, some of them in two segments."""
    valid = valid_requests()
    for number in range(count):
        name = f"raw-{seed}-{number}"
        random = Random(name)
        data = mutant(random.getrandbits(64), valid)
        at = random.randint(0, len(data)) if random.random() < 0.3 else 0
        yield Conversation(name, tuple(part for part in (data[:at], data[at:]) if part) or (b"\n",))


def bodies(seed: int, count: int) -> Iterator[Conversation]:
    """Return ``count`` requests whose bodies are nearly right, some on each connection."""
    for first in range(0, count, _PIPELINED):
        name = f"json-{seed}-{first}"
        random = Random(name)
        paths = [random.choice(_PATHS) for _ in range(min(_PIPELINED, count - first))]
        requests = [post(path, body(random, path), *_fields(random)) for path in paths]
        yield Conversation(name, (b"".join(requests),), tuple(paths))


def body(random: Random, path: str) -> bytes:
    """Make a body for ``path`` by one to four changes of a valid one, in its structure or bytes."""
    samples = payloads.golden_samples()
    document: Any = {"features": random.choice(samples)}
    if path.endswith("/batch"):
        document = {"samples": random.choices(samples, k=random.choice((0, 1, 2, 5)))}
    document = copy.deepcopy(document)
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        document = _changed(document, random)
    text = json.dumps(document, ensure_ascii=random.random() < 0.8).encode(errors="surrogatepass")
    # What json.dumps can't write: numbers and nests beyond every range, keys that come twice.
    if random.random() < 0.2:
        text = text.replace(b'"#"', random.choice(_TEXTS))
    if random.random() < 0.15:
        at = random.randint(0, len(text))
        text = text[:at] + random.choice(_TEXTS) + text[at + random.choice((0, 0, 1, 5)) :]
    return text


_TEXTS = (
    *(
        b"1e400",
        b"-1e400",
        b"1e-400",
        b"1" * 400,
        b"-0",
        b"0.1e1",
        b"00",
        b"+1",
        b".5",
        b"1.",
        b"1e",
    ),
    *(
        b"NaN",
        b"Infinity",
        b"nul",
        b"True",
        b"'a'",
        b'"\\ud800"',
        b'"\\u0000"',
        b'"\\x"',
        b'"\x00"',
    ),
    *(b"[" * _DEEP, b"[" * _DEEP + b"]" * _DEEP, b'{"a":' * _DEEP + b"1" + b"}" * _DEEP),
    *(b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"/* */", b",", b":", b"{}", b"[]", b"", b"\x00"),
    *(b'"age":1,"age":2', b'"features":{},"features":1', b'"a":1,' * 500, b" " * 70000),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1e38, 3.5e38, -1e39, 1e308, 2**31, 2**63, 2**64, 10**30),
    *(float("nan"), float("inf"), "", "35", "#", "a" * 5000, "\u0000", "\u202e", "😀", "\ud800"),
    *([], {}, [[]], [None], {"": None}, {"a": {"b": {}}}, [1] * 1000, "#", "#", "#"),
)
_KEYS = (
    *("", "age", "Age", "age ", "features", "samples", "agee", "\u0000", "\r\nX: 1", "a" * 5000),
    *(
        "__proto__",
        "constructor",
        "~1/",
        "/0",
        "😀",
        "\ud800",
        "income",
        "#",
        "%s{0}",
        "'\"<script>",
    ),
)


def _changed(document: Any, random: Random) -> Any:
    """Change one place of a document, at any depth."""
    place, depth = document, 0
    while isinstance(place, dict | list) and place and random.random() < 0.75 and depth < 5:
        inner = random.choice(list(place.values()) if isinstance(place, dict) else place)
        if not isinstance(inner, dict | list):
            break
        place, depth = inner, depth + 1
    if not isinstance(place, dict | list):
        return random.choice(_VALUES)
    if place is document and random.random() < 0.05:
        return random.choice((random.choice(_VALUES), [document]))
    random.choice(_CHANGES)(place, random)
    return document


def _key(place: dict[Any, Any] | list[Any], random: Random) -> Any:
    return random.choice(list(place)) if isinstance(place, dict) else random.randrange(len(place))


def _set(place: dict[Any, Any] | list[Any], random: Random) -> None:
    if place:
        place[_key(place, random)] = copy.deepcopy(random.choice(_VALUES))


def _delete(place: dict[Any, Any] | list[Any], random: Random) -> None:
    if place:
        del place[_key(place, random)]


def _add(place: dict[Any, Any] | list[Any], random: Random) -> None:
    value = copy.deepcopy(random.choice(_VALUES))
    if isinstance(place, dict):
        place[random.choice(_KEYS)] = value
    else:
        place.insert(random.randint(0, len(place)), value)


def _rename(place: dict[Any, Any] | list[Any], random: Random) -> None:
    if isinstance(place, dict) and place:
        place[random.choice(_KEYS)] = place.pop(_key(place, random))


def _number(place: dict[Any, Any] | list[Any], random: Random) -> None:
    """Put a number of any size where one stands, which is a change that is often valid."""
    if place:
        key = _key(place, random)
        if isinstance(place[key], int | float) or place[key] is None:
            place[key] = random.choice((1, -1)) * random.random() * 10 ** random.uniform(-50, 50)


_CHANGES: tuple[Callable[[Any, Random], None], ...] = (
    *(_set, _set, _delete, _add, _rename, _number, _number, _number),
)


def _fields(random: Random) -> list[str]:
    """Return fields that a request may have beside what it needs, some of them odd."""
    if random.random() < 0.7:
        return []
    return [random.choice(_FIELDS)]


_FIELDS = (
    *("X-Request-ID: a b", "X-Request-ID: " + "a" * 300, "X-Request-ID: \x80", "X-Request-ID:"),
    *("X-Model-Version: 1", "X-Model-Version: 99", "X-Model-Version: ../1", "X-Model-Version:"),
    *("X-Routing-Key: ann", "X-Routing-Key: \xff", "X-Request-Timeout-Ms: 1", "Accept: text/html"),
    *("X-Request-Timeout-Ms: -1", "X-Request-Timeout-Ms: nan", "X-Request-Timeout-Ms: 1e99"),
    *("Content-Encoding: gzip", "Content-Encoding: identity", "X-Forwarded-For: a, b", "Origin: x"),
    *("Authorization: Bearer x", "Authorization: Basic \xff", "X-API-Key: \x80", "Cookie: a=b"),
)
