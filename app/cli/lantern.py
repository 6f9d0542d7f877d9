"""The command ``lantern``: the group of all commands."""

from __future__ import annotations

import click

from ..version import __version__
from . import COMMANDS
from .serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="Lantern", message="%(prog)s %(version)s")
def lantern() -> None:
    """Serve trained models over HTTP.

    Settings come from a file that the variable LANTERN_CONFIG names, and from variables such as
    LANTERN_SERVER__PORT; `lantern config` prints those in force. Relative paths begin at the
    directory of that file; on the command line and in variables, at the current directory.
    """


for command in (serve, *COMMANDS):
    lantern.add_command(command)
