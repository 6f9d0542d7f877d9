"""The settings: ``config/default.toml``, then the file in ``LANTERN_CONFIG``, then variables.

Everything is checked here, once, at the start; the rest of the application reads typed values.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click
from marshmallow import RAISE, Schema, ValidationError, fields, validate

from .access.cors import is_origin
from .access.rate import IN_MEMORY, Rate, check_redis_url
from .http.prefix import parse_prefix
from .model.bundle import models_below
from .model.naming import NAME, NAME_FORM
from .model.runtime import RUNTIME_CHOICES, RuntimeChoice
from .model.suggestions import did_you_mean
from .model.text import NotUtf8, decode, readable, to_path
from .model.trial import TrialLimits

_PACKAGE = Path(__file__).resolve().parent
# In a checkout they are beside the package; a wheel has them inside.
SHIPPED = _PACKAGE if (_PACKAGE / "config").is_dir() else _PACKAGE.parent
"""The directory of ``config/default.toml`` and of the example model, which is only read."""
DEFAULT_FILE = SHIPPED / "config" / "default.toml"
MODELS = "models"
"""The directory in the current one whose model is served where the settings name none."""
PREFIX = "LANTERN_"
FILE_VARIABLE = "LANTERN_CONFIG"
KEY_VARIABLE = "LANTERN_API_KEY"
"""No setting: the key that the client and commands send to a service."""
PORT_VARIABLE = "PORT"
"""By which Heroku, Cloud Run and others say where they lead requests to."""
_EVERYWHERE = "0.0.0.0"  # noqa: S104 -- where such a platform looks for the service

_SCRIPT_NAME = "SCRIPT_NAME"
"""The variable by which Gunicorn is told the prefix."""

# Kubernetes adds these to every pod beside a Service called "lantern", or "lantern-something".
_SERVICE_LINK = re.compile(r"LANTERN_([A-Z0-9_]+_)?(SERVICE_(HOST|PORT\w*)|PORT(_\d+_\w+)?)")

_PASSWORD = re.compile(r"(://[^/:]*:).*@|([?&]password=)[^&#]*", re.IGNORECASE)
"""In front of a host, and, as Redis has it too, in the query."""


class SettingsError(click.ClickException):
    """Settings that can't be used; the message names each key, where it was set, and the fault."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    host: str
    port: int
    workers: int
    worker_class: str
    threads: int
    timeout_seconds: int
    graceful_timeout_seconds: int
    keepalive_seconds: int
    headers_timeout_seconds: float
    body_timeout_seconds: float
    drain_seconds: float
    fast_path: bool
    proxies: int
    prefix: str


@dataclass(frozen=True, slots=True)
class ModelSettings:
    path: Path
    name: str
    version: str
    runtime: RuntimeChoice
    device: str
    threads: int
    batch_rows: int
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]
    trial_seconds: float
    trial_memory_mb: int

    @property
    def trial_limits(self) -> TrialLimits:
        """What the trial of a file that nobody vouches for may take."""
        return TrialLimits(self.trial_seconds, self.trial_memory_mb)


@dataclass(frozen=True, slots=True)
class ReleaseSettings:
    poll_seconds: float
    routing_header: str


@dataclass(frozen=True, slots=True)
class CacheSettings:
    size: int


@dataclass(frozen=True, slots=True)
class LimitSettings:
    max_body_bytes: int
    max_held_bytes: int
    max_batch_size: int
    max_answer_values: int
    max_request_line_bytes: int
    max_header_fields: int
    max_header_field_bytes: int
    max_connections: int
    queue_budget_ms: int
    rate: str
    rate_storage: str


