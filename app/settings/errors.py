"""What is raised for settings that can't be used."""

from __future__ import annotations

import click


class SettingsError(click.ClickException):
    """Settings that can't be used; the message names each key, where it was set, and the fault."""
