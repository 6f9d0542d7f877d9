"""A worker class for Gunicorn: one thread that serves many kept connections of HTTP/1.

``gunicorn -k app.worker.KeepAliveWorker`` serves any WSGI application with it. A request is handed
to the application once it has arrived whole, so a slow client costs a buffer and never the worker;
`app.worker.worker` has the loop, and each other module one concern of it. The package knows
nothing of the rest of the application.
"""

from .worker import KeepAliveWorker

__all__ = ["KeepAliveWorker"]
