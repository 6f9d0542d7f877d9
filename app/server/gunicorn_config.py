"""Gunicorn's configuration: for ``lantern serve``, and for the ``gunicorn.conf.py`` of a checkout.

It takes its values from Lantern's settings; Gunicorn's own command-line flags override both. The
hooks load the model once in each worker, after the fork, and give each worker memory for metrics.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from queue import Empty
from threading import Barrier
from typing import TYPE_CHECKING, Any

from gunicorn.systemd import listen_fds

from ..http.body_timeout import begin_request
from ..model.run_watch import exit_if_stuck
from ..settings import SettingsError, settings_at_start
from ..telemetry.lines import defer_lines
from ..telemetry.logs import GunicornLogger
from ..telemetry.slabs import SLAB_BYTES, SLOTS, SlabMemory
from ..worker import KeepAliveWorker
from ..worker.cores import usable_cores
from ..worker.files import connections_that_fit
from ..worker.heartbeat import Heartbeat, use_memory_for_heartbeats
from ..worker.malloc import keep_freed_memory, release_freed_memory
from .addresses import find_unusable

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from ..http.extension import Lantern
    from ..telemetry.metrics import Metrics

try:
    _settings = settings_at_start()
except SettingsError as error:
    sys.exit(f"Lantern can't start. {error.format_message()}")
if _settings.models_fault:
    sys.exit(f"Lantern can't start. {_settings.models_fault}")


def _web_concurrency() -> int:
    """Return the variable with which platforms set Gunicorn's number of workers."""
    text = os.environ.get("WEB_CONCURRENCY", "")
    if text and not text.isdecimal():
        sys.exit(f"Lantern can't start. WEB_CONCURRENCY must be a whole number, not {text!r}.")
    return int(text or 0)


def worker_count() -> int:
    """Return how many workers to start: from the settings, the platform, or the current cores.

    Also called at each reload: the quota of a container may have changed since the start.
    """
    return _server.workers or _web_concurrency() or usable_cores()


_server = _settings.server
_THREAD_SECONDS = 5
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

_host = f"[{_server.host}]" if ":" in _server.host else _server.host  # IPv6
bind = f"{_host}:{_server.port}"
worker_class: str | type = _settings.worker_class
if worker_class == "keepalive":
    worker_class = KeepAliveWorker
# Gunicorn turns a sync worker with threads into gthread.
threads = _server.threads if worker_class == "gthread" else 1
timeout = _server.timeout_seconds
graceful_timeout = _server.graceful_timeout_seconds
keepalive = _server.keepalive_seconds
limit_request_line = _settings.limits.max_request_line_bytes
limit_request_fields = _settings.limits.max_header_fields
limit_request_field_size = _settings.limits.max_header_field_bytes
# A gthread worker exits if it can't open a descriptor for a connection or a waiting thread.
worker_connections = connections_that_fit(_settings.limits.max_connections, threads)
KeepAliveWorker.delegates_rejections = True
KeepAliveWorker.max_body_bytes = _settings.limits.max_body_bytes
KeepAliveWorker.max_held_bytes = _settings.limits.max_held_bytes
KeepAliveWorker.headers_timeout_seconds = _server.headers_timeout_seconds
KeepAliveWorker.body_timeout_seconds = _server.body_timeout_seconds
KeepAliveWorker.drain_seconds = _server.drain_seconds
KeepAliveWorker.pool_threads = _server.pool_threads
KeepAliveWorker.setting_names = {
    "limit_request_line": "limits.max_request_line_bytes",
    "limit_request_fields": "limits.max_header_fields",
    "limit_request_field_size": "limits.max_header_field_bytes",
    "max_body_bytes": "limits.max_body_bytes",
    "max_held_bytes": "limits.max_held_bytes",
    "headers_timeout_seconds": "server.headers_timeout_seconds",
    "body_timeout_seconds": "server.body_timeout_seconds",
}
use_memory_for_heartbeats()
proc_name = "lantern"
# Proxies send a prefix in X-Forwarded-Prefix, which the application checks.
forwarder_headers = ""
control_socket_disable = True  # unused, and it would be left in the home directory

