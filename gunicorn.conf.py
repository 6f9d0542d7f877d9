"""Gunicorn's configuration, found by itself in the directory it is started in.

It takes its values from Lantern's settings; Gunicorn's own command-line flags win over both. The
hooks load the model once in each worker, after the fork, and keep the metrics of the workers.
"""

import math
import os
import shutil
import sys
import tempfile
from pathlib import Path

from app.settings import SettingsError, load_settings
from app.telemetry.logs import GunicornLogger

try:
    _settings = load_settings()
except SettingsError as error:
    sys.exit(f"Lantern can't start. {error.format_message()}")


def _usable_cores():
    """Count the cores this process may use: its affinity, and the CPU quota of its container."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return cores if quota == "max" else min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        return cores


_server = _settings.server
_METRICS_PREFIX = "lantern-metrics-"
_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_host = f"[{_server.host}]" if ":" in _server.host else _server.host  # IPv6
bind = f"{_host}:{_server.port}"
workers = _server.workers or int(os.environ.get("WEB_CONCURRENCY") or _usable_cores())
worker_class = _server.worker_class
# Gunicorn turns a sync worker with threads into gthread.
threads = _server.threads if worker_class == "gthread" else 1
timeout = _server.timeout_seconds
graceful_timeout = _server.graceful_timeout_seconds
keepalive = _server.keepalive_seconds
proc_name = "lantern"
control_socket_disable = True  # nothing here uses it, and it would be left in the home directory

# The application is imported once and shared by all workers; the model is loaded after the fork,
# because neither the runtimes' threads nor CUDA survive one.
preload_app = True

GunicornLogger.settings = _settings.logging
logger_class = GunicornLogger

# Set before prometheus-client is imported, which decides then how it keeps its values. A reload
# (SIGHUP) runs this again in a master whose workers' files are in use: it must keep the directory.
if not os.environ.get(_METRICS_VARIABLE):
    os.environ[_METRICS_VARIABLE] = tempfile.mkdtemp(prefix=_METRICS_PREFIX)


def on_starting(server):
    """Remove what an earlier run left in a directory of metrics that the user chose."""
    if server.master_pid == 0:  # not a new master beside an old one, whose files are in use
        for stale in Path(os.environ[_METRICS_VARIABLE]).glob("*.db"):
            stale.unlink()


def post_fork(server, worker):
    """Load the model in the worker that was just forked."""
    lantern = worker.app.wsgi().extensions["lantern"]
    lantern.draining = lambda: not worker.alive
    lantern.service.load()


def child_exit(server, worker):
    """Clean up, in the master, the metrics of a worker that is gone."""
    from app.telemetry.metrics import worker_exited

    try:
        worker_exited(worker.pid)
    except Exception:  # the master must outlive a full disk or a file that was cut
        server.log.exception("The metrics of worker %s were not cleaned up", worker.pid)


def on_exit(server):
    """Remove the directory of metrics, unless the user chose it."""
    directory = Path(os.environ[_METRICS_VARIABLE])
    if directory.name.startswith(_METRICS_PREFIX):
        shutil.rmtree(directory, ignore_errors=True)
