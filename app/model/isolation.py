"""Isolation: an unverified file is read and run only in a child process.

A model file can take any time and any memory, and can crash the libraries that read it. So `run`
calls one function of this package in a child whose memory and time are bounded, and that ends with
the process that started it. Whatever happens there, the caller gets a value, or a `BundleError` of
one sentence. It is not a sandbox: the child has the rights of its user.

The child is a fresh interpreter, not a fork: the caller may have threads. Its input is a pickle of
ours; its output is JSON, because a hostile file may have taken over the child by then.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import resource
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from .errors import BundleError, first_line
from .run_limits import says_no_memory

_ROOT = Path(__file__).resolve().parent.parent.parent
_LARGEST_ANSWER = 256 << 20
_LONGEST_SENTENCE = 2_000
_FILE_SIZES = 10
"""The multiple of its own size that a file may take in addition to the limit, for copies of its
weights."""
_PACKING_TIMES = 10
"""The factor by which packing may take longer than reading: the model is exported and compared."""


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """The child's limits: ``seconds``, and ``memory_mb`` MiB plus ten times the file's size.

    The settings are ``model.check_seconds`` and ``model.check_memory_mb``.
    """

    seconds: float = 60.0
    memory_mb: int = 4096

    def for_packing(self) -> ProcessLimits:
        """Return the limits for exporting and comparing a model, which takes longer."""
        return replace(self, seconds=self.seconds * _PACKING_TIMES)

    def memory_bytes(self, path: Path) -> int:
        """Return the bytes of memory that a child may take for ``path``, a file or a directory."""
        files = path.iterdir() if path.is_dir() else [path]
        size = sum(file.stat().st_size for file in files if file.is_file())
        return (self.memory_mb << 20) + _FILE_SIZES * size


DEFAULT_LIMITS = ProcessLimits()


def run(function: Callable[..., Any], *arguments: Any, path: Path, limits: ProcessLimits) -> Any:
    """Call the module-level ``function`` in a bounded process, and return its result.

    The result must be a JSON value. ``path`` is the file that is tried, for messages. Raises
    `BundleError`: the one that ``function`` raises, or one that says that the process crashed,
    exceeded ``limits``, or could not be started.
    """
    try:
        memory = limits.memory_bytes(path)
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from error
    try:
        answer, status = _ask(pickle.dumps((function, arguments)), memory, limits.seconds)
    except TimeoutError:
        raise BundleError(
            f"{path} was still running after {limits.seconds:g} seconds and was stopped: it "
            "may never end, or be hostile. If you trust it and it is only slow, raise "
            "model.check_seconds."
        ) from None
    except OSError as error:
        raise BundleError(
            f"{path} can't be checked, because no process can be started: {error.strerror}. Check "
            "the limits on processes and open files (ulimit -u and -n)."
        ) from error
    return _outcome(answer, status, path, memory)


def _ask(request: bytes, memory: int, seconds: float) -> tuple[bytes, int]:
    """Return what a child answers to ``request``, and its exit status.

    Raises `TimeoutError` after ``seconds``, and `OSError` where it can't be started.
    """
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as answers:
        try:
            child = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", f"{__package__}.isolation"),
                    *(str(number) for number in (writer, os.getpid(), memory)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(writer,),
                env=_environment(),
            )
        finally:
            os.close(writer)
        try:
            answer = _converse(child, request, answers.fileno(), monotonic() + seconds)
        finally:
            child.kill()
            child.wait()
    return answer, child.returncode


def _environment() -> dict[str, str]:
    """Return the child's environment: one thread, because stacks count as memory, and our
    package.
    """
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def _converse(child: subprocess.Popen[bytes], request: bytes, answers: int, end: float) -> bytes:
    """Send ``request`` and return the output of the child until it ends. Raises `TimeoutError`."""
    assert child.stdin is not None
    received = bytearray()
    with child.stdin as stdin, selectors.DefaultSelector() as selector:
        os.set_blocking(stdin.fileno(), False)
        selector.register(stdin, selectors.EVENT_WRITE)
        selector.register(answers, selectors.EVENT_READ)
        unsent = memoryview(request)
        while True:
            ready = selector.select(max(0.0, end - monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                if key.fileobj is stdin:
                    try:
                        unsent = unsent[os.write(stdin.fileno(), unsent) :]
                    except BrokenPipeError:
                        unsent = unsent[:0]
                    if not unsent:
                        selector.unregister(stdin)
                        stdin.close()
                    continue
                part = os.read(answers, 1 << 20)
                received += part
                if not part or len(received) > _LARGEST_ANSWER:
                    return bytes(received)


def _outcome(answer: bytes, status: int, path: Path, memory: int) -> Any:
    """Return the value in ``answer``, or raise the error in it."""
    try:
        outcome = json.loads(answer)
        kind, value = outcome["kind"], outcome["value"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise BundleError(
            f"{path} can't be used: the process that tried it {_ending(status)}. The file is "
            f"damaged or hostile, or exceeds the limit of {memory >> 20:,} MiB of memory "
            "(model.check_memory_mb)."
        ) from None
    if kind == "returned":
        return value
    if kind == "memory":
        raise BundleError(
            f"{path} exceeds the limit of {memory >> 20:,} MiB of memory; it may be hostile. If "
            "you trust it, raise model.check_memory_mb."
        )
    sentence = str(value)[:_LONGEST_SENTENCE]
    if kind == "refused":
        raise BundleError(sentence)
    raise BundleError(
        f"{path} can't be used: reading it failed unexpectedly ({sentence}). Is the file damaged?"
    )


def _ending(status: int) -> str:
    if status >= 0:
        return "ended without an answer"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def main() -> None:
    """Execute one request, as the child. The arguments are the pipe for the answer, the parent's
    pid, and the limit of memory in bytes.
    """
    pipe, parent, memory = map(int, sys.argv[1:])
    _bind(parent, memory)
    function, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 - our own
    answer = _answer(function, arguments)
    with os.fdopen(pipe, "wb") as file:
        file.write(json.dumps(answer).encode())
    os._exit(0)  # skip the libraries' threads and exit handlers


def _bind(parent: int, memory: int) -> None:
    """Make this process end with its parent, and limit its memory."""
    end_with_parent = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(end_with_parent, signal.SIGKILL)
    if os.getppid() != parent:  # the parent has already ended
        os._exit(1)
    # The data, not the address space: libraries reserve far more of that than they use.
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    memory = memory if most == resource.RLIM_INFINITY else min(memory, most)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Return the outcome of ``function``. Each library reports a lack of memory in its own
    words.
    """
    try:
        return {"kind": "returned", "value": function(*arguments)}
    except BundleError as error:
        kind, said = "refused", str(error)
    except BaseException as error:  # a file can make libraries raise anything
        kind, said = "failed", f"{type(error).__name__}: {first_line(error)}"
    return {"kind": "memory" if says_no_memory(said) else kind, "value": said}


if __name__ == "__main__":
    main()
