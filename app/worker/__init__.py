"""A worker class for Gunicorn: one thread that serves many kept connections of HTTP/1.

``gunicorn -k app.worker.KeepAliveWorker`` serves any WSGI application with it. The application is
called when a request has arrived completely, so a slow client costs a buffer and never blocks the
worker. `app.worker.worker` has the event loop, and each other module one concern. The package knows
nothing of the rest of the application.
"""

from .worker import KeepAliveWorker

__all__ = ["KeepAliveWorker"]
