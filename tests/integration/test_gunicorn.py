"""Real Gunicorns: loading, faults of the model, of workers and of clients, and shutting down."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from app.settings import load_settings
from tests.conftest import BUNDLE, ROOT
from tests.descriptors import open_files
from tests.integration.conftest import Server, alone, free_port, wait_for
from tests.telemetry.test_metrics import samples

Start = Callable[..., Server]


def predict(server: Server, sample: dict[str, float], **kwargs: Any) -> requests.Response:
    """Ask for one prediction on a connection of its own, so that any worker may answer."""
    return requests.post(f"{server.url}/predict", json={"features": sample}, timeout=120, **kwargs)


def rows_predicted(server: Server) -> float:
    """Return the one figure of rows predicted that the metrics hold."""
    got = samples(requests.get(f"{server.url}/metrics", timeout=120).text)
    (rows,) = [v for k, v in got.items() if k[0] == "lantern_predicted_rows_total"]
    return rows


def receive_all(connection: socket.socket) -> bytes:
    """Return what comes until the server closes, or resets, the connection."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass  # it closed with bytes of ours unread
    return received


def exchange(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send bytes as they are, as long as the server takes them, and give what it answers."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        except OSError:
            pass  # it has answered, and reads no more
        return receive_all(connection)


def test_each_of_three_workers_loads_the_model_exactly_once(
    start: Start, sample: dict[str, float]
) -> None:
    server = start("-w", "3")
    wait_for(lambda: len(server.lines("model loaded")) == 3)
    for worker in server.workers():
        with alone(server, worker):
            for _ in range(20):
                assert predict(server, sample).status_code == 200
    wait_for(lambda: len(server.lines("prediction")) >= 60)
    answered = Counter(line["pid"] for line in server.lines("prediction"))
    assert answered == dict.fromkeys(server.workers(), 20)
    loads = server.lines("model loaded")
    assert Counter(line["pid"] for line in loads) == dict.fromkeys(answered, 1)
    for line in loads:
        assert line["runtime"] == "onnx"
        assert line["model_version"]
        assert line["milliseconds"] > 0


def test_metrics_are_right_sums_over_three_workers_and_outlive_one(
    start: Start, sample: dict[str, float]
) -> None:
    server = start("-w", "3")
    wait_for(lambda: len(server.lines("model loaded")) == 3)
    for worker in server.workers():
        with alone(server, worker):
            for _ in range(20):
                predict(server, sample)
    sent = 60
    wait_for(lambda: len({line["pid"] for line in server.lines("prediction")}) == 3)
    requests.post(f"{server.url}/predict/batch", json={"samples": [sample] * 7}, timeout=120)

    def scrape() -> dict[Any, float]:
        return samples(requests.get(f"{server.url}/metrics", timeout=120).text)

    def count(got: dict[Any, float], name: str) -> float:
        return sum(value for key, value in got.items() if key[0] == name)

    before = scrape()
    assert count(before, "lantern_predicted_rows_total") == sent + 7
    assert count(before, "lantern_predictions_total") == sent + 7
    route = (("method", "POST"), ("route", "/predict"), ("status", "200"))
    assert before[("lantern_http_requests_total", route)] == sent
    observed = (("route", "/predict"),)
    assert before[("lantern_http_request_duration_seconds_count", observed)] == sent
    assert len([key for key in before if key[0] == "lantern_model_load_seconds"]) == 3
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(server.lines("model loaded")) == 4 and victim not in server.workers())
    after = wait_for(
        lambda: (
            (got := scrape())
            and str(victim) not in str([k for k in got if k[0] == "lantern_model_load_seconds"])
            and got
        )
    )
    assert count(after, "lantern_predicted_rows_total") == sent + 7
    assert after[("lantern_http_requests_total", route)] == sent
    assert after[("lantern_http_request_duration_seconds_count", observed)] == sent
    assert len([key for key in after if key[0] == "lantern_model_load_seconds"]) == 3


