"""A short fuzz run of a real service finds nothing, and one of a service with faults finds them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from schemathesis.core.failures import ServerError
from schemathesis.openapi.checks import UndefinedStatusCode

from benchmarks.servers import Program
from tests.worker.wire import Answer, request
from trials.answers import PROBLEM_JSON, fault_of, is_passing
from trials.fuzz.__main__ import table, write
from trials.fuzz.conversations import Conversation, Findings, split
from trials.fuzz.hooks import filter_failure
from trials.fuzz.inputs import bodies, raw
from trials.fuzz.run import PARTS, Options, run, service

SEED = 5
WITHOUT_SCHEMATHESIS = ("raw bytes", "bodies", "hypothesis")
PREDICTION = (
    b'{"prediction":1,"label":"a","probabilities":{"class_0":0.2,"class_1":0.8},'
    b'"model_version":"1","timestamp":"now"}'
)
PROBLEM = (
    b'{"type":"a","title":"a","status":400,"detail":"a","instance":"a","request_id":"a",'
    b'"errors":[{"pointer":"/a","detail":"a"}]}'
)


def test_a_few_thousand_requests_find_nothing(tmp_path: Path) -> None:
    outcome = run(Options(4000, SEED), tmp_path)
    assert outcome.faults == []
    assert outcome.wrong == []
    assert outcome.requests >= 4000
    assert list(outcome.statuses) == list(PARTS)
    for part in PARTS:
        assert outcome.statuses[part][200] > 5
        assert outcome.statuses[part][400] > 0
        assert f"| {part} |" in table(outcome)


def behind(middleware: str, **settings: str) -> Program:
    """Describe the server that is fuzzed, with what `faulty` has by this name before it."""
    program = service()
    arguments = tuple(
        f"tests.trials.faulty:{middleware}" if one == "wsgi:app" else one
        for one in program.arguments
    )
    own = {**program.settings, **settings}
    return Program("f", program.executable, arguments, program.directory, own)


@pytest.mark.parametrize("part", WITHOUT_SCHEMATHESIS)
def test_faults_are_found_and_their_inputs_kept(tmp_path: Path, part: str) -> None:
    """Before the application stands one that answers some with 500, and some not at all."""
    outcome = run(Options(1500, SEED, part), tmp_path, behind("fragile"))
    said = "\n".join(outcome.faults)
    assert "an answer of 500" in said
    if part != "hypothesis":  # which ends with the first fault
        assert "a worker died" in said
    write(outcome, tmp_path / "out")
    kept = {file.stem: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert kept == {conversation.name: conversation.data for conversation, _ in outcome.wrong}
    assert kept


@pytest.mark.parametrize("part", ["hypothesis", "schemathesis"])
def test_refusals_of_the_moment_are_no_faults(tmp_path: Path, part: str) -> None:
    """Those that the description has: overload, a rate, what arrived too slowly."""
    program = behind("busy", LANTERN_LIMITS__RATE="900000/second")
    outcome = run(Options(300 if part == "hypothesis" else 12, SEED, part), tmp_path, program)
    assert outcome.faults == []
    if part == "hypothesis":  # the service itself doesn't count what was put before it
        assert all(outcome.statuses[part][status] for status in PASSING)


def test_schemathesis_is_contradicted_about_refusals_of_the_moment_alone() -> None:
    response = SimpleNamespace(
        status_code=503,
        headers={"content-type": [PROBLEM_JSON], "x-request-id": ["a"], "retry-after": ["1"]},
        content=refusal(503, "overloaded").partition(b"\r\n\r\n")[2],
    )
    of_the_request = ServerError(operation="a", status_code=503)
    of_the_form = UndefinedStatusCode(
        operation="a", status_code=503, defined_status_codes=[], allowed_status_codes=[], message=""
    )
    case = SimpleNamespace(path="/predict", headers={})
    assert not filter_failure(None, of_the_request, case, response)
    assert filter_failure(None, of_the_form, case, response)
    response.content = refusal(503, "model-unavailable").partition(b"\r\n\r\n")[2]
    assert filter_failure(None, of_the_request, case, response)


def test_the_same_seed_makes_the_same_requests_and_each_can_be_made_alone() -> None:
    for make in (raw, bodies):
        everything = list(make(SEED, 200))
        assert everything == list(make(SEED, 200))
        assert everything != list(make(SEED + 1, 200))
        assert len({one.name for one in everything}) == len(everything)


def judged(received: bytes, *paths: str, sent: bytes = b"") -> list[str]:
    findings = Findings()
    findings.judge(Conversation("a", (sent,), paths), received)
    return [what for _, what in findings.faults]


def http(status: int, body: bytes, *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status} A", f"Content-Length: {len(body)}", "X-Request-ID: a", *fields]
    return "\r\n".join([*lines, "", ""]).encode() + body


PASSING = (408, 429, 503)
PROBLEM_TYPE = "Content-Type: application/problem+json"


def refusal(status: int, kind: str, *fields: str) -> bytes:
    body = PROBLEM.replace(b"400", b"%d" % status)
    body = body.replace(b'"type":"a"', b'"type":"urn:lantern:problem:%s"' % kind.encode())
    return http(status, body, PROBLEM_TYPE, *fields)


@pytest.mark.parametrize(
    ("status", "kind", "fields"),
    [
        (503, "overloaded", ["Retry-After: 1"]),
        (503, "draining", ["Retry-After: 1"]),
        (503, "service-unavailable", ["Retry-After: 1"]),  # a worker's own, as it stops
        (429, "rate-limited", ["Retry-After: 30"]),
        (408, "request-timeout", []),
    ],
)
def test_a_refusal_of_the_moment_is_told_from_others(
    status: int, kind: str, fields: list[str]
) -> None:
    received = refusal(status, kind, *fields)
    assert judged(received, "/predict") == []
    (answer,) = split(received, may_be_head=False)
    assert is_passing(answer)
    for other in ("model-unavailable", "keys-unavailable", "a"):
        assert len(judged(refusal(status, other, *fields), "/predict")) == 1
    if fields:
        for wrong in ([], ["Retry-After: 0"], ["Retry-After: soon"], fields * 2):
            assert len(judged(refusal(status, kind, *wrong), "/predict")) == 1


def test_a_refusal_of_the_request_is_not_one_of_the_moment() -> None:
    for received in (http(400, PROBLEM, PROBLEM_TYPE), http(200, PREDICTION), http(500, b"")):
        (answer,) = split(received, may_be_head=False)
        assert not is_passing(answer)


def test_what_is_answered_as_documented_is_no_fault() -> None:
    assert judged(b"") == []
    assert judged(http(200, PREDICTION), "/predict") == []
    assert judged(http(400, PROBLEM, PROBLEM_TYPE) * 2, "/predict", "/predict") == []
    assert judged(http(400, PROBLEM, PROBLEM_TYPE, "Connection: close"), "/a", "/b") == []
    head = http(200, PREDICTION).removesuffix(PREDICTION)
    assert judged(head + http(200, PREDICTION), sent=request("/a", method="HEAD")) == []


@pytest.mark.parametrize(
    ("received", "paths"),
    [
        (http(500, PROBLEM.replace(b"400", b"500"), PROBLEM_TYPE), ()),
        (http(400, PROBLEM, "Content-Type: text/html"), ()),
        (http(422, PROBLEM, PROBLEM_TYPE), ()),
        (http(400, b"{}", PROBLEM_TYPE), ()),
        (http(400, PROBLEM.replace(b'"pointer"', b'"where"'), PROBLEM_TYPE), ()),
        (http(200, PREDICTION), ("/predict", "/predict")),
        (http(200, PREDICTION)[:-1], ()),
        (b"nonsense", ()),
        (http(200, PREDICTION.replace(b"0.8", b"NaN")), ("/predict",)),
        (http(200, PREDICTION.replace(b"0.8", b"0.7")), ("/predict",)),
        (http(200, PREDICTION.replace(b"0.2", b"null")), ("/predict",)),
        (http(200, PREDICTION.replace(b":1,", b":0,")), ("/predict",)),
        (http(200, PREDICTION.replace(b":1,", b":7,")), ("/predict",)),
        (http(200, b"{"), ("/predict/batch",)),
        (http(200, b'{"predictions":[],"total_samples":1,"model_version":"1"}'), ("/p/batch",)),
    ],
)
def test_anything_else_is_a_fault(received: bytes, paths: tuple[str, ...]) -> None:
    assert len(judged(received, *paths)) == 1


def test_a_refusal_without_an_id_is_a_fault() -> None:
    assert fault_of(Answer(404, (("content-type", "application/problem+json"),), PROBLEM))
