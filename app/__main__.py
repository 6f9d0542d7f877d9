"""The entry point of the command ``lantern``; in a checkout, ``python -m app``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask


def _make_app() -> Flask:
    from . import create_app
    from .settings import settings_at_start

    return create_app(settings_at_start())


def _check_environment() -> None:
    """Exit with a sentence where Gunicorn could not even be imported."""
    try:
        os.getcwd()  # noqa: PTH109 -- nothing is done with it
    except OSError as error:
        sys.exit(
            f"Error: The current directory can't be used: {error.strerror}. It may have been "
            "deleted; change to another one."
        )
    workers = os.environ.get("WEB_CONCURRENCY")
    if workers == "":  # as Compose sets a variable that it doesn't know
        del os.environ["WEB_CONCURRENCY"]
    elif workers is not None:
        try:
            int(workers)
        except ValueError:
            sys.exit(f"Error: WEB_CONCURRENCY must be a whole number, not {workers[:80]!r}.")


def main() -> None:
    """Run the command."""
    _check_environment()
    from flask.cli import ScriptInfo

    from .cli.lantern import lantern
    from .version import COMMAND

    lantern(prog_name=COMMAND, obj=ScriptInfo(create_app=_make_app, set_debug_flag=False))


if __name__ == "__main__":
    main()
