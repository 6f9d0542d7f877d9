"""The settings: declared here, each with its type, bounds and default.

A value comes from the declaration, from the file in ``LANTERN_CONFIG`` or from a variable; the last
of them wins. Everything is checked once, at the start; the rest of the application reads typed
values. ``config/default.toml`` says what each setting means; a test holds it to the declaration.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import click
import msgspec
from msgspec import Meta, Struct, inspect

from .access.cors import is_origin
from .access.rate import IN_MEMORY, Rate, check_redis_url
from .documents.suggestions import did_you_mean
from .documents.text import readable, to_path
from .documents.toml import NotToml, read_toml
from .model.bundle import models_below
from .model.naming import NAME, NAME_FORM
from .model.runtime import RuntimeChoice
from .model.trial import TrialLimits

PACKAGE = Path(__file__).resolve().parent
"""Nothing in it is written to."""
# In a checkout they are beside the package; a wheel has them inside.
SHIPPED = PACKAGE if (PACKAGE / "config").is_dir() else PACKAGE.parent
"""The directory of ``config/default.toml`` and of the example model, which is only read."""
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


def _host(text: str) -> str:
    return text.removeprefix("[").removesuffix("]")  # as URLs have IPv6


# Nothing that a browser, a shell or HTML reads in another way, and no dot segments: it is written
# into pages and redirects. Percent-encoded characters could become any of that.
_PATH_PREFIX = re.compile(r"(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._~@:+=-]+)*")
_MAX_PATH_PREFIX = 200


def parse_prefix(text: str) -> str:
    """Return ``text`` as a path prefix: empty for none, else without a slash at its end.

    Raises `ValueError`, whose message goes on from the name of what holds the prefix.
    """
    if len(text) > _MAX_PATH_PREFIX:
        raise ValueError(f"has {len(text)} characters, at most {_MAX_PATH_PREFIX} are accepted")
    prefix = text.removesuffix("/")
    if not _PATH_PREFIX.fullmatch(prefix):
        raise ValueError(
            f"{text!a} is not an absolute path such as '/lantern': segments of letters, digits and "
            "._~@:+=- behind one slash each, none of them '.' or '..'"
        )
    return prefix


def _device(text: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", text):
        raise ValueError('must be "cpu", "cuda" or "cuda:N"')
    return text


def _header(text: str) -> str:
    if not re.fullmatch(r"(?!(?i:content-(type|length))\Z)[A-Za-z0-9-]{1,64}", text):
        raise ValueError("must be the name of a header that callers are free to set")
    return text


def _model_name(text: str) -> str:
    if text and not NAME.fullmatch(text):
        raise ValueError(f"a model's name must be {NAME_FORM}: it stands in URLs")
    return text


def _rate(text: str) -> str:
    if text:
        Rate.parse(text)
    return text


def _rate_storage(text: str) -> str:
    if text != IN_MEMORY:
        check_redis_url(text)
    return text


def _origin(text: str) -> str:
    if text != "*" and not is_origin(text):
        raise ValueError(
            f'{text!r} is not an origin: "*", or a scheme and a host as browsers write them, such '
            'as "https://shop.example:8443"'
        )
    return text


def _parsed_by(parse: Callable[[str], str]) -> Meta:
    """Have ``parse`` read a text; its `ValueError` goes on from the setting's name."""
    return Meta(extra={"parse": parse})


_MAX_FILE_BYTES = 1 << 20
_LARGEST = sys.float_info.max
_LARGEST_INTEGER = 2**63 - 1
_LONGEST_SHOWN = 200
Text = Annotated[str, Meta(min_length=1)]
Seconds = Annotated[float, Meta(gt=0, le=_LARGEST)]
UpToADay = Annotated[float, Meta(gt=0, le=86400)]
AtLeastZero = Annotated[int, Meta(ge=0, le=_LARGEST_INTEGER)]
AtLeastOne = Annotated[int, Meta(ge=1, le=_LARGEST_INTEGER)]
Threads = Annotated[int, Meta(ge=1, le=1024)]
ModelName = Annotated[str, _parsed_by(_model_name)]


