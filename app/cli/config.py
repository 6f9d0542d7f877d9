"""``lantern config``: the settings in force."""

from __future__ import annotations

import json

import click
from flask.cli import with_appcontext

from ..documents.text import print_anything
from ..http.extension import current_lantern
from .printing import print_json, print_table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@with_appcontext
def config(as_json: bool) -> None:
    """Print the settings in force and where each value came from."""
    print_anything()
    settings = current_lantern().settings
    rows = [(key, value, settings.origins[key]) for key, value in settings.values.items()]
    if as_json:
        print_json({key: {"value": value, "origin": origin} for key, value, origin in rows})
        return
    print_table([(key, json.dumps(value), origin) for key, value, origin in rows])
