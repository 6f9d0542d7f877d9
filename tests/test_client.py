"""The client against a server whose answers are written down beforehand."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from app.client import (
    ClientError,
    KeyRejected,
    ModelClient,
    NotAllowed,
    RateExceeded,
    RequestRejected,
    ServiceUnreachable,
    UnexpectedResponse,
    main,
)
from tests.conftest import ROOT
from tests.integration.conftest import free_port, wait_for

PROBLEM = {
    "type": "urn:lantern:problem:invalid-value",
    "title": "Unprocessable Entity",
    "status": 422,
    "detail": "/features/age must be a number.",
    "instance": "/predict",
    "request_id": "abc",
    "errors": [{"pointer": "/features/age", "detail": "must be a number"}],
}
UNHEALTHY = {
    "status": "unhealthy",
    "model_loaded": False,
    "model_version": None,
    "timestamp": "2026-01-01T00:00:00+00:00",
    "reason": "There is no bundle.",
}


class Answer(NamedTuple):
    status: int = 200
    body: Any = {"prediction": 1}  # noqa: RUF012
    headers: dict[str, str] = {}  # noqa: RUF012


class Refusal(Answer):
    def __new__(cls, status: int, **headers: str) -> Refusal:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        problem = {**PROBLEM, "status": status}
        return super().__new__(
            cls, status, problem, {"Content-Type": "application/problem+json", **named}
        )


class Received(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: Any


OK = Answer()
BREAK = None
"""In a script: close the connection instead of answering."""
SILENCE = ...
"""In a script: don't answer until the test is over."""