class ServerSettings(Struct, frozen=True):
    host: Annotated[Text, _parsed_by(_host)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535)] = 8000
    workers: AtLeastZero = 0
    worker_class: Literal["auto", "keepalive", "gthread", "sync"] = "auto"
    threads: Threads = 4
    timeout_seconds: AtLeastOne = 30
    graceful_timeout_seconds: AtLeastOne = 30
    keepalive_seconds: AtLeastOne = 75
    headers_timeout_seconds: Seconds = 10
    body_timeout_seconds: Seconds = 30
    drain_seconds: Annotated[float, Meta(ge=0, le=_LARGEST)] = 0
    fast_path: bool = True
    proxies: Annotated[int, Meta(ge=0, le=100)] = 0
    prefix: Annotated[str, _parsed_by(parse_prefix)] = ""


class ModelSettings(Struct, frozen=True):
    path: Path = Path("models/campaign-response")
    name: ModelName = ""
    version: str = ""
    runtime: RuntimeChoice = "auto"
    device: Annotated[str, _parsed_by(_device)] = "cpu"
    threads: Threads = 1
    batch_rows: AtLeastZero = 0
    feature_names: tuple[Text, ...] = ()
    class_names: tuple[Text, ...] = ()
    trial_seconds: UpToADay = 60
    trial_memory_mb: Annotated[int, Meta(ge=256, le=1 << 24)] = 4096

    @property
    def trial_limits(self) -> TrialLimits:
        """What the trial of a file that nobody vouches for may take."""
        return TrialLimits(self.trial_seconds, self.trial_memory_mb)


class ReleaseSettings(Struct, frozen=True):
    poll_seconds: UpToADay = 2
    routing_header: Annotated[str, _parsed_by(_header)] = "X-Routing-Key"


class CacheSettings(Struct, frozen=True):
    size: AtLeastZero = 0


class LimitSettings(Struct, frozen=True):
    max_body_bytes: AtLeastOne = 8 << 20
    max_held_bytes: AtLeastOne = 256 << 20
    max_batch_size: AtLeastOne = 10_000
    max_answer_values: AtLeastOne = 1_000_000
    max_request_line_bytes: Annotated[int, Meta(ge=64, le=8190)] = 4094
    max_header_fields: Annotated[int, Meta(ge=8, le=32768)] = 100
    max_header_field_bytes: Annotated[int, Meta(ge=64, le=65536)] = 8190
    max_connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    queue_budget_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 500
    rate: Annotated[str, _parsed_by(_rate)] = ""
    rate_storage: Annotated[str, _parsed_by(_rate_storage)] = IN_MEMORY


class AccessSettings(Struct, frozen=True):
    auth: Literal["auto", "keys", "none"] = "auto"
    keys_file: Path = Path("config/keys.json")
    open_metrics: bool = False
    open_docs: bool = False
    open_page: bool = False
    cors_origins: tuple[Annotated[str, _parsed_by(_origin)], ...] = ()


class LoggingSettings(Struct, frozen=True):
    format: Literal["json", "console"] = "json"
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    features: bool = False


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


_WORDS: Mapping[type, tuple[str, tuple[type, ...]]] = {
    inspect.IntType: ("integer", (int,)),
    inspect.FloatType: ("number", (int, float)),
    inspect.BoolType: ("boolean", (bool,)),
    inspect.VarTupleType: ("list", (list,)),
}
"""What a type is called, and the types of TOML that it takes; all others take strings."""


@dataclass(frozen=True, slots=True)
class _Declared:
    """What a setting takes, as its type says it: read by msgspec, and by the type's own parser."""

    type: Any
    form: inspect.Type
    parse: Callable[[str], str] | None = None

    @classmethod
    def by(cls, kind: Any) -> _Declared:
        form = inspect.type_info(kind)
        if isinstance(form, inspect.Metadata):
            return cls(kind, form.type, (form.extra or {}).get("parse"))
        return cls(kind, form)

    def read(self, value: object, base: Path) -> Any:
        """Return a value as the setting has it, a relative path beginning at ``base``.

        Raises `ValueError` with a sentence.
        """
        if isinstance(self.form, inspect.VarTupleType) and isinstance(value, list):
            return self._read_items(value, base)
        try:
            read = msgspec.convert(value, self.type, dec_hook=partial(_located, base))
        except msgspec.ValidationError:
            raise ValueError(self._fault(value)) from None
        if self.parse is None:
            return read
        try:
            return self.parse(read)
        except ValueError as error:
            raise ValueError(f"{str(error)[0].upper()}{str(error)[1:]}.") from None

    def _read_items(self, values: list[object], base: Path) -> tuple[Any, ...]:
        item = _Declared.by(get_args(self.type)[0])
        read, faults = [], []
        for number, value in enumerate(values, 1):
            try:
                read.append(item.read(value, base))
            except ValueError as error:
                faults.append(f"Item {number}: {error}")
        if faults:
            raise ValueError(" ".join(faults))
        return tuple(read)

    def _fault(self, value: object) -> str:
        """Return what is wrong with a value that msgspec refuses, whose words are for programs."""
        name, types = _WORDS.get(type(self.form), ("string", (str,)))
        if type(value) not in types:
            return f"Not a valid {name}."
        if isinstance(self.form, inspect.LiteralType):
            return f"Must be one of: {', '.join(map(str, get_args(self.type)))}."
        if isinstance(self.form, inspect.IntType | inspect.FloatType):
            return _out_of_range(self.form, value)
        return "Shorter than minimum length 1."

    def from_variable(self, text: str) -> Any:
        """Return a variable's text as TOML would have it, leaving what doesn't fit to `read`."""
        if isinstance(self.form, inspect.StrType | inspect.LiteralType | inspect.CustomType):
            return text
        if isinstance(self.form, inspect.VarTupleType) and not text.lstrip().startswith("["):
            return [part.strip() for part in text.split(",") if part.strip()]
        is_boolean = isinstance(self.form, inspect.BoolType)
        try:
            document = tomllib.loads(f"value = {text.lower() if is_boolean else text}")
        except (ValueError, RecursionError):  # as `read_toml` has it
            return text
        return document["value"] if len(document) == 1 else text


