"""Keys, rates, TLS and headers of real Gunicorns."""

from __future__ import annotations

import http.client
import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from app.access.keys import ADMIN, PREDICT, create_key, revoke_key
from app.client import KeyRejected, ModelClient
from tests.access.redis import Redis
from tests.conftest import ROOT
from tests.integration.conftest import Server, free_port, wait_for

Start = Callable[..., Server]


@pytest.fixture(scope="module")
def worker_class() -> str:
    return "keepalive"  # what lets requests in doesn't know the worker


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def ask(server: Server, key: str = "", path: str = "/models") -> int:
    """Ask on a connection of its own, so that any worker may answer."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return requests.get(server.url + path, headers=headers, timeout=120).status_code


def ask_often(server: Server, key: str = "", times: int = 40) -> Counter[int]:
    with ThreadPoolExecutor(8) as pool:
        return Counter(pool.map(lambda _: ask(server, key), range(times)))


def exposed() -> tuple[str, str]:
    """Gunicorn's flag to listen on every address, too."""
    return "-b", f"0.0.0.0:{free_port()}"


def test_a_server_that_others_reach_asks_for_keys_made_and_revoked_while_it_runs(
    start: Start, keys: Path
) -> None:
    server = start("-w", "2", *exposed(), ACCESS__KEYS_FILE=str(keys))
    (warning,) = [line for line in server.lines() if "API keys are required" in line["message"]]
    [command] = re.findall(r"`(\S+ -m app key create NAME)`", warning["message"])
    wait_for(lambda: len(server.lines("model loaded")) == 2)
    assert ask_often(server) == {401: 40}
    assert ask(server, path="/health/ready") == 200
    made = subprocess.run(
        shlex.split(command.replace("NAME", "caller")),
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "LANTERN_ACCESS__KEYS_FILE": str(keys)},
        capture_output=True,
        text=True,
        check=True,
    )
    key = made.stdout.strip()
    assert ask_often(server, key) == {200: 40}
    wait_for(lambda: len({x["pid"] for x in server.lines("request") if x["status"] == 200}) == 2)
    revoke_key(keys, "caller")
    assert ask_often(server, key) == {401: 40}
    _, other = create_key(keys, "other", [PREDICT])
    assert ask_often(server, other) == {200: 40}
    keys.write_text("{")
    assert ask_often(server, other) == {503: 40}
    assert ask(server, path="/health/ready") == 200
    told = [
        line for line in server.lines() if line["message"].startswith("every request is rejected")
    ]
    assert Counter(line["pid"] for line in told).most_common(1)[0][1] == 1
    assert key not in server.log.read_text()


def test_gunicorns_own_bind_decides_and_not_the_setting(start: Start, keys: Path) -> None:
    server = start("-w", "1", SERVER__HOST="0.0.0.0", ACCESS__KEYS_FILE=str(keys))
    assert ask(server) == 200
    assert not [line for line in server.lines() if "API keys are required" in line["message"]]


def test_a_server_open_to_everybody_is_warned_of(start: Start, keys: Path) -> None:
    server = start("-w", "1", *exposed(), ACCESS__AUTH="none", ACCESS__KEYS_FILE=str(keys))
    assert ask(server) == 200
    assert [line for line in server.lines() if "anyone who can reach it" in line["message"]]


