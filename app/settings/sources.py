"""Where settings come from, each source over those before it: defaults, file, variables, platform.

What a value means is no concern of this module: it notes the values and where each came from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..documents.text import readable
from ..documents.toml import NotToml, read_toml
from ..model.bundle import models_below
from .errors import SettingsError
from .places import MODELS, SHIPPED
from .values import DECLARED, DEFAULTS

PREFIX = "LANTERN_"
FILE_VARIABLE = "LANTERN_CONFIG"
KEY_VARIABLE = "LANTERN_API_KEY"
"""No setting: the key that the client and commands send to a service."""
PORT_VARIABLE = "PORT"
"""By which Heroku, Cloud Run and others say where they lead requests to."""
_EVERYWHERE = "0.0.0.0"  # noqa: S104 -- where such a platform looks for the service
_SCRIPT_NAME = "SCRIPT_NAME"
"""The variable by which Gunicorn is told the prefix."""
_MAX_FILE_BYTES = 1 << 20

# Kubernetes adds these to every pod beside a Service called "lantern", or "lantern-something".
_SERVICE_LINK = re.compile(r"LANTERN_([A-Z0-9_]+_)?(SERVICE_(HOST|PORT\w*)|PORT(_\d+_\w+)?)")


@dataclass(slots=True)
class Sources:
    """Values by section and key, as they were found.

    ``origins`` maps ``section.key`` to where its value came from, and ``bases`` an origin to the
    directory at which its relative paths begin, where that is not the current one.
    """

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    bases: dict[str, Path] = field(default_factory=dict)

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


def collect(environ: Mapping[str, str]) -> Sources:
    """Return what all sources say. Raises `SettingsError`."""
    sources = Sources()
    sources.merge(DEFAULTS, "default")
    if file := environ.get(FILE_VARIABLE):
        sources.merge(_read_file(Path(file)), readable(file))
        sources.bases[readable(file)] = Path(file).parent
    if prefix := _text_in(environ, _SCRIPT_NAME):
        sources.set("server", "prefix", prefix, _SCRIPT_NAME)
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in (FILE_VARIABLE, KEY_VARIABLE):
            _merge_variable(sources, variable, environ)
    if sources.origins["server.port"] not in environ and (port := _text_in(environ, PORT_VARIABLE)):
        _merge_port(sources, port)
    if sources.is_default("model.path") and not sources.values["models"]:
        _merge_found_model(sources)
    return sources


def _read_file(path: Path) -> dict[str, Any]:
    name = readable(str(path))
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise SettingsError(
                f"The settings file {name} is not a regular file, and is read more than once: a "
                "pipe would be empty by then. Write the settings to a file."
            )
        return read_toml(path, _MAX_FILE_BYTES)
    except OSError as error:
        raise SettingsError(f"The settings file {name} can't be read: {error.strerror}.") from error
    except NotToml as error:
        raise SettingsError(f"The settings file {name} {error}") from error


def _text_in(environ: Mapping[str, str], variable: str) -> str:
    """Return the text of a variable, in whatever locale; empty where it isn't set."""
    try:
        return environ.get(variable, "").encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        raise SettingsError(f"{variable} is not UTF-8.") from None


def _merge_variable(sources: Sources, variable: str, environ: Mapping[str, str]) -> None:
    section, separator, key = variable.removeprefix(PREFIX).lower().partition("__")
    if not separator:
        if _SERVICE_LINK.fullmatch(variable):
            return
        raise SettingsError(
            f"{variable} is not a setting: variables are named LANTERN_SECTION__KEY, with two "
            "underscores between section and key."
        )
    text = _text_in(environ, variable)
    declared = DECLARED.get(section, {}).get(key)
    sources.set(section, key, declared.from_variable(text) if declared else text, variable)


def _merge_port(sources: Sources, text: str) -> None:
    """Listen at the port of a platform, and where it looks for it, unless the user says otherwise.

    A variable, it wins over the file; but Lantern's own variable, which is the more exact one, wins
    over it, and then it says nothing of the host either.
    """
    value = DECLARED["server"]["port"].from_variable(text)
    sources.set("server", "port", value, PORT_VARIABLE)
    if sources.is_default("server.host"):
        sources.set("server", "host", _EVERYWHERE, PORT_VARIABLE)


def _merge_found_model(sources: Sources) -> None:
    """Take the one model in ``./models`` in place of the example, where there is that directory.

    Raises `SettingsError` where it holds several, for nobody says which is meant.
    """
    directory = Path(MODELS)
    if not directory.is_dir() or directory.samefile(SHIPPED / MODELS):
        return
    found = models_below(directory)
    if len(found) > 1:
        raise SettingsError(
            f"There are several models in ./{MODELS}: {', '.join(map(str, found[:5]))}. Set "
            f"model.path to one of them (LANTERN_MODEL__PATH={found[0]}), or name those to serve "
            "in [models]."
        )
    path = readable(str(found[0] if found else directory))
    sources.set("model", "path", path, f"./{MODELS}")