def _out_of_range(form: inspect.IntType | inspect.FloatType, value: Any) -> str:
    if isinstance(form, inspect.FloatType) and not abs(value) <= _LARGEST:  # NaN fails, too
        return "Must be a finite number."
    of_its_own = form.le not in (_LARGEST, _LARGEST_INTEGER) or value > form.le
    bounds = {
        "greater than": form.gt,
        "greater than or equal to": form.ge,
        "less than or equal to": form.le if of_its_own else None,
    }
    said = (f"{words} {bound}" for words, bound in bounds.items() if bound is not None)
    return f"Must be {' and '.join(said)}."


def _located(base: Path, _: type, text: object) -> Path:
    """Return a path that begins at ``base``, unless it is absolute."""
    return Path.cwd() / base / to_path(msgspec.convert(text, Text))


_SECTIONS: Mapping[str, type[Struct]] = {
    name: kind
    for name, kind in get_type_hints(Settings).items()
    if isinstance(kind, type) and issubclass(kind, Struct)
}
_DECLARED: Mapping[str, Mapping[str, _Declared]] = {
    name: {field.name: _Declared.by(field.type) for field in msgspec.structs.fields(section)}
    for name, section in _SECTIONS.items()
} | {"models": {}}
"""The settings by section; the keys of [models] are the user's own."""
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    name: msgspec.to_builtins(section(), enc_hook=str) for name, section in _SECTIONS.items()
} | {"models": {}}
_MODEL_KEY = _Declared.by(Annotated[Text, _parsed_by(_model_name)])
_PATH = _Declared.by(Path)