def test_a_worker_that_is_told_to_stop_before_it_has_handlers_ends(
    start: Start, tmp_path: Path
) -> None:
    """A master that is stopped just after it forked a worker tells it so once, and then waits."""
    config = tmp_path / "conf.py"
    config.write_text(
        f"import os, signal\n"
        f"from pathlib import Path\n"
        f"exec(Path({str(ROOT / 'gunicorn.conf.py')!r}).read_text())\n"
        f"first, ours = Path({str(tmp_path / 'first')!r}), post_fork\n"
        f"def post_fork(server, worker):\n"
        f"    if not first.exists():\n"
        f"        first.write_text(str(worker.pid))\n"
        f"        os.kill(worker.pid, signal.SIGTERM)\n"
        f"    ours(server, worker)\n"
    )
    server = start("-w", "1", "-c", str(config))
    first = int((tmp_path / "first").read_text())
    assert first not in server.workers()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root")
def test_workers_that_give_up_root_have_a_slab_and_show_that_they_live(start: Start) -> None:
    server = start("-w", "1", "-t", "4", "--user", "nobody", "--group", "nogroup")
    (worker,) = server.workers()
    assert Path(f"/proc/{worker}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
    files = {target: link for link, target in open_files(worker).items()}
    beat = files["/memfd:lantern-heartbeat (deleted)"]
    before = beat.stat().st_mtime
    wait_for(lambda: beat.stat().st_mtime != before)
    inode = files["/memfd:lantern-metrics (deleted)"].stat().st_ino
    locks = Path("/proc/locks").read_text().splitlines()
    assert [lock for lock in locks if f" {worker} " in lock and f":{inode} " in lock]


def test_a_model_that_can_not_be_loaded_leaves_workers_up_and_unhealthy(
    start: Start, tmp_path: Path, sample: dict[str, float]
) -> None:
    broken = Path(shutil.copytree(BUNDLE, tmp_path / "broken"))
    (broken / "model.onnx").write_bytes(b"")
    server = start("-w", "2", MODEL__PATH=str(broken))
    workers = sorted(wait_for(lambda: len(server.workers()) == 2 and server.workers()))
    for _ in range(20):
        assert predict(server, sample).status_code == 503
    for path in ("/health", "/health/ready", "/model/info"):
        response = requests.get(server.url + path, timeout=120)
        assert response.status_code == 503
        assert "model.onnx has 0 bytes, but the manifest says" in response.text
    assert requests.get(f"{server.url}/health/live", timeout=120).status_code == 200
    assert requests.get(f"{server.url}/docs", timeout=120).status_code == 200
    assert sorted(server.workers()) == workers, "a worker was replaced"
    assert len(server.lines("model not loaded")) == 2


def test_a_killed_worker_costs_at_most_the_requests_it_held(
    start: Start, sample: dict[str, float]
) -> None:
    server = start("-w", "2", "--threads", "2")
    stop = threading.Event()
    failures: list[Exception] = []
    answered: Counter[int] = Counter()

    def ask() -> None:
        while not stop.is_set():
            try:
                response = predict(server, sample)
                answered[response.status_code] += 1
            except requests.RequestException as error:  # reset, or cut in the middle
                failures.append(error)

    askers = [threading.Thread(target=ask) for _ in range(6)]
    for asker in askers:
        asker.start()
    wait_for(lambda: answered[200] > 100)
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(server.lines("model loaded")) == 3)
    newcomer = server.lines("model loaded")[-1]["pid"]
    wait_for(lambda: newcomer in {line["pid"] for line in server.lines("prediction")})
    stop.set()
    for asker in askers:
        asker.join()
    assert set(answered) == {200}
    # It held at most the request of each asker.
    assert len(failures) <= len(askers)


def test_a_worker_told_to_stop_answers_what_it_began_and_leaves(
    start: Start, sample: dict[str, float]
) -> None:
    server = start("-w", "1")
    body = json.dumps({"features": sample}).encode()
    head = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection:
        connection.sendall(head + body[:10])
        time.sleep(0.5)  # until the worker is reading the body
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        connection.sendall(body[10:])
        answer = receive_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert server.process.wait(120) == 0


def test_readiness_ends_when_a_worker_is_told_to_stop(start: Start, worker_class: str) -> None:
    """On a connection that was open before, which the worker still serves while it drains."""
    if worker_class == "sync":
        pytest.skip("a sync worker serves one connection at a time, and it is held")
    server = start("-w", "1")
    head = b"GET /health/ready HTTP/1.1\r\nHost: x\r\n"
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=120) as held,
        socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection,
    ):
        held.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n")
        connection.sendall(head)  # not complete yet
        time.sleep(0.5)
        os.kill(server.workers()[0], signal.SIGTERM)
        time.sleep(0.5)
        connection.sendall(b"\r\n")
        answer = receive_all(connection)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"shutting down" in answer


