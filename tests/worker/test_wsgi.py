"""The worker as a WSGI server: PEP 3333 by the letter, and Gunicorn's answers where it is silent.

Each test runs on `gthread` too, so that it says nothing that Gunicorn's users don't know.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.worker.apps import BLOCK
from tests.worker.conftest import WAYS, Gunicorn, Serve, wait_for
from tests.worker.wire import Answer, Connection, MalformedAnswer, ask, chunked, request


@pytest.fixture(scope="module", params=WAYS)
def worker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def zoo(worker: str, serve: Serve) -> Gunicorn:
    return serve("zoo", "--access-logfile", "-", worker=worker)


@pytest.fixture(scope="module")
def valid(worker: str, serve: Serve) -> Gunicorn:
    return serve("validated", worker=worker)


def recorded(gunicorn: Gunicorn, name: str) -> list[str]:
    """Give what happened to the iterable ``name``."""
    steps: list[str] = ask(gunicorn.address, "/recorded").json()
    return [step.removeprefix(f"{name} ") for step in steps if step.startswith(f"{name} ")]


CHUNKS = [b"a" * 10, b"b" * 5000, b"c"]


@pytest.mark.parametrize("path", ["/", "/stream", "/a%20b?c=d"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_wsgiref_finds_no_fault(path: str, version: str, valid: Gunicorn) -> None:
    answers = [
        ask(valid.address, path, version=version),
        ask(valid.address, path, method="HEAD", version=version),
        ask(valid.address, path, method="OPTIONS", version=version),
        ask(valid.address, path, method="POST", body=b"", version=version),
        ask(valid.address, path, "Content-Type: a/b", method="PUT", body=b"a\n" * 50),
    ]
    assert [answer.status for answer in answers] == [200] * 5, valid.text[-5000:]
    assert answers[-1].body == b"a\n" * 50


@pytest.mark.parametrize("path", ["/", "/stream"])
def test_wsgiref_finds_no_fault_with_a_chunked_body(path: str, valid: Gunicorn) -> None:
    with Connection(valid.address) as connection:
        head = request(path, "Transfer-Encoding: chunked", method="POST")
        answer = connection.send(head + chunked(*CHUNKS)).answer()
    assert answer is not None
    assert (answer.status, answer.body) == (200, b"".join(CHUNKS)), valid.text[-5000:]


def test_a_body_is_read_in_all_the_ways_there_are(zoo: Gunicorn) -> None:
    body = b"one\ntwo\nthree\nfour\nfive"
    expected = ["one", "", "\n", "tw", "o\n", "three\n", "four\n", "five", "", "", ""]
    assert ask(zoo.address, "/lines", method="POST", body=body).json() == expected
    with Connection(zoo.address) as connection:
        head = request("/lines", "Transfer-Encoding: chunked", method="POST")
        answer = connection.send(head + chunked(body[:2], body[2:11], body[11:])).answer()
    assert answer is not None
    assert answer.json() == expected


def exchange(gunicorn: Gunicorn, target: str, **options: Any) -> tuple[Answer, Answer | None]:
    """Ask on a connection, then once more: give both answers, the second None where it's closed."""
    with Connection(gunicorn.address) as connection:
        first = connection.send(request(target, **options)).answer(
            head=options.get("method") == "HEAD"
        )
        assert first is not None, gunicorn.text[-5000:]
        return first, connection.send(request("/pid")).answer()


def test_a_stream_without_a_length_is_chunked_and_closed(zoo: Gunicorn) -> None:
    answer, after = exchange(zoo, "/stream?name=chunked")
    assert answer.body == b"one two three"
    assert answer.all("Transfer-Encoding") == ["chunked"]
    assert after is not None
    assert recorded(zoo, "chunked") == ["gave 4", "gave 0", "gave 4", "gave 5", "closed"]


def test_a_stream_to_an_old_client_ends_with_the_connection(zoo: Gunicorn) -> None:
    with Connection(zoo.address) as connection:
        data = request("/stream?name=old", "Connection: keep-alive", version="1.0")
        (answer,) = connection.send(data).answers()
    assert answer.body == b"one two three"
    assert answer.all("Transfer-Encoding") == []
    assert answer["Connection"].lower() == "close"
    assert recorded(zoo, "old")[-1] == "closed"


def test_a_stream_with_a_length_keeps_the_connection(zoo: Gunicorn) -> None:
    answer, after = exchange(zoo, "/sized-stream")
    assert (answer.body, answer["Content-Length"]) == (b"one two three", "13")
    assert after is not None
    with Connection(zoo.address) as connection:
        old = request("/sized-stream", "Connection: keep-alive", version="1.0")
        assert connection.send(old).answer() == connection.send(old).answer()


@pytest.mark.parametrize("path", ["/stream?name=head", "/sized-stream?name=head", "/list", "/file"])
def test_the_answer_to_head_has_no_body_and_the_fields_of_get(path: str, zoo: Gunicorn) -> None:
    head, after = exchange(zoo, path, method="HEAD")
    assert after is not None
    assert after.body.isdigit()
    get, _ = exchange(zoo, path)
    assert head.status == get.status
    assert head.all("Content-Length") == get.all("Content-Length")
    assert head.all("Content-Type") == get.all("Content-Type")


