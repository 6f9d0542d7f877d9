"""``lantern key``: create, list and revoke API keys.

Running workers follow at once, because they check the file on each request.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from flask.cli import AppGroup, with_appcontext

from ..access.keys import (
    KEY_NAME,
    KEY_NAME_FORM,
    PREDICT,
    SCOPES,
    Key,
    create_key,
    key_document,
    read_keys,
    revoke_key,
)
from ..documents.text import print_anything
from ..http.extension import current_lantern
from .errors import failing_in_a_sentence
from .printing import print_json, print_table

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
_SPAN = re.compile(r"([1-9][0-9]{0,5})([hdw])")

key = AppGroup("key", callback=print_anything, help="Create, list and revoke API keys.")


def _name(context: click.Context, parameter: click.Parameter, name: str) -> str:
    if not KEY_NAME.fullmatch(name):
        raise click.BadParameter(f"must be {KEY_NAME_FORM}.")
    return name


def _expiry(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> datetime | None:
    """Parse when a key expires: a span from now, or a time, in UTC unless it has an offset."""
    if text is None:
        return None
    now = datetime.now(UTC).replace(microsecond=0)
    span = _SPAN.fullmatch(text)
    try:
        if span:
            expires = now + timedelta(**{_UNITS[span[2]]: int(span[1])})
        else:
            given = datetime.fromisoformat(text)
            expires = given.replace(tzinfo=given.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            "must be a span such as 90d (h, d, w), a date such as 2027-01-01, or an ISO 8601 time."
        ) from None
    if expires <= now:
        raise click.BadParameter(f"is in the past: {expires.isoformat()}.")
    return expires


@key.command()
@click.argument("name", callback=_name)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=[PREDICT],
    type=click.Choice(SCOPES),
    help="What the key allows: predict (the default), metrics, or admin, which allows "
    "everything. May be repeated.",
)
@click.option(
    "--expires",
    "expires_at",
    metavar="WHEN",
    callback=_expiry,
    help="When the key expires: 90d (or h, w), 2027-01-01, or an ISO 8601 time; in UTC. By "
    "default never.",
)
@with_appcontext
def create(name: str, scopes: tuple[str, ...], expires_at: datetime | None) -> None:
    """Create a key, and print it once.

    Only the key is written to standard output. Only its hash is stored.
    """
    if current_lantern().settings.origins["access.keys_file"] == "default":
        with suppress(OSError):  # the file can't be written then, which is reported below
            _path().parent.mkdir(exist_ok=True)
    with failing_in_a_sentence():
        made, text = create_key(_path(), name, scopes, expires_at)
    click.echo(
        f"Created the key {made.name} ({made.id}) with the scope {', '.join(made.scopes)}, "
        f"{_until(made)}. Its hash is in {_path()}; the key itself is not shown again:",
        err=True,
    )
    click.echo(text)


@key.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@with_appcontext
def list_keys(as_json: bool) -> None:
    """List the keys, without their secrets."""
    with failing_in_a_sentence():
        keys = read_keys(_path())
    if as_json:
        print_json([key_document(each) | {"expired": each.has_expired} for each in keys])
        return
    rows = [
        (each.id, each.name, ", ".join(each.scopes), each.created_at.isoformat(), _until(each))
        for each in keys
    ]
    print_table(rows, ("ID", "NAME", "SCOPES", "MADE", "STATE"))


@key.command()
@click.argument("which", metavar="ID|NAME")
@with_appcontext
def revoke(which: str) -> None:
    """Revoke a key, permanently. It takes effect at once."""
    with failing_in_a_sentence():
        ended = revoke_key(_path(), which)
    click.echo(f"Revoked the key {ended.name} ({ended.id}).")


def _until(key: Key) -> str:
    if key.expires_at is None:
        return "never expires"
    return f"{'expired' if key.has_expired else 'expires'} {key.expires_at.isoformat()}"


def _path() -> Path:
    return current_lantern().settings.access.keys_file
