"""How lines are written where they can't be written at once. What a server makes of it is told in
``tests/faults/test_log.py``.
"""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import select
import socket
import stat
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.telemetry import lines
from app.telemetry.lines import MAX_HELD, LineHandler
from tests.conftest import ROOT
from tests.integration.conftest import wait_for


def logger_to(descriptor: int) -> logging.Logger:
    """Return a logger whose lines are its messages, to a file that is open."""
    logger = logging.Logger("x")
    handler = LineHandler(os.fdopen(descriptor, "w", closefd=False))
    logger.addHandler(handler)
    return logger


def read_all(descriptor: int, last: str = "") -> bytes:
    """Read until what ends with ``last`` is there, or nobody writes any more; and what follows."""
    text = b""
    while True:
        is_there = bool(last) and text.rstrip().endswith(last.encode())
        if not select.select([descriptor], [], [], 0.1 if is_there else 120)[0]:
            assert is_there, f"{last[:100]!r} did not come: {text[-1000:]!r}"
            return text
        part = os.read(descriptor, 1 << 16)
        if not part:
            return text
        text += part


def pipe() -> tuple[int, int]:
    return os.pipe()


def stream_socket() -> tuple[int, int]:
    reading, writing = socket.socketpair()
    return reading.detach(), writing.detach()


def terminal() -> tuple[int, int]:
    reading, writing = pty.openpty()
    return reading, writing


@pytest.mark.parametrize("make", [pipe, stream_socket, terminal])
def test_lines_wait_for_a_reader_and_come_whole_and_in_order(
    make: Callable[[], tuple[int, int]],
) -> None:
    reading, writing = make()
    blocking = os.get_blocking(writing)
    logger = logger_to(writing)
    wanted = [f"{number} " + "x" * (number % 7 * 1000) for number in range(200)]
    for line in wanted:
        logger.info(line)
    text = read_all(reading, wanted[-1]).decode()
    assert text.split() == " ".join(wanted).split()
    assert os.get_blocking(writing) == blocking
    os.close(reading)
    os.close(writing)


def test_what_does_not_fit_is_dropped_counted_and_told_where_it_is_missing() -> None:
    dropped: list[int] = []
    lines.on_dropped(lambda stream, number: dropped.append(number))
    reading, writing = os.pipe()
    logger = logger_to(writing)
    for number in range(2 * MAX_HELD // 1000):
        logger.info("%06d %s", number, "x" * 992)
    held, missing, after = (
        read_all(reading, "could not be written")
        .decode()
        .partition(f"{sum(dropped)} log lines were dropped, because the log could not be written\n")
    )
    assert missing
    numbers = [int(line[:6]) for line in held.splitlines()]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) + sum(dropped) == 2 * MAX_HELD // 1000
    assert len(held) <= MAX_HELD + 65536
    logger.info("and on it goes")
    assert after + read_all(reading, "on it goes").decode() == "and on it goes\n"
    os.close(reading)
    os.close(writing)


def test_a_line_larger_than_all_that_is_held_is_told_as_dropped() -> None:
    reading, writing = os.pipe()
    logger = logger_to(writing)
    logger.info("x" * (MAX_HELD + 1))
    logger.info("next")
    assert (
        read_all(reading, "next")
        == b"1 log lines were dropped, because the log could not be written\nnext\n"
    )
    os.close(reading)
    os.close(writing)


PROGRAM = """
import logging, os, sys, time
from app.telemetry.lines import LineHandler
logger = logging.getLogger("x")
logger.setLevel("INFO")
logger.addHandler(LineHandler(sys.stdout))
"""


def run(program: str, stdout: int, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM + program, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=stdout, **options)


def available(pipe: int) -> int:
    """Return how many bytes there are to read from a pipe."""
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]


