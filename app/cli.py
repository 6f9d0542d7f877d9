"""The commands of ``flask --app wsgi``, each in a module of ``app/commands/``."""

from __future__ import annotations

from flask import Flask

from app.commands.config import config
from app.commands.key import key
from app.commands.model import model


def init_app(app: Flask) -> None:
    """Add the commands to Flask's own."""
    app.cli.add_command(config)
    app.cli.add_command(key)
    app.cli.add_command(model)