def test_the_iterable_of_a_head_is_closed(zoo: Gunicorn) -> None:
    exchange(zoo, "/stream?name=of-head", method="HEAD")
    assert recorded(zoo, "of-head")[-1] == "closed"


def test_what_is_written_comes_before_what_is_returned(zoo: Gunicorn) -> None:
    answer, after = exchange(zoo, "/write")
    assert answer.body == b"written twice and returned"
    assert after is not None


def test_a_wrapped_file_is_sent_from_where_it_stands(zoo: Gunicorn) -> None:
    answer, after = exchange(zoo, "/file")
    assert answer.body == (BLOCK * 3)[10:]
    assert after is not None


def test_a_huge_answer_comes_whole(zoo: Gunicorn) -> None:
    for how in ("sized", "stream", "whole", "whole&sized"):
        answer, after = exchange(zoo, f"/huge?blocks=100&{how}")
        assert answer.body == BLOCK * 100
        assert after is not None


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("path", ["/nothing", "/forbidden-body"])
def test_a_status_without_a_body_has_none(path: str, status: str, zoo: Gunicorn) -> None:
    answer, after = exchange(zoo, f"{path}?status={status.replace(' ', '%20')}")
    assert answer.status == int(status[:3])
    assert answer.body == b""
    assert after is not None
    assert after.body.isdigit()


def test_an_empty_answer_keeps_the_connection(zoo: Gunicorn) -> None:
    answer, after = exchange(zoo, "/nothing?status=200%20OK")
    assert (answer.status, answer.body) == (200, b"")
    assert after is not None


def test_more_than_the_promised_length_is_not_sent(zoo: Gunicorn) -> None:
    answer, after = exchange(zoo, "/too-long")
    assert answer.body == b"fourHT"
    if after is not None:
        assert after.body.isdigit()


def test_less_than_the_promised_length_ends_the_connection(worker: str, zoo: Gunicorn) -> None:
    """What follows would be taken for the rest of it."""
    if worker == "gthread":
        pytest.skip("gthread keeps the connection, and the client waits for the rest in vain")
    with Connection(zoo.address) as connection:
        received = connection.send(request("/too-short") + request("/pid")).receive_all()
    assert received.endswith(b"\r\n\r\nfour"), received
    assert b"ontent-" in received


def test_a_body_that_the_application_leaves_unread_is_not_the_next_request(zoo: Gunicorn) -> None:
    body = request("/smuggled", method="POST")
    answer, after = exchange(zoo, "/unread", method="POST", body=body)
    assert answer.body == b"ok"
    assert after is None or after.body.isdigit()
    with Connection(zoo.address) as connection:
        head = request("/unread", "Transfer-Encoding: chunked", method="POST")
        connection.send(head + chunked(body, body))
        first, after = connection.answer(), connection.send(request("/pid")).answer()
    assert first is not None
    assert first.body == b"ok"
    assert after is None or after.body.isdigit()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/raise", "raised before the start"),
        ("/raise-started", "raised after the start"),
        ("/start-twice", "already set"),
        ("/no-start", ""),
        ("/text", ""),
        ("/none", ""),
        ("/split-answer", "X-Bad"),
        ("/bad-status", ""),
    ],
)
def test_a_fault_of_the_application_is_answered_500_and_logged(
    path: str, said: str, zoo: Gunicorn
) -> None:
    before = zoo.worker()
    with Connection(zoo.address) as connection:
        try:
            answers = connection.send(request(path)).answers()
        except MalformedAnswer:
            answers = []  # the head had gone out: there is only closing
    assert [answer.status for answer in answers] in ([500], []), answers
    if path in ("/raise", "/split-answer", "/bad-status", "/start-twice"):
        assert answers
    if answers:
        assert "raised" not in answers[0].body.decode(), "the answer tells of the inside"
        assert b"Traceback" not in answers[0].body
        assert not answers[0].all("X-Injected")
    assert said in zoo.text
    wait_for(lambda: "Traceback" in zoo.text)
    assert ask(zoo.address).status == 200
    assert zoo.worker() == before


@pytest.mark.parametrize("path", ["/raise-midway", "/raise-midway-sized"])
def test_an_answer_that_fails_midway_is_cut_off_and_closed(path: str, zoo: Gunicorn) -> None:
    """The client must see that it isn't whole."""
    with Connection(zoo.address) as connection:
        received = connection.send(request(path) + request("/pid")).receive_all()
    assert received.startswith(b"HTTP/1.1 ")
    if received.startswith(b"HTTP/1.1 200"):
        assert b"the first part" in received
        assert not received.endswith(b"0\r\n\r\n"), received
    assert received.count(b"HTTP/1.1 ") == 1, received
    assert recorded(zoo, "midway")[-1] == "closed"


def test_a_fault_in_close_is_logged_and_harms_nobody(zoo: Gunicorn) -> None:
    before = zoo.worker()
    with Connection(zoo.address) as connection:
        received = connection.send(request("/raise-in-close")).receive_all()
    assert received.endswith(b"body")
    assert recorded(zoo, "bad")[-1] == "closed"
    wait_for(lambda: "raised in close" in zoo.text)
    assert zoo.worker() == before


