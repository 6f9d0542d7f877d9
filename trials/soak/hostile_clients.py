"""Clients that do wrong: requests that must be refused, and how; senders that stall or vanish.

Each case is one client on a connection of its own, and knows what it has to be answered.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

from benchmarks import payloads
from tests.worker.wire import Answer, Connection, MalformedAnswer, request
from trials.answers import fault_of
from trials.expected import BATCH, SINGLE, ExpectedAnswers, post
from trials.load import OVERLOADED, Item

_CLIENTS = 8
_HUNG = -1
"""In the place of a status: 0 is that of a connection that ended without an answer."""
_PIECES = 20
_PIECE_SECONDS = 0.1
HEAD_SECONDS, BODY_SECONDS = 2, 3
"""Settings for the server: how long a head and a body may take to arrive."""


@dataclass(frozen=True)
class Case:
    """Something that a client does; ``statuses`` are what it may be answered, none is no answer."""

    name: str
    act: Callable[[Connection], Answer | None]
    statuses: Sequence[int]
    path: str = ""
    item: Item | None = None
    """What was asked, where the answer is a prediction to be checked."""


@dataclass(frozen=True)
class Unexpected:
    """A case that went otherwise than it should."""

    began: float
    ended: float
    name: str
    status: int
    detail: str


@dataclass
class Account:
    """What came of all cases: how many by name and status, and those that went otherwise."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    unexpected: list[Unexpected] = field(default_factory=list)
    refused: int = 0
    """How many were told that the service is overloaded, whatever they had done."""
    predictions: int = 0
    """How many answers of 200 single predictions were given."""


class HostileClients:
    """Does ``rate`` cases a second, at random, while the context lasts."""

    def __init__(self, port: int, cases: Sequence[Case], rate: float, seed: int) -> None:
        self.account = Account()
        self._port = port
        self._cases = cases
        self._pause = _CLIENTS / rate
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(f"{seed} {n}"),))
            for n in range(_CLIENTS)
        ]

    def __enter__(self) -> HostileClients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, chance: random.Random) -> None:
        while not self._stopping.wait(chance.uniform(0, 2 * self._pause)):
            self.do(chance.choice(self._cases))

    def do(self, case: Case) -> None:
        """Do one case, and note what came of it."""
        began = monotonic()
        answer, fault, status = None, None, 0
        try:
            with Connection(("127.0.0.1", self._port)) as connection:
                answer = case.act(connection)
                status = answer.status if answer else 0
        except TimeoutError:
            fault, status = "neither an answer nor an end", _HUNG
        except (OSError, MalformedAnswer) as error:
            fault = f"{error!r}"
        refused = answer is not None and status == 503 and OVERLOADED in answer.body
        # On a machine so busy that the client itself was slow, it may be told so.
        late = status == 408 and monotonic() - began >= HEAD_SECONDS
        if not (fault or refused or late) and status not in (case.statuses or (0,)):
            fault = f"answered {status or 'nothing'} and not {case.statuses or 'nothing'}"
        if fault is None and answer:
            fault = fault_of(answer, case.path)
            if fault is None and case.item and status == 200:
                known = case.item.version_of(answer.body)
                fault = None if known else f"a wrong answer: {answer.body[:300]!r}"
        with self._lock:
            self.account.answers[case.name, status] += 1
            self.account.refused += refused
            if case.path == SINGLE and status == 200:
                self.account.predictions += 1
            if fault:
                self.account.unexpected.append(
                    Unexpected(began, monotonic(), case.name, status, fault)
                )


