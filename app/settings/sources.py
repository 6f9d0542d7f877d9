"""The sources of settings, each overriding those before it: defaults, file, variables, command
line.

This module doesn't interpret values: it records them, and where each came from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..documents.suggestions import closest
from ..documents.text import readable
from ..documents.toml import NotToml, read_toml
from .collected import Collected
from .errors import SettingsError
from .found import find_models
from .values import DECLARED, DEFAULTS

PREFIX = "LANTERN_"
FILE_VARIABLE = "LANTERN_CONFIG"
KEY_VARIABLE = "LANTERN_API_KEY"
"""Not a setting: the key that the client and commands send to a service."""
PORT_VARIABLE = "PORT"
"""The variable by which Heroku, Cloud Run and others set the port."""
_EVERYWHERE = "0.0.0.0"  # noqa: S104 -- where such a platform looks for the service
_SCRIPT_NAME = "SCRIPT_NAME"
"""The variable from which Gunicorn reads the prefix."""
ARGUMENTS = {
    "model.allow_code": "--allow-code",
    "model.name": "--name",
    "model.path": "MODEL",
    "server.host": "--host",
    "server.port": "--port",
    "server.workers": "--workers",
}
"""The settings that `lantern serve` takes on its command line, and their names there."""
_MAX_FILE_BYTES = 1 << 20

# Kubernetes adds these to every pod beside a Service called "lantern", or "lantern-something".
_SERVICE_LINK = re.compile(r"LANTERN_([A-Z0-9_]+_)?(SERVICE_(HOST|PORT\w*)|PORT_\d+_\w+)")
_SERVICE_URL = re.compile(r"[a-z]+://.*")
"""The value of LANTERN_PORT, or of LANTERN_SOMETHING_PORT, of such a Service."""
_WITH_ONE_UNDERSCORE = {
    f"{section}_{key}": f"{PREFIX}{section.upper()}__{key.upper()}"
    for section, keys in DECLARED.items()
    for key in keys
}


def collect(environ: Mapping[str, str], arguments: Mapping[str, Any]) -> Collected:
    """Return the values of all sources; see `ARGUMENTS`. Raises `SettingsError`."""
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
    _merge_arguments(collected, arguments)
    port = _text_in(environ, PORT_VARIABLE)
    if port and collected.origins["server.port"] not in (*environ, *ARGUMENTS.values()):
        _merge_port(collected, port)
    if collected.is_default("model.path") and not collected.values["models"]:
        find_models(collected)
    return collected


def _read_file(path: Path) -> dict[str, Any]:
    name = readable(str(path))
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise SettingsError(
                f"The settings file {name} is not a regular file. It is read more than once, so it "
                "can't be a pipe: write the settings to a file."
            )
        return read_toml(path, _MAX_FILE_BYTES)
    except OSError as error:
        raise SettingsError(f"The settings file {name} can't be read: {error.strerror}.") from error
    except NotToml as error:
        raise SettingsError(f"The settings file {name} {error}") from error


def _text_in(environ: Mapping[str, str], variable: str) -> str:
    """Return the text of a variable, in any locale; empty if it isn't set."""
    try:
        return environ.get(variable, "").encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        raise SettingsError(f"{variable} is not UTF-8.") from None


def _merge_variable(collected: Collected, variable: str, environ: Mapping[str, str]) -> None:
    section, separator, key = variable.removeprefix(PREFIX).lower().partition("__")
    if not separator:
        if not _is_service_link(variable, environ):
            raise SettingsError(_not_a_setting(variable))
        return
    text = _text_in(environ, variable)
    declared = DECLARED.get(section, {}).get(key)
    collected.set(section, key, declared.from_variable(text) if declared else text, variable)


def _is_service_link(variable: str, environ: Mapping[str, str]) -> bool:
    if variable.endswith("PORT") and not variable.endswith("SERVICE_PORT"):
        return _SERVICE_URL.fullmatch(environ[variable]) is not None
    return _SERVICE_LINK.fullmatch(variable) is not None


def _not_a_setting(variable: str) -> str:
    meant = closest(variable.removeprefix(PREFIX).lower(), _WITH_ONE_UNDERSCORE)
    hint = f"; did you mean {_WITH_ONE_UNDERSCORE[meant]}?" if meant else "."
    return (
        f"{variable} is not a setting: variables are named LANTERN_SECTION__KEY, with two "
        f"underscores between section and key{hint}"
    )


def _merge_arguments(collected: Collected, arguments: Mapping[str, Any]) -> None:
    """Set the values of the command line; a model there replaces all that the settings name."""
    if "model.path" in arguments:
        for name in collected.values["models"]:
            del collected.origins[f"models.{name}"]
        collected.values["models"] = {}
        for key in ("name", "version"):
            collected.set("model", key, DEFAULTS["model"][key], "default")
    for name, value in arguments.items():
        section, _, key = name.partition(".")
        collected.set(section, key, value, ARGUMENTS[name])


def _merge_port(collected: Collected, text: str) -> None:
    """Listen on the port of a platform, and on all interfaces, unless the user says otherwise.

    As a variable, PORT overrides the file; but Lantern's own variable, which is more specific,
    overrides PORT, which then doesn't affect the host either.
    """
    value = DECLARED["server"]["port"].from_variable(text)
    collected.set("server", "port", value, PORT_VARIABLE)
    if collected.is_default("server.host"):
        collected.set("server", "host", _EVERYWHERE, PORT_VARIABLE)