def test_a_fork_does_not_write_twice_what_is_held() -> None:
    reading, writing = os.pipe()
    process = run(
        """
for number in range(100):
    logger.info("%d %s", number, "x" * 1000)
if not os.fork():
    logger.info("the child's")
    sys.exit()
os.wait()
logger.info("the parent's")
""",
        writing,
    )
    os.close(writing)
    wait_for(lambda: available(reading) > 60_000)  # it is full, so that some are held
    text = read_all(reading).decode()
    assert [line.split()[0] for line in text.splitlines() if line[0].isdigit()] == [
        str(number) for number in range(100)
    ]
    assert process.wait(120) == 0
    os.close(reading)


def test_the_end_of_a_process_does_not_wait_for_a_reader_for_long() -> None:
    reading, writing = os.pipe()
    process = run("for _ in range(100): logger.info('x' * 1000)", writing)
    assert process.wait(120) == 0
    os.close(reading)
    os.close(writing)


def test_several_processes_do_not_tear_each_others_lines() -> None:
    reading, writing = os.pipe()
    program = "for n in range(400): logger.info(sys.argv[1] * (n % 40 * 100 + 1))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM + program, letter], cwd=ROOT, stdout=writing
        )
        for letter in "abc"
    ]
    os.close(writing)
    text = b""
    while part := os.read(reading, 20_000):
        text += part
        time.sleep(0.001)
    for letter in "abc":
        whole = [line for line in text.decode().splitlines() if line.startswith(letter)]
        assert [len(line) for line in whole] == [n % 40 * 100 + 1 for n in range(400)]
        assert {line.strip(letter) for line in whole} == {""}
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    os.close(reading)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a process another's pipe")
def test_a_pipe_of_another_user_is_no_obstacle() -> None:
    """As in a container whose standard output is root's."""
    reading, writing = os.pipe()
    os.fchmod(writing, stat.S_IRUSR | stat.S_IWUSR)
    program = """
os.setuid(65534)
logger.handlers = [LineHandler(sys.stdout)]
for number in range(100):
    logger.info("%d %s", number, "x" * 1000)
print("done", file=sys.stderr, flush=True)
time.sleep(600)
"""
    errors, told = os.pipe()
    process = run(program, writing, stderr=told)
    try:
        wait_for(lambda: select.select([errors], [], [], 0)[0])
        assert os.read(errors, 100) == b"done\n"
        text = read_all(reading, "99 " + "x" * 1000).decode()
    finally:
        process.kill()
        process.wait()
    assert [line.split()[0] for line in text.splitlines()] == [str(n) for n in range(100)]
    for descriptor in (reading, writing, errors, told):
        os.close(descriptor)


def test_the_file_of_a_shell_is_written_to_where_it_stands(tmp_path: Path) -> None:
    """Its place in the file is shared with what else writes to it."""
    file = tmp_path / "log"
    with file.open("w") as log:
        log.write("before\n")
        log.flush()
        logger_to(log.fileno()).info("ours")
        os.write(log.fileno(), b"after\n")
    assert file.read_text() == "before\nours\nafter\n"


def test_whoever_gets_the_number_of_a_closed_standard_output_gets_no_line(tmp_path: Path) -> None:
    program = (
        "os.close(1)\n"
        f"assert os.open({str(tmp_path / 'taken')!r}, os.O_CREAT | os.O_WRONLY) == 1\n"
        "logger.error('a line')\n"
    )
    with (tmp_path / "log").open("wb") as log:
        assert run(program, log.fileno()).wait(60) == 0
    assert (tmp_path / "log").read_text() == "a line\n"
    assert (tmp_path / "taken").read_text() == ""


def test_a_process_without_standard_output_logs_nothing_and_runs() -> None:
    program = PROGRAM + "logger.info('x'); print(sys.stdout, file=sys.stderr)"
    ran = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stderr == "None\n"


DEFERRING = """
import signal, threading
from app.telemetry.lines import defer_lines
logger = logging.getLogger("x")
handler = logger.handlers[0]
def writing(data, write=handler._write):
    sizes.append(len(data))
    return write(data)
handler._write = writing
sizes = []
write_deferred = defer_lines()
"""


