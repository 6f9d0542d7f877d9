"""How commands fail: one sentence on standard error, and an exit code that says of what kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from ..access.keys import KeysError
from ..model.errors import ChangeUnderWay, ModelError, NothingToChange
from .printing import plain

EXIT_CODES = """\b
Exit codes: 0 done; 1 refused, not verified, or not to be read;
2 the command is not used as it should be; 3 there is nothing to change;
4 another process is changing the release. With 1 to 4 nothing was changed,
and one sentence on standard error says why."""


class CommandFailed(click.ClickException):
    """The command was refused, for the reason in the message."""

    exit_code = 1


class Unchanged(click.ClickException):
    """All was already as the command would have made it."""

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