def test_408_for_a_body_that_does_not_arrive_in_time(start: Start) -> None:
    server = start("-w", "1", SERVER__BODY_TIMEOUT_SECONDS="0.5")
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    stalled = exchange(server.port, head + b"Content-Length: 100\r\n\r\n" + b"{")
    assert stalled.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive within 0.5 seconds (server.body_timeout_seconds)" in stalled
    chunked = exchange(server.port, head + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{")
    assert chunked.startswith(b"HTTP/1.1 408 ")
    # Bytes that keep coming, but too slowly, are no excuse.
    parts = [head + b"Content-Length: 100\r\n\r\n", *[b" "] * 6]
    assert exchange(server.port, *parts, pause=0.2).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_was_refused_unread_is_logged_and_counted(server: Server) -> None:
    """Whoever reads it, the worker or the application."""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    answer = exchange(server.port, head + b"X-Request-ID: mine\r\nContent-Length: 9000001\r\n\r\n")
    assert b"X-Request-ID: mine\r\n" in answer
    assert b"urn:lantern:problem:" in answer
    (line,) = wait_for(lambda: [x for x in server.lines("request") if x["request_id"] == "mine"])
    assert (line["status"], line["path"]) == (413, "/predict")
    metrics = requests.get(f"{server.url}/metrics", timeout=120).text
    assert re.search(r'requests_total\{[^}]*route="/predict",status="413"\} ', metrics), metrics


def test_what_comes_after_a_408_is_not_taken_for_a_request(start: Start) -> None:
    server = start("-w", "1", SERVER__BODY_TIMEOUT_SECONDS="0.5")
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    smuggled = b"GET /health/live?smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    parts = [head + b"Content-Length: 200000\r\n\r\n", *[smuggled] * 200]
    answer = exchange(server.port, *parts, pause=0.005)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert not [line for line in server.lines("request") if line["path"] == "/health/live"][1:]


@pytest.mark.skipif(not shutil.which("openssl"), reason="there is no openssl to make a certificate")
@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_under_tls_a_late_body_ends_its_connection_without_a_clear_word(
    start: Start, tmp_path: Path
) -> None:
    """OpenSSL has seen the end of the stream then, and sends an alert instead of an answer."""
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1 "
        f"-keyout {key} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    server = start(
        *("-w", "1", "--keyfile", key, "--certfile", certificate),
        SERVER__BODY_TIMEOUT_SECONDS="0.5",
        SERVER__WORKER_CLASS="gthread",
    )
    context = ssl._create_unverified_context()
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection,
        context.wrap_socket(connection) as secured,
    ):
        secured.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        with pytest.raises(ssl.SSLError, match="ALERT"):
            receive_all(secured)
    assert requests.get(f"{server.url}/health", timeout=120, verify=False).status_code == 200


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n", b"400"),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", b"422"),
        (b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n" + b" " * 9_000_000, b"413"),
        (b"Content-Length: 9000000\r\n\r\n", b"413"),
    ],
)
def test_a_malformed_or_endless_body_gets_a_problem_and_never_a_500(
    server: Server, rest: bytes, status: bytes
) -> None:
    head = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\n"
    )
    answer = exchange(server.port, head + rest)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"application/problem+json" in answer


def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(
    server: Server, sample: dict[str, float]
) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
    assert predict(server, sample).status_code == 200
    assert not [line for line in server.lines() if line["level"] == "ERROR"]


def test_every_line_of_the_log_is_json_gunicorns_own_included(server: Server) -> None:
    lines = server.log.read_text().splitlines()
    loggers = {json.loads(line)["logger"] for line in lines}
    assert {"gunicorn.error", "lantern.model", "lantern.request"} <= loggers


def test_the_log_for_people_names_worker_version_and_runtime(start: Start) -> None:
    server = start("-w", "1", LOGGING__FORMAT="console")
    (loaded,) = [line for line in server.log.read_text().splitlines() if "model loaded" in line]
    assert f"[{server.workers()[0]}]" in loaded
    assert "runtime=onnx" in loaded
    assert "milliseconds=" in loaded


def test_the_worker_class_is_that_of_the_settings(server: Server, worker_class: str) -> None:
    (using,) = [line["message"] for line in server.lines() if "Using worker" in line["message"]]
    named = {"keepalive": "KeepAliveWorker"}.get(worker_class, worker_class)
    assert using == f"Using worker: {named}"