@dataclass(frozen=True, slots=True)
class AccessSettings:
    auth: str
    keys_file: Path
    open_metrics: bool
    open_docs: bool
    open_page: bool
    cors_origins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoggingSettings:
    format: str
    level: str
    features: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force; ``origins`` maps ``section.key`` to where its value came from.

    ``models`` has the paths of the models by the names that the settings give them; the name is
    empty for the one that its own files name. ``values`` are for people: passwords are left out of
    them.
    """

    server: ServerSettings
    model: ModelSettings
    models: Mapping[str, Path]
    release: ReleaseSettings
    cache: CacheSettings
    limits: LimitSettings
    access: AccessSettings
    logging: LoggingSettings
    values: Mapping[str, Any]
    origins: Mapping[str, str]

    @property
    def worker_class(self) -> str:
        """The worker class in force: "auto" is "gthread" for a model that needs several threads."""
        if self.server.worker_class != "auto":
            return self.server.worker_class
        needs_threads = self.model.device != "cpu" or self.model.batch_rows > 0
        return "gthread" if needs_threads else "keepalive"


class _Integer(fields.Integer):
    """An integer that is written as one: neither ``"1"`` nor ``true`` nor ``1.0``."""

    def _validated(self, value: Any) -> Any:
        if type(value) is not int:
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class _Number(fields.Float):
    def _validated(self, value: Any) -> Any:
        if type(value) not in (int, float):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class _Boolean(fields.Boolean):
    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


def _text(*choices: str) -> fields.String:
    check = validate.OneOf(choices) if choices else validate.Length(min=1)
    return fields.String(required=True, validate=check)


def _count(least: int, most: int | None = None) -> _Integer:
    return _Integer(required=True, validate=validate.Range(min=least, max=most))


def _seconds(most: float | None = None) -> _Number:
    return _Number(required=True, validate=validate.Range(min=0, max=most, min_inclusive=False))


_HEADER = validate.Regexp(
    r"(?!content-(type|length)\Z)[a-z0-9-]{1,64}\Z",
    flags=re.IGNORECASE,
    error="Must be the name of a header that callers are free to set.",
)
_DEVICE = validate.Regexp(r"(cpu|cuda(:[0-9]{1,3})?)\Z", error='Must be "cpu", "cuda" or "cuda:N".')


def _prefix(text: str) -> None:
    _checked(parse_prefix, text)


def _model_name(text: str) -> None:
    """Check a model's name, or that there is none."""
    if text and not NAME.fullmatch(text):
        raise ValidationError(f"A model's name must be {NAME_FORM}: it stands in URLs.")


def _rate(text: str) -> None:
    """Check a rate, or that there is none."""
    if text:
        _checked(Rate.parse, text)


def _rate_storage(text: str) -> None:
    if text != IN_MEMORY:
        _checked(check_redis_url, text)


def _checked(check: Callable[[str], object], text: str) -> None:
    """Have a `ValueError` of ``check``, which goes on from the setting's name, be its fault."""
    try:
        check(text)
    except ValueError as error:
        raise ValidationError(f"{str(error)[0].upper()}{str(error)[1:]}.") from None


def _origin(text: str) -> None:
    if text != "*" and not is_origin(text):
        raise ValidationError(
            f'{text!r} is not an origin: "*", or a scheme and a host as browsers write them, such '
            'as "https://shop.example:8443".'
        )


class _Section(Schema):
    class Meta:
        unknown = RAISE


class _Server(_Section):
    host = _text()
    port = _count(1, 65535)
    workers = _count(0)
    worker_class = _text("auto", "keepalive", "gthread", "sync")
    threads = _count(1, 1024)
    timeout_seconds = _count(1)
    graceful_timeout_seconds = _count(1)
    keepalive_seconds = _count(1)
    headers_timeout_seconds = _seconds()
    body_timeout_seconds = _seconds()
    drain_seconds = _Number(required=True, validate=validate.Range(min=0))
    fast_path = _Boolean(required=True)
    proxies = _count(0, 100)
    prefix = fields.String(required=True, validate=_prefix)


class _Model(_Section):
    path = _text()
    name = fields.String(required=True, validate=_model_name)
    version = fields.String(required=True)
    runtime = _text(*RUNTIME_CHOICES)
    device = fields.String(required=True, validate=_DEVICE)
    threads = _count(1, 1024)
    batch_rows = _count(0)
    feature_names = fields.List(_text(), required=True)
    class_names = fields.List(_text(), required=True)
    trial_seconds = _seconds(most=86400)
    trial_memory_mb = _count(256, 1 << 24)


