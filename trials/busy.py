"""Run a command beside busy processes: ``python -m trials.busy --processes 4 -- make test``.

What a test says must not depend on how fast the machine is, so the suite is run where other work
takes most of it. The busy processes end with the command, however that ends, when this process is
gone, and after `--minutes` at the latest.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys

from benchmarks.busy import busy

_PROCESSES = 4
_MINUTES = 120.0
_STOP_SECONDS = 60


def run(command: list[str]) -> int:
    """Run a command and give its exit status; one that is interrupted has time to end first."""
    # The kernel tells it to stop when this process is gone, however that came about.
    with subprocess.Popen(["setpriv", "--pdeathsig", "TERM", "--", *command]) as process:
        try:
            return process.wait()
        except (KeyboardInterrupt, SystemExit):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
            raise
        finally:
            process.kill()


def main() -> int:
    """Run the command that is given beside busy processes, and give its exit status."""
    parser = argparse.ArgumentParser(prog="python -m trials.busy", description=__doc__)
    parser.add_argument("--processes", type=int, default=_PROCESSES, help="how many are busy")
    parser.add_argument("--minutes", type=float, default=_MINUTES, help="how long they are at most")
    parser.add_argument("command", nargs="+", help="what is run beside them")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, and so ends them
    with busy(given.processes, given.minutes * 60) as pids:
        print(f"{len(pids)} busy processes: {' '.join(map(str, pids))}", flush=True)
        return run(given.command)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