def test_the_keep_alive_worker_is_the_default() -> None:
    assert load_settings({}).worker_class == "keepalive"


@pytest.mark.parametrize(("threads", "warned"), [("1", True), ("2", False)])
def test_batching_that_can_not_happen_is_warned_of_once(
    start: Start, worker_class: str, threads: str, warned: bool
) -> None:
    """Whatever the settings say: Gunicorn's flags decide how many threads there are. The keep-alive
    worker has a pool of them.
    """
    server = start("-w", "2", "--threads", threads, MODEL__BATCH_ROWS="8")
    wait_for(lambda: len(server.lines("model loaded")) == 2)
    said = [line for line in server.lines() if "model.batch_rows has no effect" in line["message"]]
    assert len(said) == (warned and worker_class != "keepalive")
    assert all(line["level"] == "WARNING" for line in said)


def test_threads_that_a_worker_does_not_have_are_warned_of_once(
    start: Start, worker_class: str
) -> None:
    server = start("-w", "1", SERVER__THREADS="3")
    said = [
        line for line in server.lines() if "server.threads = 3 has no effect" in line["message"]
    ]
    assert len(said) == (worker_class != "gthread")
    if said:
        assert said[0]["level"] == "WARNING"
        assert "worker_class to 'gthread'" in said[0]["message"]


def test_gunicorns_own_flags_win(start: Start) -> None:
    server = start("-w", "1", "--access-logfile", "-", SERVER__WORKERS="4", SERVER__PORT="1")
    requests.get(f"{server.url}/health", timeout=120)
    assert len(server.workers()) == 1
    wait_for(lambda: '"GET /health HTTP/1.1" 200' in server.log.read_text())


def test_a_new_master_takes_over_with_workers_of_its_own_and_counts_on(
    start: Start, sample: dict[str, float]
) -> None:
    """SIGUSR2 starts a new master beside the old one; SIGTERM then ends the old one."""
    server = start("-w", "1")
    assert predict(server, sample).status_code == 200
    server.process.send_signal(signal.SIGUSR2)
    wait_for(lambda: len(server.lines("model loaded")) == 2)
    new_worker = server.lines("model loaded")[-1]["pid"]
    new_master = int(Path(f"/proc/{new_worker}/stat").read_text().rsplit(")", 1)[1].split()[1])
    try:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(120)
        assert predict(server, sample).status_code == 200
        assert rows_predicted(server) == 2
    finally:
        os.kill(new_master, signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{new_worker}").exists())


def test_a_reload_replaces_the_workers_and_keeps_what_they_counted(
    start: Start, sample: dict[str, float]
) -> None:
    server = start("-w", "1")
    predict(server, sample)
    before = server.workers()
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: (now := server.workers()) and not set(now) & set(before))
    predict(server, sample)
    assert rows_predicted(server) == 2


def test_a_reload_changes_no_setting_and_outlives_a_file_that_can_not_be_used(
    start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[server]\nkeepalive_seconds = 70\n")
    server = start("-w", "1", CONFIG=str(file))
    before = server.workers()
    file.write_text('[server]\nkeepalive_seconds = "a while"\n')
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: (now := server.workers()) and not set(now) & set(before))
    assert requests.get(f"{server.url}/health/ready", timeout=120).status_code == 200


def test_flasks_development_server_loads_the_model_in_its_process(
    tmp_path: Path, sample: dict[str, float]
) -> None:
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "wsgi", "run", "--port", str(port)],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    try:

        def answer() -> requests.Response | None:
            try:
                return requests.post(
                    f"http://127.0.0.1:{port}/predict", json={"features": sample}, timeout=120
                )
            except requests.ConnectionError:
                return None

        assert wait_for(answer).status_code == 200
        assert (tmp_path / "log").read_text().count('"model loaded"') == 1
    finally:
        process.terminate()
        process.wait()


def test_a_start_that_fails_leaves_nothing_behind(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    gunicorn = str(Path(sys.executable).with_name("gunicorn"))
    ran = subprocess.run(
        [gunicorn, "wsgi:app", "-b", f"127.0.0.1:{server.port}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert f"It can't listen on 127.0.0.1:{server.port}: Address already in use." in ran.stderr
    assert list(tmp_path.iterdir()) == []