def output_of(program: str) -> list[str]:
    """Return the lines that a program writes whose lines are deferred."""
    reading, writing = os.pipe()
    process = run(DEFERRING + program, writing)
    os.close(writing)
    text = read_all(reading).decode()
    os.close(reading)
    assert process.wait(120) == 0
    return text.splitlines()


def test_deferred_lines_are_written_together_when_the_loop_is_idle() -> None:
    lines = output_of("""
threading.Thread.start = lambda self: None  # none is written late
for number in range(40):
    handler.write(b"%040d" % number * 7 + b"\\n")
full = list(sizes)
write_deferred()
handler.write(b"last\\n", more_follows=True)
print(*full, *sizes[len(full):], file=sys.stderr, flush=True)
os.write(1, " ".join(map(str, [*full, 0, *sizes[len(full):]])).encode() + b"\\n")
""")
    *numbers, written, last = lines
    assert [int(line[:40]) for line in numbers] == list(range(40))
    assert written == f"{14 * 281} {14 * 281} 0 {12 * 281}"
    assert last == "last"  # at the end of the process


def test_deferred_lines_are_not_left_waiting_by_a_loop_that_is_stuck() -> None:
    lines = output_of("""
handler.write(b"first\\n")
while not sizes:
    time.sleep(0.01)
os.write(1, b"then\\n")
os._exit(0)
""")
    assert lines == ["first", "then"]


def test_deferred_lines_come_before_every_record_of_whatever_handler() -> None:
    lines = output_of("""
threading.Thread.start = lambda self: None
other = logging.Logger("other")
other.addHandler(LineHandler(sys.stdout))
handler.write(b"first\\n")
other.warning("second")
handler.write(b"third\\n")
logger.warning("fourth")
os._exit(0)
""")
    assert lines == ["first", "second", "third", "fourth"]


def test_a_process_that_is_forked_defers_nothing_and_leaves_the_lines_to_its_parent() -> None:
    lines = output_of("""
handler.write(b"the parent's\\n")
if not os.fork():
    handler.write(b"the child's\\n")
    os._exit(0)
os.wait()
""")
    assert sorted(lines) == ["the child's", "the parent's"]


@pytest.mark.parametrize("number", ["SIGTERM", "SIGQUIT", "SIGABRT"])
def test_a_signal_that_raises_loses_no_line(number: str) -> None:
    lines = output_of(f"""
def stop(number, frame):
    raise SystemExit(0)
signal.signal(signal.{number}, stop)
threading.Timer(0.2, os.kill, [os.getpid(), signal.{number}]).start()
written = 0
try:
    while True:
        handler.write(b"%d\\n" % written)
        written += 1
finally:
    logger.info("at least %d", written)
""")
    *numbers, last = lines
    assert {*range(int(last.split()[-1]))} <= {int(number) for number in numbers}


def test_deferred_lines_that_can_not_be_written_are_dropped_and_reported() -> None:
    reading, writing = os.pipe()
    program = """
for number in range(3000):
    handler.write(b"%06d" % number + b"x" * 992 + b"\\n")
    write_deferred()
print("done", file=sys.stderr, flush=True)
time.sleep(600)
"""
    errors, told = os.pipe()
    process = run(DEFERRING + program, writing, stderr=told)
    try:
        wait_for(lambda: select.select([errors], [], [], 0)[0])
        assert os.read(errors, 100) == b"done\n"
        text = read_all(reading, "could not be written").decode()
    finally:
        process.kill()
        process.wait()
    *whole, notice = text.splitlines()
    assert [int(line[:6]) for line in whole] == list(range(len(whole)))
    assert int(notice.split()[0]) + len(whole) == 3000
    for descriptor in (reading, writing, errors, told):
        os.close(descriptor)