def test_a_socket_that_was_inherited_is_looked_at(keys: Path) -> None:
    """As from systemd: there is no address in any setting."""
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = listener.getsockname()[1]
        gunicorn = str(Path(sys.executable).with_name("gunicorn"))
        process = subprocess.Popen(
            [gunicorn, "wsgi:app", "-w", "1", "-b", f"fd://{listener.fileno()}"],
            cwd=ROOT,
            env={
                "PATH": "/usr/bin:/bin",
                "LANTERN_ACCESS__KEYS_FILE": str(keys),
            },
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            response = requests.get(f"http://127.0.0.1:{port}/models", timeout=120)
            assert response.status_code == 401
        finally:
            process.terminate()
            process.wait(120)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root")
def test_keys_that_the_workers_user_can_not_read_let_nobody_in(
    start: Start, sample: dict[str, float]
) -> None:
    """From the start, and not only once the file changes: the master could read it."""

    def predict(key: str) -> int:
        headers = {"X-API-Key": key}
        body = {"features": sample}
        return requests.post(f"{server.url}/predict", json=body, headers=headers).status_code

    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        keys = Path(directory, "keys.json")
        _, key = create_key(keys, "caller", [PREDICT])
        server = start(
            *("-w", "1", "--user", "nobody", "--group", "nogroup"),
            ACCESS__AUTH="keys",
            ACCESS__KEYS_FILE=str(keys),
        )
        assert predict(key) == 503
        (line,) = [
            x for x in server.lines() if x["message"].startswith("every request is rejected")
        ]
        assert "Permission denied" in line["message"]
        os.chown(keys, pwd.getpwnam("nobody").pw_uid, -1)
        assert predict(key) == 200
        _, other = create_key(keys, "other", [PREDICT])
        assert predict(other) == 200, "the file stays its reader's"


@pytest.mark.parametrize("name", ["keepalive", "gthread", "sync"])
def test_no_header_tells_the_version_of_the_server(start: Start, name: str) -> None:
    server = start("-w", "1", SERVER__WORKER_CLASS=name)
    for path in ("/health", "/nope", "/static/page.css"):
        headers = requests.get(server.url + path, timeout=120).headers
        assert headers["Server"] == "gunicorn"
        assert not re.search(r"(?i)werkzeug|flask|python|\d+\.\d+\.\d+", str(headers))


@pytest.mark.parametrize("name", ["keepalive", "gthread", "sync"])
def test_a_key_in_a_field_that_can_not_be_read_is_not_logged(
    start: Start, keys: Path, name: str
) -> None:
    """Gunicorn's own classes quote such a field in the log."""
    _, key = create_key(keys, "one", [PREDICT])
    server = start("-w", "1", "--log-level", "debug", SERVER__WORKER_CLASS=name)
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: a\r\nX-API-Key {key}\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
    server.stop()
    assert key[20:40] not in server.log.read_text()


def test_an_id_that_is_no_word_gets_into_neither_log_nor_answer(start: Start) -> None:
    """From the socket: what stands behind the id would be a line of its own in the log."""
    server = start("-w", "1", LOGGING__FORMAT="console")
    forged = [
        b'x"} {"level":"forged"}',
        b"x\x1b[2Jforged",
        b"x\tforged",
        b"\xff forged",
        b"x" * 200,
    ]
    for value in forged:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        connection.connect()
        connection.sock.sendall(
            b"GET /health/live?forged HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"X-Request-ID: " + value + b"\r\n\r\n"
        )
        answer = b""
        while chunk := connection.sock.recv(65536):
            answer += chunk
        connection.close()
        assert value not in answer
        assert b"forged" not in answer.partition(b"\r\n\r\n")[0]
    assert "forged" not in server.log.read_text()
    assert "\x1b" not in server.log.read_text()


# The rate


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    yield server
    server.kill()


def test_workers_share_one_count_in_redis_and_go_on_without_it(
    start: Start, redis: Redis, keys: Path, tmp_path: Path
) -> None:
    server = start(
        *("-w", "2"),
        LIMITS__RATE="20/hour",
        LIMITS__RATE_STORAGE=redis.url,
        ACCESS__AUTH="keys",
        ACCESS__KEYS_FILE=str(keys),
    )
    wait_for(lambda: len(server.lines("model loaded")) == 2)
    names = [create_key(keys, name, [PREDICT])[1] for name in ("one", "two", "three")]
    assert ask_often(server, names[0], 50) == {200: 20, 429: 30}
    redis.kill()
    begun = time.monotonic()
    answered = ask_often(server, names[1], 100)
    # Each worker counts for itself now: neither all are let in nor none.
    assert 20 <= answered[200] <= 40
    assert answered[200] + answered[429] == 100
    assert time.monotonic() - begun < 100
    redis.start()

    def is_asked_again() -> bool:
        ask_often(server, names[2], 8)
        told = [line for line in server.lines() if "Redis is available again" in line["message"]]
        return len({line["pid"] for line in told}) == 2

    wait_for(is_asked_again)
    _, key = create_key(keys, "four", [PREDICT])
    assert ask_often(server, key, 50) == {200: 20, 429: 30}
    away = [line for line in server.lines() if "Redis is unavailable" in line["message"]]
    assert len(away) == 2, "told once by each worker"


# TLS


@pytest.mark.skipif(not shutil.which("openssl"), reason="there is no openssl to make a certificate")
def test_a_prediction_over_tls_with_a_certificate_that_is_verified(
    start: Start, tmp_path: Path, sample: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys.json"
    certificate, private = str(tmp_path / "certificate.pem"), str(tmp_path / "private.pem")
    subprocess.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost,IP:127.0.0.1 "
        f"-keyout {private} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    with pytest.warns(Warning, match="Unverified HTTPS"):  # by the wait for its start alone
        server = start(
            *("-w", "1", *exposed(), "--certfile", certificate, "--keyfile", private),
            SERVER__WORKER_CLASS="gthread",
            ACCESS__KEYS_FILE=str(keys),
        )
    _, key = create_key(keys, "caller", [ADMIN])
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    with ModelClient(server.url, api_key=key) as client:
        assert sum(client.predict(sample)["probabilities"].values()) == pytest.approx(1)
    with ModelClient(server.url) as client, pytest.raises(KeyRejected):
        client.predict(sample)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{server.url}/health", timeout=120)
