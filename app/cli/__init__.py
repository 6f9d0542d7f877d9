"""The commands of ``flask --app wsgi``, each in a module of ``app/cli/``."""

from __future__ import annotations

from flask import Flask

from .config import config
from .key import key
from .model import model


def init_app(app: Flask) -> None:
    """Add the commands to Flask's own."""
    app.cli.add_command(config)
    app.cli.add_command(key)
    app.cli.add_command(model)
