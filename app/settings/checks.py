"""Checks of settings that depend on each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .declaration import Settings
from .errors import SettingsError
from .found import ORIGIN as FOUND


def check_together(settings: Settings) -> None:
    """Raise `SettingsError` for settings that contradict each other."""
    server, limits, origins = settings.server, settings.limits, settings.origins
    if server.drain_seconds >= server.graceful_timeout_seconds:
        raise SettingsError(
            f"Setting server.drain_seconds ({origins['server.drain_seconds']}) must be less than "
            f"server.graceful_timeout_seconds, {server.graceful_timeout_seconds}: a worker that "
            "drains for longer is killed."
        )
    if limits.max_held_bytes < limits.max_body_bytes:
        raise SettingsError(
            f"Setting limits.max_held_bytes ({origins['limits.max_held_bytes']}) is "
            f"{limits.max_held_bytes}, which is less than limits.max_body_bytes, "
            f"{limits.max_body_bytes}: set it to at least that, better to several times as much."
        )
    names = [
        name.removeprefix("models.")
        for name, origin in origins.items()
        if name.startswith("models.") and origin != FOUND
    ]
    for key in ("model.path", "model.name", "model.version"):
        if names and origins[key] != "default":
            raise SettingsError(
                f"Setting {key} ({origins[key]}) is for a single model, but [models] lists the "
                "models to serve: remove one of the two."
            )
    _refuse_two_spellings(names, origins)


def _refuse_two_spellings(models: Iterable[str], origins: Mapping[str, str]) -> None:
    """Raise `SettingsError` for names that differ only in case: variables, which have no case,
    could not override the right entry of a file.
    """
    seen: dict[str, str] = {}
    for name in models:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise SettingsError(
                f"Settings models.{other} ({origins[f'models.{other}']}) and models.{name} "
                f"({origins[f'models.{name}']}) differ only in case: write the name in lower case "
                "in both."
            )