class _Release(_Section):
    poll_seconds = _seconds(most=86400)
    routing_header = fields.String(required=True, validate=_HEADER)


class _Cache(_Section):
    size = _count(0)


class _Limits(_Section):
    max_body_bytes = _count(1)
    max_held_bytes = _count(1)
    max_batch_size = _count(1)
    max_answer_values = _count(1)
    max_request_line_bytes = _count(64, 8190)
    max_header_fields = _count(8, 32768)
    max_header_field_bytes = _count(64, 65536)
    max_connections = _count(1, 1_000_000)
    queue_budget_ms = _count(0, 86_400_000)
    rate = fields.String(required=True, validate=_rate)
    rate_storage = fields.String(required=True, validate=_rate_storage)


class _Access(_Section):
    auth = _text("auto", "keys", "none")
    keys_file = _text()
    open_metrics = _Boolean(required=True)
    open_docs = _Boolean(required=True)
    open_page = _Boolean(required=True)
    cors_origins = fields.List(fields.String(validate=_origin), required=True)


class _Logging(_Section):
    format = _text("json", "console")
    level = _text("DEBUG", "INFO", "WARNING", "ERROR")
    features = _Boolean(required=True)


class _Settings(_Section):
    server = fields.Nested(_Server, required=True)
    model = fields.Nested(_Model, required=True)
    models = fields.Dict(
        keys=fields.String(validate=[validate.Length(min=1), _model_name]),
        values=_text(),
        required=True,
    )
    release = fields.Nested(_Release, required=True)
    cache = fields.Nested(_Cache, required=True)
    limits = fields.Nested(_Limits, required=True)
    access = fields.Nested(_Access, required=True)
    logging = fields.Nested(_Logging, required=True)


_SCHEMA = _Settings()
_SECTIONS: dict[str, Mapping[str, Any]] = {
    name: field.schema.fields if isinstance(field, fields.Nested) else {}
    for name, field in _SCHEMA.fields.items()
}
"""The fields of each section; [models] has keys of the user's own."""


@cache
def settings_at_start() -> Settings:
    """Give the settings that this process began with, whatever their file says by now.

    A reload of Gunicorn (SIGHUP) reads its configuration again, in a process whose application was
    made once: with other settings the two would not fit, and with ones that can't be used the
    master would end. Raises `SettingsError`.
    """
    return load_settings()


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings in force, ``environ`` being the process's own unless one is given.

    Raises `SettingsError` for an unknown key, a wrong type, a value out of range or a file that
    can't be read.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    _merge(values, origins, _read_toml(DEFAULT_FILE), "default")
    bases = {"default": SHIPPED}
    if file := environ.get(FILE_VARIABLE):
        _merge(values, origins, _read_toml(Path(file)), readable(file))
        bases[readable(file)] = Path(file).parent
    if environ.get(_SCRIPT_NAME):
        _merge(values, origins, {"server": {"prefix": environ[_SCRIPT_NAME]}}, _SCRIPT_NAME)
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in (FILE_VARIABLE, KEY_VARIABLE):
            _merge_variable(values, origins, variable, environ[variable])
    if environ.get(PORT_VARIABLE) and origins["server.port"] not in environ:
        _merge_port(values, origins, environ[PORT_VARIABLE])
    if origins["model.path"] == "default" and not values["models"]:
        _merge_found_model(values, origins)
    try:
        checked = _SCHEMA.load(values)
    except ValidationError as error:
        raise SettingsError(_explain(error.messages_dict, values, origins)) from error
    server = checked["server"]
    if server["drain_seconds"] >= server["graceful_timeout_seconds"]:
        raise SettingsError(
            f"Setting server.drain_seconds ({origins['server.drain_seconds']}) must be less than "
            f"server.graceful_timeout_seconds, {server['graceful_timeout_seconds']}: a worker that "
            "drains for longer is killed."
        )
    limits = checked["limits"]
    if limits["max_held_bytes"] < limits["max_body_bytes"]:
        raise SettingsError(
            f"Setting limits.max_held_bytes ({origins['limits.max_held_bytes']}) is "
            f"{limits['max_held_bytes']}, and a body may have limits.max_body_bytes, "
            f"{limits['max_body_bytes']}: set it to at least that, and better to several of them."
        )
    if checked["models"]:
        for key in ("model.path", "model.name", "model.version"):
            if origins[key] != "default":
                raise SettingsError(
                    f"Setting {key} ({origins[key]}) is of a single model, and [models] names "
                    "those to serve: leave one of the two out."
                )
        _refuse_two_spellings(checked["models"], origins)
    return _typed(checked, origins, bases)


