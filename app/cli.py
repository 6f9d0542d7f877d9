"""Commands of ``flask --app wsgi``."""

from __future__ import annotations

import json

import click
from flask import Flask

from app.extension import lantern


def init_app(app: Flask) -> None:
    """Add the commands to Flask's own."""
    app.cli.add_command(config)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def config(as_json: bool) -> None:
    """Print the settings in force and where each value came from."""
    settings = lantern().settings
    rows = [(key, value, settings.origins[key]) for key, value in settings.values.items()]
    if as_json:
        document = {key: {"value": value, "origin": origin} for key, value, origin in rows}
        click.echo(json.dumps(document, indent=2))
        return
    shown = [(key, json.dumps(value), origin) for key, value, origin in rows]
    widths = [max(len(row[column]) for row in shown) for column in (0, 1)]
    for key, value, origin in shown:
        click.echo(f"{key:<{widths[0]}}  {value:<{widths[1]}}  {origin}")
