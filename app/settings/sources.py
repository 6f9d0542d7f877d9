"""Where settings come from, each source over those before it: defaults, file, variables, platform.

What a value means is no concern of this module: it notes the values and where each came from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..documents.text import readable
from ..documents.toml import NotToml, read_toml
from .collected import Collected
from .errors import SettingsError
from .found import find_models
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


def collect(environ: Mapping[str, str]) -> Collected:
    """Return what all sources say. Raises `SettingsError`."""
    collected = Collected()
    collected.merge(DEFAULTS, "default")
    if file := environ.get(FILE_VARIABLE):
        collected.merge(_read_file(Path(file)), readable(file))
        collected.bases[readable(file)] = Path(file).parent
    if prefix := _text_in(environ, _SCRIPT_NAME):
        collected.set("server", "prefix", prefix, _SCRIPT_NAME)
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in (FILE_VARIABLE, KEY_VARIABLE):
            _merge_variable(collected, variable, environ)
    port = _text_in(environ, PORT_VARIABLE)
    if port and collected.origins["server.port"] not in environ:
        _merge_port(collected, port)
    if collected.is_default("model.path") and not collected.values["models"]:
        find_models(collected)
    return collected


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


def _merge_variable(collected: Collected, variable: str, environ: Mapping[str, str]) -> None:
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
    collected.set(section, key, declared.from_variable(text) if declared else text, variable)


def _merge_port(collected: Collected, text: str) -> None:
    """Listen at the port of a platform, and where it looks for it, unless the user says otherwise.

    A variable, it wins over the file; but Lantern's own variable, which is the more exact one, wins
    over it, and then it says nothing of the host either.
    """
    value = DECLARED["server"]["port"].from_variable(text)
    collected.set("server", "port", value, PORT_VARIABLE)
    if collected.is_default("server.host"):
        collected.set("server", "host", _EVERYWHERE, PORT_VARIABLE)
