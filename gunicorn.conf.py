"""Gunicorn's configuration for ``gunicorn wsgi:app``, which finds it in the current directory.

The values and the hooks stand in `app.server.gunicorn_config`, which ``lantern serve`` uses, too;
``post_fork`` there loads the model in each worker. Gunicorn's own command-line flags win over it.
"""

from app.server.gunicorn_config import (  # noqa: F401 (Gunicorn reads them here)
    bind,
    control_socket_disable,
    forwarder_headers,
    graceful_timeout,
    keepalive,
    limit_request_field_size,
    limit_request_fields,
    limit_request_line,
    logger_class,
    on_starting,
    post_fork,
    post_worker_init,
    pre_exec,
    preload_app,
    proc_name,
    threads,
    timeout,
    when_ready,
    worker_class,
    worker_connections,
    worker_exit,
    workers,
)