@cache
def settings_at_start() -> Settings:
    """Return the settings that this process began with, whatever their file says by now.

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
    bases: dict[str, Path] = {}
    _merge(values, origins, _DEFAULTS, "default")
    if file := environ.get(FILE_VARIABLE):
        _merge(values, origins, _read_toml(Path(file)), readable(file))
        bases[readable(file)] = Path(file).parent
    if prefix := _text_in(environ, _SCRIPT_NAME):
        _merge(values, origins, {"server": {"prefix": prefix}}, _SCRIPT_NAME)
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in (FILE_VARIABLE, KEY_VARIABLE):
            _merge_variable(values, origins, variable, environ)
    if origins["server.port"] not in environ and (port := _text_in(environ, PORT_VARIABLE)):
        _merge_port(values, origins, port)
    if origins["model.path"] == "default" and not values["models"]:
        _merge_found_model(values, origins)
    settings = _settings(values, origins, bases)
    _check_together(settings)
    return settings


def _settings(
    values: Mapping[str, Mapping[str, Any]],
    origins: Mapping[str, str],
    bases: Mapping[str, Path],
) -> Settings:
    """Return the settings that ``values`` are; ``bases`` are the directories of files, by origin.

    Raises `SettingsError`, which tells each fault.
    """
    read: dict[str, dict[str, Any]] = {section: {} for section in _DECLARED}
    shown: dict[str, Any] = {}
    faults = []
    for section, content in values.items():
        if section not in _DECLARED:
            faults.append(_unknown_section(section, content, origins))
            continue
        for key, value in content.items():
            name = f"{section}.{key}"
            origin = origins[name]
            declared = _PATH if section == "models" else _DECLARED[section].get(key)
            if declared is None:
                hint = did_you_mean(key, _DECLARED[section]) or "."
                faults.append(f"Unknown setting {name} ({origin}){hint}")
                continue
            is_example = name == "model.path" and origin == "default"
            base = SHIPPED if is_example else bases.get(origin, Path())
            try:
                if section == "models":
                    _MODEL_KEY.read(key, base)
                read[section][key] = typed = declared.read(value, base)
            except ValueError as fault:
                faults.append(f"Setting {name} = {_shown(value)} ({origin}): {fault}")
            else:
                shown[name] = _without_password(value) if isinstance(value, str) else typed
    if faults:
        raise SettingsError(" ".join(faults))
    sections: dict[str, Any] = {name: kind(**read[name]) for name, kind in _SECTIONS.items()}
    model = sections["model"]
    models = read["models"] or {model.name: model.path}
    return Settings(**sections, models=models, values=shown, origins=origins)


def _unknown_section(section: str, content: Iterable[str], origins: Mapping[str, str]) -> str:
    names = (f"{section}.{key}" for key in content)
    keys = ", ".join(f"{name} ({origins[name]})" for name in names)
    used = f", used by {keys}" if keys else ""
    hint = did_you_mean(section, _DECLARED) or "."
    return f"Unknown setting section {section!r}{used}{hint}"


def _check_together(settings: Settings) -> None:
    """Raise `SettingsError` for settings that don't go with each other."""
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
            f"{limits.max_held_bytes}, and a body may have limits.max_body_bytes, "
            f"{limits.max_body_bytes}: set it to at least that, and better to several of them."
        )
    names = [name.removeprefix("models.") for name in origins if name.startswith("models.")]
    for key in ("model.path", "model.name", "model.version"):
        if names and origins[key] != "default":
            raise SettingsError(
                f"Setting {key} ({origins[key]}) is of a single model, and [models] names "
                "those to serve: leave one of the two out."
            )
    _refuse_two_spellings(names, origins)


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


def _shown(value: object) -> str:
    """Return a value as it may stand in a message."""
    try:
        text = repr(_without_password(value) if isinstance(value, str) else value)
        return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
    except ValueError:  # Python writes no integer of thousands of digits; in base 16 it reads them
        return "a number of too many digits"


def _without_password(text: str) -> str:
    """Return a value as it may be shown: a URL may hold a password."""
    return _PASSWORD.sub(lambda m: f"{m[1]}***@" if m[1] else f"{m[2]}***", text)


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
            f"model.path to one of them (LANTERN_MODEL__PATH={found[0]}), or name those to serve "
            "in [models]."
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
        return read_toml(path, _MAX_FILE_BYTES)
    except OSError as error:
        raise SettingsError(f"The settings file {name} can't be read: {error.strerror}.") from error
    except NotToml as error:
        raise SettingsError(f"The settings file {name} {error}") from error


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


def _text_in(environ: Mapping[str, str], variable: str) -> str:
    """Return the text of a variable, in whatever locale; empty where it isn't set."""
    try:
        return environ.get(variable, "").encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        raise SettingsError(f"{variable} is not UTF-8.") from None


def _merge_variable(
    values: dict[str, Any], origins: dict[str, str], variable: str, environ: Mapping[str, str]
) -> None:
    section, separator, key = variable.removeprefix(PREFIX).lower().partition("__")
    if not separator:
        if _SERVICE_LINK.fullmatch(variable):
            return
        raise SettingsError(
            f"{variable} is not a setting: variables are named LANTERN_SECTION__KEY, with two "
            "underscores between section and key."
        )
    text = _text_in(environ, variable)
    declared = _DECLARED.get(section, {}).get(key)
    values.setdefault(section, {})[key] = declared.from_variable(text) if declared else text
    origins[f"{section}.{key}"] = variable


def _merge_port(values: dict[str, Any], origins: dict[str, str], text: str) -> None:
    """Listen at the port of a platform, and where it looks for it, unless the user says otherwise.

    A variable, it wins over the file; but Lantern's own variable, which is the more exact one, wins
    over it, and then it says nothing of the host either.
    """
    server = values["server"]
    server["port"] = _DECLARED["server"]["port"].from_variable(text)
    origins["server.port"] = PORT_VARIABLE
    if origins["server.host"] == "default":
        server["host"] = _EVERYWHERE
        origins["server.host"] = PORT_VARIABLE
