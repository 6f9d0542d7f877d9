"""The settings in force: collected from all sources, read as declared, and checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..documents.suggestions import did_you_mean
from ..documents.text import readable
from .checks import check_together
from .collected import Collected
from .declaration import Settings
from .errors import SettingsError
from .places import SHIPPED
from .sources import collect
from .values import DECLARED, MODEL_KEY, PATH, SECTIONS, shown, without_password


@cache
def settings_at_start() -> Settings:
    """Return the settings with which this process started, whatever their file says by now.

    A reload of Gunicorn (SIGHUP) reads its configuration again, in a process whose application was
    created once: changed settings would not match it, and invalid ones would end the master. Raises
    `SettingsError`.
    """
    return load_settings(arguments=_arguments)


_arguments: dict[str, Any] = {}


def use_arguments(arguments: Mapping[str, Any]) -> None:
    """Set the values of the command line; call it before `settings_at_start`."""
    _arguments.update(arguments)


def load_settings(
    environ: Mapping[str, str] | None = None, arguments: Mapping[str, Any] | None = None
) -> Settings:
    """Load the settings in force from ``environ``, by default the process's own.

    ``arguments`` are values of the command line by ``section.key``; they override all others.
    Raises `SettingsError` for an unknown key, a wrong type, a value out of range or a file that
    can't be read.
    """
    settings = _read(collect(os.environ if environ is None else environ, arguments or {}))
    check_together(settings)
    return settings


def _read(collected: Collected) -> Settings:
    """Return the settings in ``collected``. Raises `SettingsError`, which lists every fault."""
    read: dict[str, dict[str, Any]] = {section: {} for section in DECLARED}
    values: dict[str, Any] = {}
    faults = []
    for section, content in collected.values.items():
        if section not in DECLARED:
            faults.append(_unknown_section(section, content, collected.origins))
            continue
        for key, value in content.items():
            name = f"{section}.{key}"
            try:
                read[section][key] = typed = _read_one(collected, section, key, value)
            except ValueError as fault:
                faults.append(str(fault))
            else:
                values[name] = _for_people(typed)
    if faults:
        raise SettingsError(" ".join(faults))
    sections: dict[str, Any] = {name: kind(**read[name]) for name, kind in SECTIONS.items()}
    model = sections["model"]
    models = read["models"] or {model.name: model.path}
    return Settings(
        **sections,
        models=models,
        values=values,
        origins=collected.origins,
        models_fault=collected.models_fault,
        warnings=tuple(collected.warnings),
    )


def _read_one(collected: Collected, section: str, key: str, value: object) -> Any:
    """Return a value converted to its setting's type. Raises `ValueError` with a sentence."""
    name = f"{section}.{key}"
    origin = collected.origins[name]
    declared = PATH if section == "models" else DECLARED[section].get(key)
    if declared is None:
        hint = did_you_mean(key, DECLARED[section]) or "."
        raise ValueError(f"Unknown setting {name} ({origin}){hint}")
    is_example = name == "model.path" and origin == "default"
    base = SHIPPED if is_example else collected.bases.get(origin, Path())
    if section == "models":
        _check_name(key, name, origin)
    try:
        return declared.read(value, base)
    except ValueError as fault:
        raise ValueError(f"Setting {name} = {shown(value)} ({origin}): {fault}") from None


def _check_name(model: str, name: str, origin: str) -> None:
    try:
        MODEL_KEY.read(model, Path())
    except ValueError as fault:
        raise ValueError(f"Setting {name} ({origin}): the model's name {fault}") from None


def _for_people(value: object) -> object:
    if isinstance(value, Path):
        return readable(str(value))
    return without_password(value) if isinstance(value, str) else value


def _unknown_section(section: str, content: Iterable[str], origins: Mapping[str, str]) -> str:
    names = (f"{section}.{key}" for key in content)
    keys = ", ".join(f"{name} ({origins[name]})" for name in names)
    used = f", used by {keys}" if keys else ""
    hint = did_you_mean(section, DECLARED) or "."
    return f"Unknown setting section {section!r}{used}{hint}"
