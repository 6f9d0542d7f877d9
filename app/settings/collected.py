"""Values as found in their sources, before they are interpreted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import SettingsError


@dataclass(slots=True)
class Collected:
    """Values by section and key, as they were found.

    ``origins`` maps ``section.key`` to where its value came from, and ``bases`` maps an origin to
    the directory for its relative paths, if that is not the current one. ``models_fault`` says why
    the models in ``./models`` can't be served, and ``warnings`` are logged when a service starts;
    commands that need no model ignore both.
    """

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    bases: dict[str, Path] = field(default_factory=dict)
    models_fault: str = ""
    warnings: list[str] = field(default_factory=list)

    def set(self, section: str, key: str, value: object, origin: str) -> None:
        """Set one value, overriding earlier sources."""
        self.values.setdefault(section, {})[key] = value
        self.origins[f"{section}.{key}"] = origin

    def merge(self, document: Mapping[str, Any], origin: str) -> None:
        """Set all values of a document."""
        for section, content in document.items():
            if not isinstance(content, Mapping):
                raise SettingsError(f"{origin}: {section!r} must be in a section such as [server].")
            self.values.setdefault(section, {})
            for key, value in content.items():
                self.set(section, key, value, origin)

    def is_default(self, name: str) -> bool:
        """Return True if no source set the setting ``name``."""
        return self.origins[name] == "default"
