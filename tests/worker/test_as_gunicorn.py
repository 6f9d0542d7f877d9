"""The worker behind Gunicorn's settings: logs, hooks, proxies and addresses as its users know them.

Most tests run on `gthread` too, whose behaviour is the reference.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.worker.conftest import WORKERS, Gunicorn, Serve, wait_for
from tests.worker.wire import Connection, all_answers, ask, exchange, request


@pytest.fixture(scope="module", params=WORKERS)
def worker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def environ(gunicorn: Gunicorn, *fields: str) -> dict[str, Any]:
    answer = ask(gunicorn.address, "/", *fields)
    seen: dict[str, Any] = json.loads(answer["X-Environ"])
    return seen


HOOKS = """
def pre_request(worker, req):
    worker.log.info("PRE %s %s %s", req.method, req.path, req.uri)

def post_request(worker, req, environ, resp):
    worker.log.info("POST %s %s %s", req.method, environ.get("PATH_INFO"), resp.status)

def post_worker_init(worker):
    worker.log.info("INIT")

def worker_exit(server, worker):
    server.log.info("EXIT")

def worker_int(worker):
    worker.log.info("INT")

def worker_abort(worker):
    worker.log.info("ABORT")
"""


@pytest.fixture(scope="module")
def logging(worker: str, serve: Serve) -> Gunicorn:
    log_format = (
        "%(h)s %(r)s %(m)s %(U)s ?%(q)s %(H)s %(s)s %(B)s %(f)s %(a)s %({x-in}i)s %({x-out}o)s"
    )
    return serve(
        "zoo",
        *("--access-logfile", "-", "--access-logformat", f"ACCESS {log_format} END"),
        worker=worker,
        config=HOOKS,
    )


def test_hooks_are_called_around_each_request(logging: Gunicorn) -> None:
    ask(logging.address, "/pid?a=b")
    logging.wait_for_log("PRE GET /pid /pid?a=b")
    logging.wait_for_log("POST GET /pid 200 OK")
    assert logging.text.count("INIT") == 1
    with Connection(logging.address) as connection:
        connection.send(request("/pid?kept") + request("/pid?kept")).end().answers()
    wait_for(lambda: logging.text.count("PRE GET /pid /pid?kept") == 2)


def test_hooks_are_called_for_a_request_that_fails(logging: Gunicorn) -> None:
    exchange(logging.address, request("/raise?hooked"))
    logging.wait_for_log("PRE GET /raise /raise?hooked")
    logging.wait_for_log("POST GET /raise")


def test_the_access_log_holds_a_line_for_each_request(logging: Gunicorn) -> None:
    ask(logging.address, "/list?x", "X-In: a", "Referer: r", "User-Agent: u")
    logging.wait_for_log(
        "ACCESS 127.0.0.1 GET /list?x HTTP/1.1 GET /list ?x HTTP/1.1 200 14 r u a - END"
    )
    ask(logging.address, "/pid?y", method="HEAD", version="1.0")
    logging.wait_for_log("ACCESS 127.0.0.1 HEAD /pid?y HTTP/1.0 HEAD /pid ?y HTTP/1.0 200 ")
    ask(logging.address, "/sized-stream?z", method="POST", body=b"a")
    logging.wait_for_log("POST /sized-stream ?z HTTP/1.1 200 13 - - - - END")
    exchange(logging.address, request("/raise?w"))
    logging.wait_for_log("ACCESS 127.0.0.1 GET /raise?w HTTP/1.1 GET ")
    (line,) = [line for line in logging.text.split("\n") if "ACCESS" in line and "/raise?w" in line]
    assert " HTTP/1.1 500 " in line


def test_a_line_of_the_access_log_cannot_be_forged(logging: Gunicorn) -> None:
    ask(logging.address, "/pid?forged", 'User-Agent: a" ACCESS \x85')
    logging.wait_for_log("POST GET /pid 200 OK")
    lines = logging.text.split("\n")
    assert all("END" in line for line in lines if line.startswith("ACCESS"))


@pytest.mark.parametrize(
    ("allowed", "fields", "scheme"),
    [
        ("127.0.0.1", ["X-Forwarded-Proto: https"], "https"),
        ("127.0.0.1", ["X-Forwarded-Ssl: on"], "https"),
        ("127.0.0.1", ["X-Forwarded-Protocol: ssl"], "https"),
        ("127.0.0.1", ["X-Forwarded-Proto: http"], "http"),
        ("127.0.0.1", [], "http"),
        ("10.0.0.1", ["X-Forwarded-Proto: https"], "http"),
        ("10.0.0.0/8,127.0.0.0/8", ["X-Forwarded-Proto: https"], "https"),
        ("*", ["X-Forwarded-Proto: https"], "https"),
    ],
)
def test_a_proxy_is_believed_where_it_is_trusted(
    allowed: str,
    fields: list[str],
    scheme: str,
    proxied: dict[str, Gunicorn],
) -> None:
    seen = environ(proxied[allowed], *fields)
    assert seen["wsgi.url_scheme"] == scheme
    assert seen["REMOTE_ADDR"] == "127.0.0.1"


@pytest.fixture(scope="module")
def proxied(worker: str, serve: Serve) -> dict[str, Gunicorn]:
    return {
        allowed: serve("echo", "--forwarded-allow-ips", allowed, worker=worker)
        for allowed in ("127.0.0.1", "10.0.0.1", "10.0.0.0/8,127.0.0.0/8", "*")
    }


def test_a_proxy_that_contradicts_itself_is_refused(proxied: dict[str, Gunicorn]) -> None:
    contradiction = ["X-Forwarded-Proto: https", "X-Forwarded-Ssl: off"]
    assert ask(proxied["127.0.0.1"].address, "/", *contradiction).status == 400
    assert ask(proxied["10.0.0.1"].address, "/", *contradiction).status == 200


def test_schemes_are_believed_from_the_fields_that_are_configured(
    worker: str, serve: Serve
) -> None:
    gunicorn = serve("echo", worker=worker, config='secure_scheme_headers = {"X-SECURE": "yes"}')
    assert environ(gunicorn, "X-Secure: yes")["wsgi.url_scheme"] == "https"
    assert environ(gunicorn, "X-Forwarded-Proto: https")["wsgi.url_scheme"] == "http"


@pytest.mark.parametrize("flag", ["drop", "refuse", "dangerous"])
def test_underscores_in_names_are_treated_as_configured(
    flag: str, worker: str, serve: Serve
) -> None:
    gunicorn = serve("echo", "--header-map", flag, worker=worker)
    answer = ask(gunicorn.address, "/", "X_Y: 1")
    assert answer.status == (400 if flag == "refuse" else 200)
    if answer.status == 200:
        assert ("HTTP_X_Y" in json.loads(answer["X-Environ"])) == (flag == "dangerous")


def test_a_trusted_forwarder_may_set_the_prefix(worker: str, serve: Serve) -> None:
    gunicorn = serve("echo", "--forwarder-headers", "SCRIPT_NAME,X_USER", worker=worker)
    answer = ask(gunicorn.address, "/prefix/a", "Script_Name: /prefix", "X_User: me", "X_Other: a")
    seen = json.loads(answer["X-Environ"])
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/prefix", "/a")
    assert seen["HTTP_X_USER"] == "me"
    assert "HTTP_X_OTHER" not in seen
    wrong = ask(gunicorn.address, "/a", "Script_Name: /prefix")
    assert wrong.status == (404 if worker == "keepalive" else 500)
    assert gunicorn.worker()


def test_it_serves_a_unix_socket(worker: str, serve: Serve, tmp_path: Path) -> None:
    gunicorn = serve("echo", worker=worker, bind=f"unix:{tmp_path}/socket")
    seen = environ(gunicorn, "X-Forwarded-Proto: https")
    assert seen["REMOTE_ADDR"] == ""
    assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == ("lantern.example", "443")
    assert seen["wsgi.url_scheme"] == "https"  # whoever may open the socket is trusted
    (answer,) = all_answers(exchange(gunicorn.address, b"GET / HTTP/1.0\r\n\r\n"))
    seen = json.loads(answer["X-Environ"])
    assert seen["SERVER_PORT"] == ""


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_it_serves_ipv6(worker: str, serve: Serve) -> None:
    gunicorn = serve("echo", worker=worker, bind="[::1]:0")
    seen = environ(gunicorn)
    assert seen["REMOTE_ADDR"] == "::1"
    assert seen["SERVER_NAME"] == "::1"
    assert seen["SERVER_PORT"] == str(gunicorn.address[1])


def test_it_serves_several_addresses(worker: str, serve: Serve, tmp_path: Path) -> None:
    gunicorn = serve("echo", "-b", f"unix:{tmp_path}/socket", worker=worker)
    assert ask(gunicorn.address).status == 200
    assert ask(f"{tmp_path}/socket").status == 200


def certificate(directory: Path) -> list[str]:
    """Make a certificate, and give the flags for it."""
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl to make a certificate")
    paths = [str(directory / name) for name in ("key.pem", "cert.pem")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run(
        [*command, "-keyout", paths[0], "-out", paths[1]], check=True, capture_output=True
    )
    return ["--keyfile", paths[0], "--certfile", paths[1]]


def test_tls_is_refused_with_a_way_out(tmp_path: Path) -> None:
    flags = certificate(tmp_path)
    gunicorn = Gunicorn("echo", *flags, worker="keepalive", directory=tmp_path)
    try:
        assert gunicorn.process.wait(120) != 0
    finally:
        gunicorn.stop()
    assert "gthread" in gunicorn.text, gunicorn.text
    assert re.search("TLS|certfile", gunicorn.text), gunicorn.text
    assert "Traceback" not in gunicorn.text, gunicorn.text


def test_log_files_are_opened_anew_when_they_were_moved(
    worker: str, serve: Serve, tmp_path: Path
) -> None:
    log = tmp_path / "access"
    gunicorn = serve("zoo", "--access-logfile", str(log), worker=worker)
    pid = gunicorn.worker()
    ask(gunicorn.address, "/pid?before")
    log.rename(tmp_path / "moved")
    gunicorn.signal(signal.SIGUSR1)
    wait_for(log.exists)

    def reopened() -> bool:
        ask(gunicorn.address, "/pid?after")
        return "/pid?after" in log.read_text()

    wait_for(reopened)
    assert "/pid?before" in (tmp_path / "moved").read_text()
    os.kill(pid, signal.SIGUSR1)
    assert ask(gunicorn.address).status == 200
    assert gunicorn.worker() == pid


def test_the_class_is_found_by_its_name_and_starts_without_the_rest_of_the_application() -> None:
    """It is a worker for any WSGI application: it imports neither Flask nor a model."""
    program = (
        "import sys, gunicorn.util as u; u.load_class('app.worker.KeepAliveWorker');"
        "print([m for m in sys.modules if m in ('flask', 'torch', 'onnxruntime', 'marshmallow')])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "[]\n"


def test_the_proxy_protocol_is_understood_or_refused(worker: str, tmp_path: Path) -> None:
    """An address that is silently wrong would be worse than none."""
    gunicorn = Gunicorn("echo", "--proxy-protocol", worker=worker, directory=tmp_path)
    try:
        wait_for(lambda: "Booting worker" in gunicorn.text or gunicorn.process.poll() is not None)
        if "Listening at" in gunicorn.text and gunicorn.process.poll() is None:
            data = b"PROXY TCP4 1.2.3.4 5.6.7.8 1234 80\r\n" + request("/a", "Connection: close")
            (answer,) = all_answers(exchange(gunicorn.address, data))
            assert json.loads(answer["X-Environ"])["REMOTE_ADDR"] == "1.2.3.4"
        else:
            assert "gthread" in gunicorn.text, gunicorn.text
            assert "Traceback" not in gunicorn.text, gunicorn.text
    finally:
        gunicorn.stop()


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["--protocol", "uwsgi"], "protocol"),
        (["--http2-cleartext", "prior-knowledge"], "http2_cleartext"),
        (["--permit-obsolete-folding"], "permit_obsolete_folding"),
        (["--strip-header-spaces"], "strip_header_spaces"),
    ],
)
def test_what_the_worker_does_not_have_is_refused_by_name(
    flags: list[str], name: str, tmp_path: Path
) -> None:
    gunicorn = Gunicorn("echo", *flags, worker="keepalive", directory=tmp_path)
    try:
        assert gunicorn.process.wait(120) != 0
    finally:
        gunicorn.stop()
    assert re.search(rf"does not support {name}: use .* gthread", gunicorn.text), gunicorn.text
    assert "Traceback" not in gunicorn.text, gunicorn.text


def test_statsd_is_told_of_each_request(worker: str, serve: Serve) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(30)
        gunicorn = serve(
            "echo", "--statsd-host", f"127.0.0.1:{statsd.getsockname()[1]}", worker=worker
        )
        assert ask(gunicorn.address).status == 200
        expected = {"gunicorn.requests", "gunicorn.request.duration", "gunicorn.request.status.200"}
        while expected:
            expected.discard(statsd.recv(1000).decode().partition(":")[0])


LOGGER = """
from gunicorn.glogging import Logger

