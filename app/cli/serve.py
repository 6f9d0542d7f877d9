"""``lantern serve``: the service, run by Gunicorn in this process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from flask.cli import ScriptInfo


@click.command()
@click.argument("model", required=False, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--host",
    metavar="ADDRESS",
    help="The address to listen on; otherwise the setting server.host, 127.0.0.1 by default.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="The port to listen on; otherwise the setting server.port, 8000 by default.",
)
@click.option(
    "--workers",
    type=click.IntRange(0),
    help="Worker processes; otherwise the setting server.workers, by default one for each core.",
)
@click.pass_obj
def serve(
    script: ScriptInfo,
    model: Path | None,
    host: str | None,
    port: int | None,
    workers: int | None,
) -> None:
    """Serve a model over HTTP.

    MODEL is a directory of versions or one bundle. Without it the settings name what is served;
    where they don't, it is the models in ./models, or else the example that comes with Lantern.

    Options win over the settings (`lantern config` prints them). Further options of Gunicorn, such
    as --certfile, are taken from the variable GUNICORN_CMD_ARGS. SIGTERM stops it gracefully.
    """
    given = {
        "LANTERN_MODEL__PATH": model,
        "LANTERN_SERVER__HOST": host,
        "LANTERN_SERVER__PORT": port,
        "LANTERN_SERVER__WORKERS": workers,
    }
    # As variables, workers and a new master (SIGUSR2) have them, too.
    os.environ.update({name: str(value) for name, value in given.items() if value is not None})
    if __package__ and Path(sys.argv[0]).name == "__main__.py":
        # A new master is started with these; by its path the module would not know its package.
        sys.argv[:1] = ["-m", __package__.partition(".")[0]]
    # Not at the top: it reads the settings, and brings in the whole application.
    from ..server.application import LanternServer

    LanternServer(script.load_app).run()
