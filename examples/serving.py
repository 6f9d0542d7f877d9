"""What the examples share: they run ``lantern``, serve a bundle for a while, and ask it."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

LANTERN = [sys.executable, "-m", "lantern_serving"]
"""The command ``lantern`` of the environment that runs the example."""
SECONDS = 300
"""How long a server may take to start, and to answer."""


def lantern(arguments: str) -> None:
    """Run ``lantern`` with ``arguments``, as in a shell. Exits if it fails; it has said why."""
    print(f"$ lantern {arguments}", flush=True)
    if subprocess.run([*LANTERN, *shlex.split(arguments)], check=False).returncode:
        sys.exit(1)


@contextlib.contextmanager
def serve(model: str) -> Iterator[str]:
    """Serve the versions of a model in the directory ``model`` until the block ends.

    Yields the URL of the server, which is ready then. Its log is in ``server.log``.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    print(f"$ lantern serve {model} --port {port} --workers 1", flush=True)
    command = [*LANTERN, "serve", model, "--port", str(port), "--workers", "1"]
    with Path("server.log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, server)
        yield url
    finally:
        server.terminate()
        server.wait(SECONDS)


def wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    """Wait until the model is loaded. Raises RuntimeError with the log if it never is."""
    deadline = time.monotonic() + SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(f"{url}/health/ready", timeout=SECONDS).ok:
                return
        time.sleep(0.1)
    raise RuntimeError(Path("server.log").read_text(encoding="utf-8"))


def ask(url: str, body: dict[str, Any]) -> Any:
    """Post ``body`` as JSON, and return the answer. Raises RuntimeError with what is wrong."""
    response = requests.post(url, json=body, timeout=SECONDS)
    if not response.ok:
        raise RuntimeError(f"{response.status_code}: {response.text}")
    return response.json()