# The application is imported once and shared by all workers; the model is loaded after the fork,
# because neither the runtimes' threads nor CUDA survive one.
preload_app = True

GunicornLogger.settings = _settings.logging
logger_class = GunicornLogger


def on_starting(server: Any) -> None:
    """Create the memory in which the workers count, or take over that of the previous master."""
    if not (server.master_pid or listen_fds(unset_environment=False)):
        unusable = find_unusable(server.cfg.address, reuse_port=server.cfg.reuse_port)
        if unusable:
            sys.exit(
                f"Lantern can't start. It can't listen on {unusable}. Free the address, or set "
                "another one (server.host and server.port, or Gunicorn's --bind)."
            )
    try:
        Heartbeat(server.cfg).close()
    except (OSError, RuntimeError) as error:
        sys.exit(
            f"Lantern can't start. The workers' heartbeat files can't be created: {error}. Remove "
            "--worker-tmp-dir: heartbeats are then kept in memory."
        )
    try:
        memory = SlabMemory.inherited(os.environ) or SlabMemory.shared()
    except OSError as error:
        sys.exit(
            f"Lantern can't start. Its workers need shared memory: {error.strerror}. Allow the "
            "system call memfd_create, and files (ulimit -f) and an address space (ulimit -v) of "
            f"{(SLOTS * SLAB_BYTES >> 20) + 1:,} MiB."
        )
    _lantern(server.app).metrics.registry.share(memory)
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        server.log.warning(
            "PROMETHEUS_MULTIPROC_DIR is not used: the workers count in memory. Remove it."
        )


def _lantern(application: Any) -> Lantern:
    lantern: Lantern = application.wsgi().extensions["lantern"]
    return lantern


def when_ready(server: Any) -> None:
    """Log which models are served, warn about settings that don't go together, and keep what the
    workers are about to share out of their garbage collections.
    """
    for name, path in _settings.models.items():
        server.log.info("Serving %s (%s)", path, _settings.origin_of_model(name))
    for warning in _settings.warnings:
        server.log.warning(warning)
    # The values in force, not the settings: Gunicorn's own flags override them.
    is_ours = server.cfg.worker_class is KeepAliveWorker
    threads_that_predict = _server.pool_threads if is_ours else server.cfg.threads
    if _settings.model.batch_rows not in (0, "auto") and threads_that_predict == 1:
        server.log.warning(
            "model.batch_rows has no effect here: this worker predicts for one request at a time. "
            "Set %s to 2 or more.",
            "server.pool_threads" if is_ours else "server.worker_class to 'auto'",
        )
    threads_set = _settings.origins["server.threads"] != "default" and _server.threads > 1
    if threads_set and server.cfg.threads == 1:
        server.log.warning(
            "server.threads = %d has no effect here: a worker of the class %s has one thread. Set "
            "server.worker_class to 'gthread', or remove server.threads.",
            _server.threads,
            server.cfg.worker_class_str,
        )
    if server.cfg.timeout and server.cfg.timeout <= _settings.limits.run_seconds:
        server.log.warning(
            "limits.run_seconds = %g has no effect here: a worker that is silent for %d seconds is "
            "replaced. Set server.timeout_seconds higher, or limits.run_seconds lower.",
            _settings.limits.run_seconds,
            server.cfg.timeout,
        )
    guard = _lantern(server.app).guard
    guard.set_sockets(_names(server.LISTENERS))
    for warning in guard.warnings():
        server.log.warning(warning)
    # A collection writes to every object that it visits, and so copies the page of it. Once, before
    # the first fork: what is frozen is never freed, and this process lives long.
    gc.collect()
    gc.freeze()


def _names(listeners: Iterable[Any]) -> list[Any]:
    """Return the names of the sockets that the server listens on."""
    return [listener.getsockname() for listener in listeners]


