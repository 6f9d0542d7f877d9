"""Gunicorn with its only worker in the process that it begins in, for valgrind.

That is the only process in which valgrind can be told from outside to begin to count. So the worker
runs where its master would have waited: ``python one_process.py wsgi:app``.
"""

from __future__ import annotations

import os


def main() -> None:
    """Run Gunicorn as its command does."""
    os.fork = lambda: 0  # "you are the worker"
    os.getppid = os.getpid  # which looks for its master now and then
    from gunicorn.app.wsgiapp import run

    run()


if __name__ == "__main__":
    main()
