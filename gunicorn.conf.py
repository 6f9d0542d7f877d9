"""Gunicorn's configuration for ``gunicorn wsgi:app``, which finds it in the current directory.

The values and the hooks stand in `app.server.gunicorn_config`, which ``lantern serve`` uses, too;
``post_fork`` there loads the model in each worker. Gunicorn's own command-line flags win over it.
"""

# All of it, as `lantern serve` takes it: Gunicorn passes over what is no setting of its own.
from app.server.gunicorn_config import *  # noqa: F403
from app.server.gunicorn_config import worker_count

workers = worker_count()