def _refuse_two_spellings(models: Iterable[str], origins: Mapping[str, str]) -> None:
    """Raise `SettingsError` for names that differ in case alone: variables, which have none, can't
    replace the entry of a file that they are meant for.
    """
    seen: dict[str, str] = {}
    for name in models:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise SettingsError(
                f"Settings models.{other} ({origins[f'models.{other}']}) and models.{name} "
                f"({origins[f'models.{name}']}) differ in case alone: write the name in small "
                "letters in both."
            )


def _typed(
    checked: Mapping[str, Any], origins: Mapping[str, str], bases: Mapping[str, Path]
) -> Settings:
    server = dict(checked["server"])
    server["prefix"] = parse_prefix(server["prefix"])
    model = dict(checked["model"])
    model["path"] = _located(model["path"], origins["model.path"], bases)
    for names in ("feature_names", "class_names"):
        model[names] = tuple(model[names])
    server["host"] = server["host"].removeprefix("[").removesuffix("]")  # as URLs have IPv6
    access = dict(checked["access"])
    access["keys_file"] = _located(
        access["keys_file"],
        origins["access.keys_file"],
        {**bases, "default": Path()},  # it is written
    )
    access["cors_origins"] = tuple(access["cors_origins"])
    return Settings(
        server=ServerSettings(**server),
        model=ModelSettings(**model),
        models={
            name: _located(path, origins[f"models.{name}"], bases)
            for name, path in checked["models"].items()
        }
        or {model["name"]: model["path"]},
        release=ReleaseSettings(**checked["release"]),
        cache=CacheSettings(**checked["cache"]),
        limits=LimitSettings(**checked["limits"]),
        access=AccessSettings(**access),
        logging=LoggingSettings(**checked["logging"]),
        values={
            f"{section}.{key}": _without_password(value)
            for section, content in checked.items()
            for key, value in content.items()
        },
        origins=origins,
    )


def _without_password(value: Any) -> Any:
    """Give a value as it may be shown: a URL may hold a password."""
    if not isinstance(value, str):
        return value
    return _PASSWORD.sub(lambda m: f"{m[1]}***@" if m[1] else f"{m[2]}***", value)


def _located(path: str, origin: str, bases: Mapping[str, Path]) -> Path:
    """Return a path that begins where ``origin`` says: at the directory of a file of settings, or
    at the current one.
    """
    return Path.cwd() / bases.get(origin, Path()) / to_path(path)


def _merge_found_model(values: dict[str, Any], origins: dict[str, str]) -> None:
    """Have the one model in ``./models`` in place of the example, where there is that directory.

    Raises `SettingsError` where it holds several, for nobody says which is meant.
    """
    directory = Path(MODELS)
    if not directory.is_dir() or directory.samefile(SHIPPED / MODELS):
        return
    found = models_below(directory)
    if len(found) > 1:
        raise SettingsError(
            f"There are several models in ./{MODELS}: {', '.join(map(str, found[:5]))}. Set "
            "model.path to one of them, or name those to serve in [models]."
        )
    values["model"]["path"] = readable(str(found[0] if found else directory))
    origins["model.path"] = f"./{MODELS}"


