"""Values as their sources have them, before anything is known of what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import SettingsError


@dataclass(slots=True)
class Collected:
    """Values by section and key, as they were found.

    ``origins`` maps ``section.key`` to where its value came from, and ``bases`` an origin to the
    directory at which its relative paths begin, where that is not the current one.
    ``models_fault`` says why the models in ``./models`` can't be served, and ``warnings`` are for
    the start of a service; what needs no model goes on without a word of them.
    """

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    bases: dict[str, Path] = field(default_factory=dict)
    models_fault: str = ""
    warnings: list[str] = field(default_factory=list)

    def set(self, section: str, key: str, value: object, origin: str) -> None:
        """Set one value in place of what sources before had."""
        self.values.setdefault(section, {})[key] = value
        self.origins[f"{section}.{key}"] = origin

    def merge(self, document: Mapping[str, Any], origin: str) -> None:
        """Set all values of a document."""
        for section, content in document.items():
            if not isinstance(content, Mapping):
                raise SettingsError(f"{origin}: {section!r} must stand in a section like [server].")
            self.values.setdefault(section, {})
            for key, value in content.items():
                self.set(section, key, value, origin)

    def is_default(self, name: str) -> bool:
        """Return whether no source set the setting ``name``."""
        return self.origins[name] == "default"