class Custom(Logger):
    def access(self, resp, req, environ, request_time):
        self.info("CUSTOM %s %s", environ["PATH_INFO"], resp.status)

logger_class = Custom
"""


def test_a_logger_of_another_class_gets_each_request(worker: str, serve: Serve) -> None:
    gunicorn = serve("echo", worker=worker, config=LOGGER)
    ask(gunicorn.address, "/custom")
    gunicorn.wait_for_log("CUSTOM /custom 200 OK")


@pytest.mark.parametrize("field", ["Transfer_Encoding: chunked", "X_Forwarded_Proto: https"])
def test_no_field_with_an_underscore_says_what_the_worker_acts_on(
    field: str, dangerous: Gunicorn
) -> None:
    """What stands before it would not have seen what it says; gthread lets it pass."""
    assert ask(dangerous.address, "/", field, method="POST").status == 400


@pytest.fixture(scope="module")
def dangerous(serve: Serve) -> Gunicorn:
    gunicorn = serve("echo", "--header-map", "dangerous")
    assert environ(gunicorn, "X_Other: a")["HTTP_X_OTHER"] == "a"
    return gunicorn


def test_any_forwarder_may_be_trusted_with_any_field(worker: str, serve: Serve) -> None:
    gunicorn = serve("echo", "--forwarder-headers", "*", worker=worker)
    seen = environ(gunicorn, "X_User: me")
    assert seen["HTTP_X_USER"] == "me"
    answer = ask(gunicorn.address, "/prefix/a", "Script_Name: /prefix")
    seen = json.loads(answer["X-Environ"])
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/prefix", "/a")


def test_the_prefix_comes_from_the_environment_where_no_proxy_tells_it(
    worker: str, serve: Serve
) -> None:
    gunicorn = serve(
        "echo", "--forwarder-headers", "SCRIPT_NAME", worker=worker, environ={"SCRIPT_NAME": "/a"}
    )
    seen = json.loads(ask(gunicorn.address, "/a/b%20c")["X-Environ"])
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/a", "/b c")
    seen = json.loads(ask(gunicorn.address, "/b/c", "Script_Name: /b")["X-Environ"])
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/b", "/c")
    # Gunicorn's own workers answer 500, and cut the prefix in the midst of a segment.
    for path, gunicorns in (("/c", 500), ("/ab", 200)):
        expected = 404 if worker == "keepalive" else gunicorns
        assert ask(gunicorn.address, path).status == expected


BAD_HOOK = """
def post_request(worker, req, environ, resp):
    if req.path == "/bad":
        raise RuntimeError("raised in the hook")
"""


def test_a_hook_that_raises_costs_one_connection_at_most(worker: str, serve: Serve) -> None:
    gunicorn = serve("echo", worker=worker, config=BAD_HOOK)
    before = gunicorn.worker()
    with Connection(gunicorn.address) as idle, Connection(gunicorn.address) as half:
        assert idle.send(request()).answer() is not None
        half.send(request()[:-2])
        for _ in range(3):
            answer = ask(gunicorn.address, "/bad")
            assert answer.status == 200
        for connection, rest in ((idle, request()), (half, b"\r\n")):
            answer = connection.send(rest).answer()
            assert answer is not None
            assert answer.status == 200
    gunicorn.wait_for_log("raised in the hook")
    assert gunicorn.worker() == before
