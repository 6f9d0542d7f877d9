"""How commands fail: one sentence on standard error, and an exit code for the kind of failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from ..access.keys import KeysError
from ..model.errors import ChangeUnderWay, ModelError, NothingToChange
from .printing import plain

EXIT_CODES = """\b
Exit codes: 0 done; 1 refused, not verified, or unreadable;
2 usage error; 3 nothing to change;
4 another process is changing the release. With 1 to 4, nothing was changed,
and one sentence on standard error says why."""


class CommandFailed(click.ClickException):
    """The command was refused; the message says why."""

    exit_code = 1


class Unchanged(click.ClickException):
    """There is nothing to change."""

    exit_code = 3


class Busy(click.ClickException):
    """Another process is making a change."""

    exit_code = 4


@contextmanager
def failing_in_a_sentence() -> Iterator[None]:
    """Raise an error of a model or of keys as a `click.ClickException`."""
    try:
        yield
    except NothingToChange as error:
        raise Unchanged(plain(str(error))) from error
    except ChangeUnderWay as error:
        raise Busy(plain(str(error))) from error
    except (ModelError, KeysError) as error:
        raise CommandFailed(plain(str(error))) from error
