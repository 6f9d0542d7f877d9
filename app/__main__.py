"""The command ``lantern``; in a checkout, ``python -m app``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from flask.cli import ScriptInfo

from .cli import COMMANDS
from .cli.serve import serve
from .version import __version__

if TYPE_CHECKING:
    from flask import Flask


def _make_app() -> Flask:
    # Not at the top: it brings in the whole application.
    from . import create_app
    from .settings import settings_at_start

    return create_app(settings_at_start())


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="Lantern", message="%(prog)s %(version)s")
@click.pass_context
def lantern(context: click.Context) -> None:
    """Serve trained models over HTTP.

    Settings come from a file that the variable LANTERN_CONFIG names, and from variables such as
    LANTERN_SERVER__PORT; `lantern config` prints those in force. Relative paths begin at the
    directory of that file; on the command line and in variables, at the current directory.
    """
    context.obj = ScriptInfo(create_app=_make_app, set_debug_flag=False)


for command in (serve, *COMMANDS):
    lantern.add_command(command)


def main() -> None:
    """Run the command."""
    lantern(prog_name="lantern")


if __name__ == "__main__":
    main()