def _read_toml(path: Path) -> dict[str, Any]:
    name = readable(str(path))
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise SettingsError(
                f"The settings file {name} is not a regular file, and is read more than once: a "
                "pipe would be empty by then. Write the settings to a file."
            )
        return tomllib.loads(decode(path.read_bytes()))
    except OSError as error:
        raise SettingsError(f"The settings file {name} can't be read: {error.strerror}.") from error
    except NotUtf8 as error:
        raise SettingsError(f"The settings file {name} {error}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"The settings file {name} is not TOML: {error}.") from error


def _merge(
    values: dict[str, Any], origins: dict[str, str], document: Mapping[str, Any], origin: str
) -> None:
    for section, content in document.items():
        if not isinstance(content, dict):
            raise SettingsError(f"{origin}: {section!r} must stand in a section like [server].")
        values.setdefault(section, {})
        for key, value in content.items():
            values[section][key] = value
            origins[f"{section}.{key}"] = origin


def _merge_variable(
    values: dict[str, Any], origins: dict[str, str], variable: str, text: str
) -> None:
    section, separator, key = variable.removeprefix(PREFIX).lower().partition("__")
    if not separator:
        if _SERVICE_LINK.fullmatch(variable):
            return
        raise SettingsError(
            f"{variable} is not a setting: variables are named LANTERN_SECTION__KEY, with two "
            "underscores between section and key."
        )
    try:
        text = text.encode("utf-8", "surrogateescape").decode()  # whatever the locale has
    except UnicodeError:
        raise SettingsError(f"{variable} is not UTF-8.") from None
    field = _SECTIONS.get(section, {}).get(key)
    values.setdefault(section, {})[key] = _parse_variable(field, text)
    origins[f"{section}.{key}"] = variable


def _merge_port(values: dict[str, Any], origins: dict[str, str], text: str) -> None:
    """Listen at the port of a platform, and where it looks for it, unless the user says otherwise.

    A variable, it wins over the file; but Lantern's own variable, which is the more exact one, wins
    over it, and then it says nothing of the host either.
    """
    server = values["server"]
    server["port"] = _parse_variable(_SECTIONS["server"]["port"], text)
    origins["server.port"] = PORT_VARIABLE
    if origins["server.host"] == "default":
        server["host"] = _EVERYWHERE
        origins["server.host"] = PORT_VARIABLE


def _parse_variable(field: Any, text: str) -> Any:
    """Read a variable's text as the type of its setting, leaving what doesn't fit to the check."""
    if field is None or isinstance(field, fields.String):
        return text
    if isinstance(field, fields.List) and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        document = tomllib.loads(f"value = {text.lower() if isinstance(field, _Boolean) else text}")
    except tomllib.TOMLDecodeError:
        return text
    return document["value"] if len(document) == 1 else text


def _explain(
    messages: Mapping[str, Any], values: Mapping[str, Any], origins: Mapping[str, str]
) -> str:
    """Say each fault in a sentence that names the key and where it was set."""
    sentences = []
    for section, faults in messages.items():
        if section not in _SECTIONS:
            named = [f"{section}.{key}" for key in values[section]]
            keys = ", ".join(f"{name} ({origins[name]})" for name in named)
            used = f", used by {keys}" if keys else ""
            sentences.append(
                f"Unknown setting section {section!r}{used}{_hint(section, _SECTIONS)}"
            )
            continue
        for key, fault in faults.items():
            origin = origins.get(f"{section}.{key}", "missing")
            if section != "models" and key not in _SECTIONS[section]:
                hint = _hint(key, _SECTIONS[section])
                sentences.append(f"Unknown setting {section}.{key} ({origin}){hint}")
            else:
                value = _without_password(values.get(section, {}).get(key))
                sentences.append(f"Setting {section}.{key} = {value!r} ({origin}): {_flat(fault)}")
    return " ".join(sentences)


def _flat(fault: Any) -> str:
    if isinstance(fault, dict):
        return " ".join(_flat(part) for part in fault.values())
    return " ".join(str(part) for part in fault)


def _hint(name: str, known: Mapping[str, Any]) -> str:
    """End a sentence, with a guess at what was meant if there is one."""
    return did_you_mean(name, known) or "."