def post_fork(server: Any, worker: Any) -> None:
    """Load the model in the worker that was just forked."""
    # Until the worker sets its own handlers, it has the master's, which have no effect here: a
    # signal to stop must end a long load, and a child that checks a file is not a worker.
    for inherited in (*_STOPPING, signal.SIGCHLD):
        signal.signal(inherited, signal.SIG_DFL)
    if _was_told_to_stop(server):
        signal.raise_signal(signal.SIGTERM)
    keep_freed_memory()
    lantern = _lantern(worker.app)
    if isinstance(worker, KeepAliveWorker):
        _hand_over(worker, lantern)
    else:
        _follow_requests(worker, lantern.metrics)
        if worker.cfg.timeout:  # its threads don't count for the master, nor do ours
            exit_if_stuck(worker.cfg.timeout)
    lantern.draining = lambda: not worker.alive
    lantern.guard.set_sockets(_names(worker.sockets))  # a reload may have changed them
    lantern.metrics.registry.attach()
    lantern.limit_memory()
    lantern.use_cores(usable_cores() // max(1, worker.cfg.workers))
    lantern.start()


def _was_told_to_stop(server: Any) -> bool:
    """Return True if a signal to stop came while the master's handlers were in force here.

    They put it into the worker's copy of the master's queue, which nothing reads. A master that is
    stopped while it forks sends its only signal then, and would wait in vain for the worker to end.
    """
    with suppress(Empty):
        while server.SIG_QUEUE.get_nowait() not in _STOPPING:
            pass
        return True
    return False


def post_worker_init(worker: Any) -> None:
    """Leave the prefix to the application, and start the threads of a worker that has them.

    The application has the prefix as ``server.prefix``. Gunicorn would answer 500 for any other
    path, and treat /lanternhealth as /health. Not in `post_fork`: ``--env`` is applied after it.
    """
    os.environ.pop("SCRIPT_NAME", None)
    pool = getattr(worker, "tpool", None)  # only gthread has one
    if pool is not None:
        _start_threads(pool, worker.cfg.threads)


def _start_threads(pool: Executor, count: int) -> None:
    """Start the ``count`` threads that ``pool`` may have.

    It would start each when a request is there for it, and a worker of Gunicorn's exits if it
    can't: while the run of another request has all the memory that there is, for example.
    """
    all_started = Barrier(count)
    try:
        for _ in range(count):
            pool.submit(all_started.wait)
    except RuntimeError:
        all_started.abort()  # those that wait would keep the process from ending
        raise


def _hand_over(worker: Any, lantern: Lantern) -> None:
    """Set on a keep-alive worker the hooks that the application provides."""
    worker.wait_budget = lantern.wait_budget
    worker.may_send_body = lantern.may_send_body
    worker.pool_queue = lantern.pool_queue
    direct = lantern.direct_calls
    if direct is not None and direct.are_for(worker.app.wsgi()):
        worker.find_direct = direct.find
    worker.report_in_flight = lantern.metrics.in_flight
    worker.release_memory = release_freed_memory
    worker.before_waiting = defer_lines()


def _follow_requests(worker: Any, metrics: Metrics) -> None:
    """Count the requests of one of Gunicorn's own workers as each begins and ends."""

    def begin(worker: Any, request: Any) -> None:
        begin_request(request)  # its body has not been read yet, and has a deadline
        metrics.in_flight_changed(1)

    def end(worker: Any, request: Any, environ: Any, response: Any) -> None:
        metrics.in_flight_changed(-1)

    worker.cfg.set("pre_request", begin)
    worker.cfg.set("post_request", end)


def worker_exit(server: Any, worker: Any) -> None:
    """Stop the threads of a worker before its process ends."""
    makes_calls = isinstance(worker, KeepAliveWorker) and worker.makes_calls
    if not _lantern(worker.app).stop(_THREAD_SECONDS) or makes_calls:
        logging.shutdown()
        os._exit(0)  # a normal exit during a load or a run could abort


def pre_exec(server: Any) -> None:
    """Pass the memory on to the new master (SIGUSR2), so that both count into one sum."""
    _lantern(server.app).metrics.registry.pass_on(server.cfg.env_orig)
