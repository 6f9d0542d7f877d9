"""Direct calls: requests whose head has come before are answered without the call of WSGI."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.worker.conftest import Gunicorn, Serve, wait_for
from tests.worker.wire import Answer, Connection, request

HOOK = """
class Direct:
    takes_long = False

    def __init__(self, path):
        self.path = path
        self.may_send_body = path != "/asked"

    def __call__(self, body, make_environ):
        if self.path == "/raises":
            raise SystemExit("of the application")
        if self.path == "/leaves":
            make_environ()["test.left"] = "by the direct call"
            return None
        if body == b"wsgi":
            return None
        return b"X-Way: direct\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (len(body), body)


def post_fork(server, worker):
    def find_direct(environ):
        assert "wsgi.input" not in environ and "REMOTE_ADDR" not in environ
        worker.log.info("asked for %s", environ["PATH_INFO"])
        return None if environ["PATH_INFO"] == "/none" else Direct(environ["PATH_INFO"])

    worker.find_direct = find_direct
    worker.may_send_body = lambda environ: worker.log.info("may %s", environ["PATH_INFO"]) or True
    worker.wait_budget = lambda environ: float(environ.get("HTTP_X_BUDGET", "inf"))
"""


@pytest.fixture(scope="module")
def gunicorn(serve: Serve) -> Gunicorn:
    return serve("left", "--log-level", "info", config=HOOK)


def post(path: str, body: bytes = b"abcde", *fields: str) -> bytes:
    return request(path, f"Content-Length: {len(body)}", *fields, method="POST") + body


def ways(answers: list[Answer]) -> list[str]:
    """Return which way each went: the application under WSGI says "wsgi"."""
    return [answer["X-Way"] for answer in answers]


def ask_one_by_one(gunicorn: Gunicorn, *requests: bytes) -> list[Answer]:
    with Connection(gunicorn.address) as connection:
        answers = [connection.send(each).answer() for each in requests]
    assert None not in answers
    return [answer for answer in answers if answer is not None]


def test_the_second_request_with_a_head_is_the_first_that_is_answered_directly(
    gunicorn: Gunicorn,
) -> None:
    answers = ask_one_by_one(gunicorn, *[post("/second", body) for body in (b"1", b"2", b"3")])
    assert ways(answers) == ["wsgi", "direct", "direct"]
    assert [answer.body for answer in answers] == [b"1", b"2", b"3"]
    # On another connection, too; and the application was asked once.
    assert ways(ask_one_by_one(gunicorn, post("/second", b"4"))) == ["direct"]
    wait_for(lambda: "asked for /second" in gunicorn.text)
    assert gunicorn.text.count("asked for /second") == 1


def test_the_fields_of_the_server_are_those_of_any_response(gunicorn: Gunicorn) -> None:
    first, second = ask_one_by_one(gunicorn, post("/fields"), post("/fields"))
    names = ("Server", "Connection")
    assert [first[name] for name in names] == [second[name] for name in names]
    assert second["Date"].endswith("GMT")


def test_http_1_0_is_answered_by_wsgi_in_its_version(gunicorn: Gunicorn) -> None:
    old = post("/old", b"1", "Connection: keep-alive").replace(b" HTTP/1.1", b" HTTP/1.0")
    assert ways(ask_one_by_one(gunicorn, old, old, old)) == ["wsgi"] * 3


def test_several_at_once_are_answered_in_order(gunicorn: Gunicorn) -> None:
    sent = [post("/several", b"%d" % number) for number in range(10, 60)]
    with Connection(gunicorn.address) as connection:
        connection.send(b"".join(sent))
        answers = [connection.answer() for _ in sent]
    assert [answer and answer.body for answer in answers] == [each[-2:] for each in sent]
    assert {answer["X-Way"] for answer in answers[1:] if answer} == {"direct"}


def test_what_it_left_in_the_environ_is_found_by_wsgi(gunicorn: Gunicorn) -> None:
    answers = ask_one_by_one(gunicorn, post("/leaves"), post("/leaves", b"fghij"))
    assert [answer["X-Left"] for answer in answers] == ["", "by the direct call"]
    assert [answer.body for answer in answers] == [b"abcde", b"fghij"]


def test_what_it_does_not_answer_is_called_by_wsgi(gunicorn: Gunicorn) -> None:
    sent = [post("/some", b"1234"), post("/some", b"wsgi"), post("/some", b"1234")]
    answers = ask_one_by_one(gunicorn, *sent)
    assert ways(answers) == ["wsgi", "wsgi", "direct"]
    assert answers[1].body == b"wsgi"
    assert ways(ask_one_by_one(gunicorn, post("/none"), post("/none"))) == ["wsgi", "wsgi"]


def test_a_body_may_come_in_parts_from_anybody(gunicorn: Gunicorn) -> None:
    body = b"a" * 100_000  # more than is read with a head
    answers = ask_one_by_one(gunicorn, *[post("/parts", body) for _ in range(3)])
    assert ways(answers) == ["wsgi", "direct", "direct"]
    assert {answer.body for answer in answers} == {body}


def test_who_may_send_a_body_is_asked_for_unless_anybody_may(gunicorn: Gunicorn) -> None:
    body = b"a" * 100_000
    answers = ask_one_by_one(gunicorn, *[post("/asked", body) for _ in range(3)])
    assert ways(answers) == ["wsgi"] * 3
    assert {answer.body for answer in answers} == {body}
    wait_for(lambda: gunicorn.text.count("may /asked") == 3)
    assert gunicorn.text.count("may /parts") == 1  # before it was known


def test_a_client_that_closes_is_told_so(gunicorn: Gunicorn) -> None:
    closing = post("/closing", b"1", "Connection: close")
    for way in ("wsgi", "direct"):
        with Connection(gunicorn.address) as connection:
            connection.send(closing)
            (answer,) = connection.answers()
        assert (answer["X-Way"], answer["Connection"]) == (way, "close")


def test_what_it_raises_ends_one_request(gunicorn: Gunicorn) -> None:
    before = gunicorn.worker()
    with Connection(gunicorn.address) as connection:
        first = connection.send(post("/raises")).answer()
        assert first is not None
        assert first.status == 200
        connection.send(post("/raises"))
        (second,) = connection.answers()
    assert (second.status, second["Connection"]) == (500, "close")
    wait_for(lambda: "of the application" in gunicorn.text)
    assert gunicorn.worker() == before


def test_one_that_is_overdue_is_left_to_wsgi(gunicorn: Gunicorn, tmp_path: Path) -> None:
    overdue = post("/late", b"1", "X-Budget: 0.01")
    ask_one_by_one(gunicorn, overdue, overdue)
    go_on = tmp_path / "go-on"
    with Connection(gunicorn.address) as busy, Connection(gunicorn.address) as late:
        late.send(request("/pid")).answer()  # it is accepted
        busy.send(request(f"/work-after?in-the-iterable&path={go_on}")).answer()
        late.send(overdue)
        time.sleep(0.05)  # the worker is busy, and this is more than the budget
        go_on.touch()
        answer = late.answer()
    assert answer is not None
    assert (answer["X-Way"], answer["X-Overdue"]) == ("wsgi", "yes")


def test_hooks_of_gunicorn_see_every_response(serve: Serve) -> None:
    gunicorn = serve("left", "--access-logfile", "-", config=HOOK)
    assert ways(ask_one_by_one(gunicorn, post("/a"), post("/a"), post("/a"))) == ["wsgi"] * 3
    wait_for(lambda: gunicorn.text.count("POST /a") == 3)


def test_they_count_towards_the_most_requests_of_a_worker(serve: Serve) -> None:
    gunicorn = serve("left", "--max-requests", "5", config=HOOK)
    before = gunicorn.worker()
    for _ in range(5):
        ask_one_by_one(gunicorn, post("/count"))
    wait_for(lambda: before not in gunicorn.workers())
