"""Runs each client in an environment of its own against ``python -m app serve``.

The environments are made and the programs run side by side: most of the time is pip's.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.peers import make_environment
from benchmarks.servers import ROOT, free_port
from tests.clients.models import prepare

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE / ".venvs"
CLIENTS = {
    "tritonclient": ("ask_with_tritonclient.py", "ask_simple_with_tritonclient.py"),
    "kserve": ("ask_with_kserve.py",),
    "mlserver": ("ask_with_mlserver.py",),
}
"""The programs that are run with each library, one after the other."""
SECONDS = 300
"""How long the service may take to start, and a program to ask all it asks."""


@contextlib.contextmanager
def serving(settings: Mapping[str, str]) -> Iterator[str]:
    """Serve the models of ``settings``, and give the address."""
    port = free_port()
    environ = {k: v for k, v in os.environ.items() if not k.startswith("LANTERN_")}
    environ["LANTERN_LIMITS__QUEUE_BUDGET_MS"] = "60000"  # nobody is refused for being slow
    environ |= settings
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


def ask(client: str, url: str) -> bool:
    """Make the environment of a client, and run its programs; return True if all got through."""
    environment = ENVIRONMENTS / client
    make_environment(environment, HERE / f"requirements-{client}.txt")
    passed = True
    for program in CLIENTS[client]:
        command = [environment / "bin" / "python", HERE / program, url]
        ran = subprocess.run(
            command, timeout=SECONDS, check=False, capture_output=True, encoding="utf-8"
        )
        verdict = "failed" if ran.returncode else "passed"
        said = ran.stdout + ran.stderr if ran.returncode else ""
        print(f"{said}{program}: {verdict}", flush=True)
        passed = passed and not ran.returncode
    return passed


def main() -> int:
    """Return 0 if every client got what it should."""
    with tempfile.TemporaryDirectory(prefix="lantern-clients-") as directory:
        settings = prepare(Path(directory))
        with serving(settings) as url, ThreadPoolExecutor(len(CLIENTS)) as pool:
            passed = list(pool.map(lambda client: ask(client, url), CLIENTS))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