def test_a_start_can_be_replaced_before_anything_is_sent(worker: str, zoo: Gunicorn) -> None:
    if worker == "gthread":
        pytest.skip("gthread sends the fields of both starts, with two lengths")
    answer, _ = exchange(zoo, "/replace")
    assert (answer.status, answer.body) == (503, b"sorry")
    assert not answer.all("X-First")


def test_fields_that_belong_to_the_server_are_its_own(zoo: Gunicorn) -> None:
    answer, after = exchange(zoo, "/hop-by-hop")
    assert answer.body == b"ok"
    assert len(answer.all("Connection")) == 1
    assert not answer.all("Transfer-Encoding")
    assert not answer.all("Keep-Alive")
    assert after is not None


def test_every_answer_has_a_date_and_names_the_server(zoo: Gunicorn) -> None:
    answer = ask(zoo.address)
    assert answer["Date"].endswith(" GMT")
    assert answer["Server"] == "gunicorn"


def test_words_to_wsgi_errors_are_in_the_log(zoo: Gunicorn) -> None:
    ask(zoo.address, "/errors")
    wait_for(lambda: "a word to the log of errors" in zoo.text)


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        ("1.1", None, True),
        ("1.1", "close", False),
        ("1.1", "Close", False),
        ("1.1", "keep-alive", True),
        ("1.0", None, False),
        ("1.0", "keep-alive", True),
        ("1.0", "close", False),
    ],
)
def test_a_connection_is_kept_as_the_client_asks(
    version: str, connection: str | None, kept: bool, zoo: Gunicorn
) -> None:
    fields = [f"Connection: {connection}"] if connection else []
    with Connection(zoo.address) as client:
        answer = client.send(request("/pid", *fields, version=version)).answer()
        assert answer is not None
        assert answer["Connection"].lower() == ("keep-alive" if kept else "close")
        if kept:
            assert client.send(request("/pid")).answer() is not None
        else:
            assert client.receive_all() == b""


def test_the_environ_says_what_a_worker_with_one_process_and_one_thread_is(
    serve: Serve, server: Gunicorn
) -> None:
    environ = json.loads(ask(server.address)["X-Environ"])
    assert environ["wsgi.multithread"] is False
    assert environ["wsgi.multiprocess"] is False
    assert environ["wsgi.run_once"] is False
    assert environ["wsgi.url_scheme"] == "http"
    two = serve("echo", "-w", "2")
    assert json.loads(ask(two.address)["X-Environ"])["wsgi.multiprocess"] is True


def test_an_application_that_exits_leaves_the_others_served(worker: str, serve: Serve) -> None:
    gunicorn = serve("zoo", worker=worker)
    with Connection(gunicorn.address) as connection:
        received = connection.send(request("/exit")).receive_all()
    assert not received.startswith(b"HTTP/1.1 200")
    assert ask(gunicorn.address).status == 200


def test_an_empty_part_tells_no_length_where_the_body_is_left_out(zoo: Gunicorn) -> None:
    """It would be taken for the length of what was left out."""
    not_modified, after = exchange(zoo, "/empty-part?status=304%20Not%20Modified")
    assert not_modified.status == 304
    assert not not_modified.all("Content-Length")
    assert after is not None
    head, after = exchange(zoo, "/empty-part", method="HEAD")
    assert not head.all("Content-Length")
    assert after is not None
    get, _ = exchange(zoo, "/empty-part")
    assert get.body == b""


def test_a_start_that_failed_leaves_nothing_of_itself(worker: str, zoo: Gunicorn) -> None:
    if worker == "gthread":
        pytest.skip("gthread keeps what it had taken of the second start")
    answer, after = exchange(zoo, "/swallow")
    assert "swallow swallowed" in ask(zoo.address, "/recorded").json()
    assert answer.status == 200
    assert answer["X-First"] == "yes"
    assert not answer.all("X-Second")
    assert answer.body == b"sorry, but here I am"
    assert after is not None
    assert after.body.isdigit()


@pytest.mark.parametrize("status", ["100 Continue", "101 Switching", "103 Early Hints"])
def test_a_status_that_is_not_final_ends_the_connection(
    status: str, worker: str, zoo: Gunicorn
) -> None:
    """The client waits for the final one, and would take the next answer for it."""
    if worker == "gthread":
        pytest.skip("gthread keeps the connection")
    target = f"/nothing?status={status.replace(' ', '%20')}"
    with Connection(zoo.address) as connection:
        (answer,) = connection.send(request(target) + request("/pid")).answers()
    assert answer.status == int(status[:3])
    assert answer["Connection"].lower() == "close"


def test_two_lengths_are_a_fault_of_the_application(worker: str, zoo: Gunicorn) -> None:
    if worker == "gthread":
        pytest.skip("gthread sends both")
    with Connection(zoo.address) as connection:
        (answer,) = connection.send(request("/two-lengths")).answers()
    assert answer.status == 500
    assert len(answer.all("Content-Length")) == 1