class ScriptedServer(ThreadingHTTPServer):
    """Gives the answers of ``script`` in turn, the last one for ever, and notes what it got."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.script: list[Any] = [OK]
        self.received: list[Received] = []
        self.opened = 0
        self.closed = 0
        self.over = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def setup(self) -> None:
        super().setup()
        self.server.opened += 1

    def finish(self) -> None:
        super().finish()
        self.server.closed += 1

    def do_GET(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(raw) if raw else None
        server = self.server
        server.received.append(Received(self.command, self.path, dict(self.headers), body))
        answer = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        if not isinstance(answer, Answer):
            if answer is SILENCE:
                server.over.wait(30)
            self.close_connection = True
            return
        content = answer.body.encode() if isinstance(answer.body, str) else json.dumps(answer.body)
        content = content if isinstance(content, bytes) else content.encode()
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[ModelClient]:
    with ModelClient(server.url, timeout=10, retries=3) as client:
        yield client


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were slept between retries, without sleeping them."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize(
    ("call", "request_line", "body"),
    [
        (lambda c: c.health_check(), "GET /health", None),
        (lambda c: c.get_model_info(), "GET /model/info", None),
        (
            lambda c: c.predict({"a": 1.5, "b": None}),
            "POST /predict",
            {"features": {"a": 1.5, "b": None}},
        ),
        (
            lambda c: c.predict_batch([{"a": 1}, {"a": 2}]),
            "POST /predict/batch",
            {"samples": [{"a": 1}, {"a": 2}]},
        ),
    ],
)
def test_each_method_makes_the_request_of_the_contract_and_gives_its_answer(
    server: ScriptedServer, call: Callable[[ModelClient], Any], request_line: str, body: Any
) -> None:
    with ModelClient(server.url) as client:
        assert call(client) == OK.body
    [request] = server.received
    assert f"{request.method} {request.path}" == request_line
    assert request.body == body
    assert request.headers.get("Content-Type") == (body and "application/json")


@pytest.mark.parametrize("prefix", ["", "/", "/models/lantern", "/models/lantern/"])
def test_the_base_url_may_have_a_path_and_end_with_a_slash(
    server: ScriptedServer, prefix: str
) -> None:
    server.script = [Answer(503, UNHEALTHY), OK]
    with ModelClient(server.url + prefix) as client:
        client.health_check()
        client.predict({})
    paths = [request.path for request in server.received]
    assert paths == [prefix.rstrip("/") + path for path in ("/health", "/predict")]


def test_one_connection_serves_all_calls(server: ScriptedServer, client: ModelClient) -> None:
    server.script = [OK, Refusal(400), Answer(503, UNHEALTHY), OK]
    client.get_model_info()
    with pytest.raises(RequestRejected):
        client.predict({})
    client.health_check()
    client.predict_batch([])
    assert len(server.received) == 4
    assert server.opened == 1


def test_leaving_the_context_closes_the_connection(server: ScriptedServer) -> None:
    with ModelClient(server.url) as client:
        client.predict({})
        assert server.closed == 0
    wait_for(lambda: server.closed == 1)


# Retries


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.usefixtures("waits")
def test_a_service_that_is_busy_is_asked_again(
    server: ScriptedServer, client: ModelClient, status: int
) -> None:
    server.script = [Refusal(status), OK]
    assert client.predict({"a": 1}) == OK.body
    assert [request.body for request in server.received] == [{"features": {"a": 1}}] * 2


def test_a_retry_waits_as_long_as_the_service_asks_for(
    server: ScriptedServer, client: ModelClient, waits: list[float]
) -> None:
    server.script = [Refusal(503, Retry_After="7"), Refusal(429, Retry_After="2"), OK]
    client.predict({})
    assert waits == [7, 2]


def test_a_wait_that_the_service_asks_for_is_bounded(
    server: ScriptedServer, client: ModelClient, waits: list[float]
) -> None:
    server.script = [Refusal(503, Retry_After="86400"), OK]
    client.predict({})
    assert waits == [30]


@pytest.mark.parametrize("headers", [{}, {"Retry_After": "soon"}, {"Retry_After": "9" * 5000}])
def test_waits_grow_where_the_service_asks_for_none_that_makes_sense(
    server: ScriptedServer, client: ModelClient, waits: list[float], headers: dict[str, str]
) -> None:
    server.script = [*[Refusal(503, **headers)] * 3, OK]
    client.predict({})
    for wait, seconds in zip(waits, (0.25, 0.5, 1), strict=True):
        assert 0.5 * seconds <= wait <= 1.5 * seconds


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("retries", [0, 1, 3])
def test_it_gives_up_after_its_retries_and_tells_the_last_problem(
    server: ScriptedServer, retries: int
) -> None:
    server.script = [Refusal(503)]
    with ModelClient(server.url, retries=retries) as client, pytest.raises(RequestRejected) as info:
        client.get_model_info()
    assert info.value.problem == {**PROBLEM, "status": 503}
    assert len(server.received) == retries + 1


@pytest.mark.parametrize("status", [400, 404, 408, 413, 415, 422, 500, 502])
def test_other_refusals_are_not_asked_again(
    server: ScriptedServer, client: ModelClient, status: int
) -> None:
    server.script = [Refusal(status, Retry_After="1")]
    with pytest.raises(RequestRejected) as info:
        client.predict({})
    assert info.value.status == status
    assert len(server.received) == 1


def test_a_connection_that_was_closed_while_idle_is_made_anew_at_once(
    server: ScriptedServer, client: ModelClient, waits: list[float]
) -> None:
    server.script = [OK, BREAK, OK]
    client.predict({})
    assert client.predict({}) == OK.body
    assert (len(server.received), server.opened, waits) == (3, 2, [])


@pytest.mark.usefixtures("waits")
def test_a_service_that_breaks_every_connection_is_unreachable(
    server: ScriptedServer, client: ModelClient
) -> None:
    server.script = [BREAK]
    with pytest.raises(ServiceUnreachable, match="closed connection without response"):
        client.predict({})
    assert len(server.received) == 4


def test_an_answer_that_is_late_is_not_asked_for_again(server: ScriptedServer) -> None:
    server.script = [SILENCE]
    with (
        ModelClient(server.url, timeout=(5, 0.2)) as client,
        pytest.raises(ServiceUnreachable, match=r"no data for 0\.2 seconds"),
    ):
        client.predict({})
    assert len(server.received) == 1


# Health


def test_an_unhealthy_service_is_an_answer_and_asked_once(
    server: ScriptedServer, client: ModelClient
) -> None:
    server.script = [Answer(503, UNHEALTHY), OK]
    assert client.health_check() == UNHEALTHY
    assert len(server.received) == 1


def test_a_health_check_survives_a_connection_that_was_closed_while_idle(
    server: ScriptedServer, client: ModelClient
) -> None:
    server.script = [OK, BREAK, Answer(503, UNHEALTHY)]
    client.predict({})
    assert client.health_check() == UNHEALTHY


def test_a_503_that_is_not_the_services_own_health_is_refused(
    server: ScriptedServer, client: ModelClient
) -> None:
    server.script = [Answer(503, "no backend", {"Content-Type": "text/plain"})]
    with pytest.raises(RequestRejected, match="no backend"):
        client.health_check()
    assert len(server.received) == 1


# Exceptions


def test_a_refusal_carries_the_problem_and_says_it(
    server: ScriptedServer, client: ModelClient
) -> None:
    server.script = [Refusal(422)]
    with pytest.raises(ClientError) as info:
        client.predict({"age": 1})
    error = info.value
    assert isinstance(error, RequestRejected)
    assert error.problem == PROBLEM
    assert error.status == 422
    assert error.detail == PROBLEM["detail"]
    assert error.errors == PROBLEM["errors"]
    assert error.request_id == "abc"
    assert str(error) == (
        "422 Unprocessable Entity: /features/age must be a number. [request_id abc]"
    )


def test_the_error_page_of_a_proxy_is_a_refusal_too(
    server: ScriptedServer, client: ModelClient
) -> None:
    page = "<html><h1>Bad gateway</h1></html>" + " " * 10_000
    server.script = [Answer(502, page, {"Content-Type": "text/html", "X-Request-ID": "xyz"})]
    with pytest.raises(RequestRejected) as info:
        client.predict({})
    assert (info.value.status, info.value.problem["type"]) == (502, "about:blank")
    assert (info.value.errors, info.value.request_id) == ([], "xyz")
    assert "<h1>Bad gateway</h1>" in str(info.value)
    assert len(str(info.value)) < 400


def test_a_redirect_is_refused_because_a_post_would_not_survive_it(
    server: ScriptedServer, client: ModelClient
) -> None:
    server.script = [Answer(301, "", {"Location": "https://example.com/predict"})]
    with pytest.raises(RequestRejected, match=r"redirects to https://example\.com/predict"):
        client.predict({})
    assert len(server.received) == 1


@pytest.mark.parametrize("body", ["<html>Welcome!</html>", "[]", ""])
def test_success_without_a_json_object_is_not_lanterns(
    server: ScriptedServer, client: ModelClient, body: str
) -> None:
    server.script = [Answer(200, body)]
    with pytest.raises(UnexpectedResponse, match="not Lantern's"):
        client.get_model_info()


def test_an_unreachable_service_is_named_with_the_reason() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with ModelClient(url, retries=0) as client, pytest.raises(ServiceUnreachable) as info:
        try:
            raise KeyError("something else that is being handled")
        except KeyError:
            client.predict({})
    assert str(info.value) == f"No response from {url}/predict: Connection refused."


def test_a_host_whose_name_can_not_be_is_unreachable() -> None:
    url = f"http://{'a' * 64}.invalid"  # a label has at most 63
    with ModelClient(url, retries=0) as client, pytest.raises(ServiceUnreachable, match="too long"):
        client.health_check()


@pytest.mark.parametrize(
    "error",
    [RequestRejected(422, PROBLEM), ServiceUnreachable("u", "r"), UnexpectedResponse("u", "")],
)
def test_exceptions_travel_between_processes(error: ClientError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (type(error), str(error))


# Arguments


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "localhost",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://[::1",
        "http://host/?a=1",
        "http://host/#a",
    ],
)
def test_a_base_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        ModelClient(url)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), (1, 0), (1, 2, 3)])
def test_a_timeout_that_can_not_pass_is_refused(timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        ModelClient(timeout=timeout)


def test_negative_retries_are_refused() -> None:
    with pytest.raises(ValueError, match="retries"):
        ModelClient(retries=-1)


def test_credentials_are_sent_and_never_shown(server: ScriptedServer) -> None:
    server.script = [Answer(200, "no")]
    with (
        ModelClient(server.url.replace("://", "://user:s%40cret@")) as client,
        pytest.raises(UnexpectedResponse) as info,
    ):
        client.predict({})
    assert server.received[0].headers["Authorization"] == "Basic dXNlcjpzQGNyZXQ="
    assert "cret" not in str(info.value) + client.base_url


def test_a_key_is_sent_with_every_call_and_never_shown(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not what a .netrc has for the host, which requests would take instead."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.script = [OK, Refusal(401)]
    with ModelClient(server.url, api_key="lantern_1_s3cret") as client:
        client.predict({})
        with pytest.raises(KeyRejected) as refused:
            client.health_check()
    sent = [received.headers["Authorization"] for received in server.received]
    assert sent == ["Bearer lantern_1_s3cret"] * 2
    assert "s3cret" not in str(refused.value) + repr(refused.value)


def test_a_key_goes_to_no_other_host(server: ScriptedServer) -> None:
    other = ScriptedServer()
    server.script = [Answer(307, {}, {"Location": f"{other.url}/predict"})]
    with other, ModelClient(server.url, api_key="s3cret") as client:
        with pytest.raises(RequestRejected, match="It redirects to"):
            client.predict({})
        assert other.received == []


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ключ"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match="api_key must be a key") as error:
        ModelClient(api_key=key)
    assert key == "" or key not in str(error.value)


def test_a_password_and_a_key_can_not_both_be_sent() -> None:
    with pytest.raises(ValueError, match="only one is sent"):
        ModelClient("http://user:s3cret@127.0.0.1", api_key="key")


@pytest.mark.parametrize(("status", "kind"), [(401, KeyRejected), (403, NotAllowed)])
def test_a_key_that_is_refused_is_not_tried_again(
    server: ScriptedServer, client: ModelClient, status: int, kind: type[RequestRejected]
) -> None:
    server.script = [Refusal(status)]
    with pytest.raises(kind) as refused:
        client.predict({})
    assert refused.value.status == status
    assert len(server.received) == 1


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("soon", None)])
def test_a_rate_that_is_exceeded_says_when_to_come_back(
    server: ScriptedServer, header: str, seconds: float | None
) -> None:
    server.script = [Refusal(429, Retry_After=header)]
    with ModelClient(server.url, retries=0) as client, pytest.raises(RateExceeded) as refused:
        client.predict({})
    assert refused.value.retry_after == seconds
    assert pickle.loads(pickle.dumps(refused.value)).retry_after == seconds


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), np.float32("nan")])
def test_what_json_cannot_carry_is_refused_by_the_features_name(
    server: ScriptedServer, client: ModelClient, value: float
) -> None:
    sample = {"huge": 10**400, "income": value}
    with pytest.raises(ValueError, match=r"'income' is .* None"):
        client.predict(sample)
    with pytest.raises(ValueError, match=r"'income' is .* None"):
        client.predict_batch([{"age": 1}, sample])
    assert server.received == []


def test_numbers_of_numpy_are_sent_as_numbers(server: ScriptedServer, client: ModelClient) -> None:
    client.predict({"a": np.float32(0.5), "b": np.int64(3), "c": np.float64(0.1)})
    assert server.received[0].body == {"features": {"a": 0.5, "b": 3, "c": 0.1}}


def test_what_is_no_number_at_all_is_refused(client: ModelClient) -> None:
    with pytest.raises(TypeError, match="must be a number, a string, a boolean or None"):
        client.predict({"a": {1}})  # type: ignore[dict-item]


def test_it_imports_nothing_of_the_server() -> None:
    heavy = ("flask", "torch", "numpy", "marshmallow", "gunicorn", "onnxruntime", "orjson")
    code = f"import app.client, sys; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\n"


# The demonstration, where it can't be given


def test_the_demonstration_says_in_a_sentence_that_the_service_is_unreachable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert main(["--url", url]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"No response from {url}/health: Connection refused.\n")


def test_the_demonstration_says_in_a_sentence_that_the_service_refuses(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script = [Refusal(500)]
    assert main(["--url", server.url]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_demonstration_ends_at_an_unhealthy_service_with_its_reason(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script = [Answer(503, UNHEALTHY)]
    assert main(["--url", server.url]) == 1
    assert "There is no bundle." in capsys.readouterr().err
    assert len(server.received) == 1


def test_the_demonstration_tries_a_model_that_tells_neither_examples_nor_ranges(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = {"minimum": None, "maximum": None, "example": None}
    info = {
        "name": "bare",
        "model_version": "1",
        "num_features": 2,
        "features": [
            {"name": "a", "nullable": False, **unknown},
            {"name": "b", "nullable": True, **unknown},
        ],
        "classes": ["no", "yes"],
        "runtime": "torch",
        "device": "cpu",
    }
    prediction = {"label": "yes", "probabilities": {"class_0": 0.25, "class_1": 0.75}}
    batch = {"predictions": [prediction] * 3, "total_samples": 3}
    server.script = [Answer(body=body) for body in ({"status": "healthy"}, info, prediction, batch)]
    assert main(["--url", server.url]) == 0
    assert server.received[2].body == {"features": {"a": 0, "b": None}}
    samples = [{"a": value, "b": None} for value in (-1, 0, 1)]
    assert server.received[3].body == {"samples": samples}
    assert "yes (no 25.0%, yes 75.0%)" in capsys.readouterr().out


def test_the_demonstration_tells_how_it_is_used_when_the_url_is_none() -> None:
    with pytest.raises(SystemExit) as info:
        main(["--url", "nonsense"])
    assert info.value.code == 2


def test_the_module_works_where_it_is_copied_to(tmp_path: Path) -> None:
    """Beside it stands nothing of Lantern, as in a project that took the one file."""
    shutil.copy(ROOT / "app" / "client.py", tmp_path / "lantern_client.py")
    program = "from lantern_client import ModelClient; print(ModelClient('http://x').base_url)"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "http://x\n"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("-m", "app.client"), "python -m app.client"),
        (("lantern_client.py",), "lantern_client.py"),
        (("-m", "lantern_client"), "python -m lantern_client"),
    ],
)
def test_the_demonstration_is_called_as_it_was_run(
    tmp_path: Path, command: tuple[str, ...], name: str
) -> None:
    shutil.copy(ROOT / "app" / "client.py", tmp_path / "lantern_client.py")
    ran = subprocess.run(
        [sys.executable, *command, "--url", "nowhere"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert f"usage: {name} [-h]" in ran.stderr
    assert f"\n{name}: error: base_url must start with http://" in ran.stderr
