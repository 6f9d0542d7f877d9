"""A setting's value: read as its type declares it, from TOML or from the text of a variable."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct, inspect

from ..documents.schema import SchemaError, read_as
from ..documents.text import to_path
from .declaration import ModelName, Settings, Text
from .errors import SettingsError

_PASSWORD = re.compile(r"(://[^/:]*:).*@|([?&]password=)[^&#]*", re.IGNORECASE)
"""In front of a host, or, as Redis also allows, in the query."""
_LONGEST_SHOWN = 200
_PathText = Annotated[str, Meta(min_length=1, description="a path")]


@dataclass(frozen=True, slots=True)
class SettingType:
    """The type of a setting: read by msgspec, and by the type's own parser."""

    type: Any
    form: inspect.Type
    parse: Callable[[str], str] | None = None

    @classmethod
    def of(cls, kind: Any) -> SettingType:
        form = inspect.type_info(kind)
        if isinstance(form, inspect.Metadata):
            return cls(kind, form.type, (form.extra or {}).get("parse"))
        return cls(kind, form)

    def read(self, value: object, base: Path) -> Any:
        """Return a value converted to the setting's type, with relative paths resolved from
        ``base``.

        Raises `ValueError`, whose message continues from the setting's name.
        """
        if isinstance(self.form, inspect.VarTupleType) and isinstance(value, list):
            return self._read_items(value, base)
        try:
            if self.type is Path:
                return _located(base, read_as(_PathText, value))
            read = read_as(self.type, value)
        except SchemaError as error:
            raise ValueError(error.requirement) from None
        if self.parse is None:
            return read
        try:
            return self.parse(read)
        except ValueError as error:
            raise ValueError(f"{error}.") from None

    def _read_items(self, values: list[object], base: Path) -> tuple[Any, ...]:
        item = SettingType.of(get_args(self.type)[0])
        read, faults = [], []
        for number, value in enumerate(values, 1):
            try:
                read.append(item.read(value, base))
            except ValueError as error:
                faults.append(f"Item {number}: {error}")
        if faults:
            raise ValueError(" ".join(faults))
        return tuple(read)

    @property
    def _may_be_a_list(self) -> bool:
        kinds = self.form.types if isinstance(self.form, inspect.UnionType) else ()
        return any(isinstance(kind, inspect.VarTupleType) for kind in kinds)

    def from_variable(self, text: str) -> Any:
        """Return a variable's text as a TOML value; `read` reports what doesn't fit."""
        if isinstance(self.form, inspect.StrType | inspect.LiteralType | inspect.CustomType):
            return text
        if isinstance(self.form, inspect.VarTupleType) and not text.lstrip().startswith("["):
            return [part.strip() for part in text.split(",") if part.strip()]
        is_boolean = isinstance(self.form, inspect.BoolType)
        if self._may_be_a_list:  # or true or false
            is_boolean = text.strip().lower() in ("true", "false")
            if not is_boolean and not text.lstrip().startswith("["):
                return [part.strip() for part in text.split(",") if part.strip()]
        try:
            document = tomllib.loads(f"value = {text.lower() if is_boolean else text}")
        except (ValueError, RecursionError):  # as in `read_toml`
            return text
        return document["value"] if len(document) == 1 else text


def _located(base: Path, text: str) -> Path:
    """Return a path relative to ``base``, unless it is absolute."""
    path = base / to_path(text)
    return path if path.is_absolute() else _current_directory() / path


def _current_directory() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise SettingsError(
            f"The current directory can't be used: {error.strerror}. It may have been deleted; "
            "change to another one."
        ) from None


SECTIONS: Mapping[str, type[Struct]] = {
    name: kind
    for name, kind in get_type_hints(Settings).items()
    if isinstance(kind, type) and issubclass(kind, Struct)
}
DECLARED: Mapping[str, Mapping[str, SettingType]] = {
    name: {field.name: SettingType.of(field.type) for field in msgspec.structs.fields(section)}
    for name, section in SECTIONS.items()
} | {"models": {}}
"""The settings by section; the keys of [models] are the user's own."""
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    name: msgspec.to_builtins(section(), enc_hook=str) for name, section in SECTIONS.items()
} | {"models": {}}
MODEL_KEY = SettingType.of(Annotated[Text, *get_args(ModelName)[1:]])
PATH = SettingType.of(Path)


def shown(value: object) -> str:
    """Return a value as text for a message."""
    try:
        text = repr(without_password(value) if isinstance(value, str) else value)
        return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
    except ValueError:  # for integers of thousands of digits, which base 16 can have
        return "a number of too many digits"


def without_password(text: str) -> str:
    """Return a value for display: a URL may contain a password."""
    return _PASSWORD.sub(lambda m: f"{m[1]}***@" if m[1] else f"{m[2]}***", text)
