"""The error for invalid settings."""

from __future__ import annotations

import click


class SettingsError(click.ClickException):
    """The settings are invalid; the message names each key, where it was set, and the fault."""