def cases(expected: ExpectedAnswers, seed: int) -> list[Case]:
    """Make the cases."""
    sample, *others = payloads.samples(100, seed, nulls=0)
    name = next(iter(sample))
    single, batch = expected.single(sample), expected.batch(others)
    pinned = Item(SINGLE, b"", {"1": single.probabilities["1"]}, {"1": single.exact["1"]})
    head, _, body = single.request.partition(b"\r\n\r\n")
    huge = expected.batch(others * 20)

    def json_of(document: object) -> bytes:
        return json.dumps(document).encode()

    def features(**changed: object) -> bytes:
        return json_of({"features": {**sample, **changed}})

    def sends(data: bytes) -> Callable[[Connection], Answer | None]:
        return lambda connection: connection.send(data).answer()

    def says(body: bytes, *fields: str, path: str = SINGLE) -> Callable[..., Answer | None]:
        return sends(post(path, body, *fields))

    def slowly(connection: Connection) -> Answer | None:
        step = max(1, len(single.request) // _PIECES)
        for at in range(0, len(single.request), step):
            connection.send(single.request[at : at + step])
            time.sleep(_PIECE_SECONDS / 2)
        return connection.answer()

    def reads_slowly(connection: Connection) -> Answer | None:
        connection.send(huge.request)
        time.sleep(_PIECE_SECONDS * 5)
        return connection.answer()

    def vanishes(data: bytes) -> Callable[[Connection], Answer | None]:
        def act(connection: Connection) -> None:
            connection.send(data)
            time.sleep(_PIECE_SECONDS / 10)
            connection.reset()

        return act

    without = {key: value for key, value in sample.items() if key != name}
    large = max(10_001, len(others))
    return [
        Case("no JSON", says(b'{"features": {'), [400]),
        Case("an empty body", says(b""), [400]),
        Case("no UTF-8", says(b'{"features": "\xff"}'), [400]),
        Case("a feature is missing", says(json_of({"features": without})), [400]),
        Case("an unknown feature", says(features(unknown=1)), [400]),
        Case("a string for a number", says(features(**{name: "35"})), [422]),
        Case("a number that is infinite", says(features(**{name: 1e39})), [422]),
        Case("an array for an object", says(b"[1, 2]"), [422]),
        Case(
            "a batch that is too long",
            says(b'{"samples": [%s]}' % b",".join([b"{}"] * large), path=BATCH),
            [413],
        ),
        Case(
            "a row that is wrong", says(json_of({"samples": [sample, without]}), path=BATCH), [400]
        ),
        Case(
            "a body that is too large",
            sends(head.replace(b"Content-Length: ", b"Content-Length: 9999") + b"\r\n\r\n"),
            [413],
        ),
        Case(
            "another type of content",
            sends(single.request.replace(b"application/json", b"text/plain")),
            [415],
        ),
        Case("a compressed body", says(body, "Content-Encoding: gzip"), [415]),
        Case("an unknown path", sends(request("/nowhere")), [404]),
        Case("an unknown model", says(body, path="/models/nobody/predict"), [404]),
        Case("an unknown version", says(body, "X-Model-Version: 99"), [404]),
        Case("another method", sends(request(SINGLE)), [405]),
        Case("a head that is too large", sends(request("/", f"X: {'a' * 9000}")), [400, 431]),
        Case("no HTTP", sends(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"), [400]),
        Case("two lengths", sends(post(SINGLE, body, "Content-Length: 1")), [400]),
        Case("a head that stops", sends(head[:60]), [408]),
        Case("a body that stops", sends(single.request[:-20]), [408]),
        Case("gone within the head", vanishes(head[:60]), []),
        Case("gone within the body", vanishes(single.request[:-20]), []),
        Case("gone before the answer", vanishes(batch.request), []),
        Case("gone within a long answer", vanishes(huge.request), []),
        Case("a slow sender", slowly, [200], SINGLE, single),
        Case("a slow reader", reads_slowly, [200], BATCH, huge),
        Case(
            "a version that is asked for",
            says(body, "X-Model-Version: 1"),
            [200, 404],
            SINGLE,
            pinned,
        ),
        Case("a batch", sends(batch.request), [200], BATCH, batch),
        Case("a scrape", sends(request("/metrics")), [200]),
        Case("a check of health", sends(request("/health/ready")), [200]),
        Case("the documents", sends(request("/openapi.json")), [200]),
    ]
