"""Runs each client in an environment of its own against ``python -m app serve``."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers import make_environment
from benchmarks.servers import ROOT, free_port

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE / ".venvs"
CLIENTS = ("tritonclient", "kserve", "mlserver")
SECONDS = 300
"""How long the service may take to start, and a client to ask all it asks."""


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Serve the example model, and give the address."""
    port = free_port()
    environ = {k: v for k, v in os.environ.items() if not k.startswith("LANTERN_")}
    environ["LANTERN_LIMITS__QUEUE_BUDGET_MS"] = "60000"  # nobody is refused for being slow
    command = [sys.executable, "-m", "app", "serve", "--port", str(port), "--workers", "1"]
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until_ready(url, process)
            yield url
        finally:
            process.terminate()


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the service at ``url`` is ready. Raises if it ends, or isn't in time."""
    deadline = time.monotonic() + SECONDS
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{url}/v2/health/ready", timeout=10).close()
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("The service did not start.")
        time.sleep(0.1)


def main() -> int:
    """Return 0 if every client got what it should."""
    failed = []
    for client in CLIENTS:
        make_environment(ENVIRONMENTS / client, HERE / f"requirements-{client}.txt")
    with serving() as url:
        for client in CLIENTS:
            python = ENVIRONMENTS / client / "bin" / "python"
            program = HERE / f"ask_with_{client}.py"
            ran = subprocess.run([python, program, url], timeout=SECONDS, check=False)
            print(f"{client}: {'failed' if ran.returncode else 'passed'}", flush=True)
            if ran.returncode:
                failed.append(client)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
