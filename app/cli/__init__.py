"""The commands of ``lantern`` and ``flask --app wsgi``, each in a module of ``app/cli/``."""

from __future__ import annotations

from flask import Flask

from .config import config
from .key import key
from .model import model

COMMANDS = (config, key, model)
"""Those that take the application; ``lantern serve``, which starts Gunicorn, is beside them."""


def init_app(app: Flask) -> None:
    """Add the commands to Flask's own."""
    for command in COMMANDS:
        app.cli.add_command(command)
