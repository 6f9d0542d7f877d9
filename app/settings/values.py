"""A setting's value: read as its type declares it, from TOML or from the text of a variable."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import msgspec
from msgspec import Struct, inspect

from ..documents.text import to_path
from .declaration import LARGEST, LARGEST_INTEGER, ModelName, Settings, Text
from .errors import SettingsError

_PASSWORD = re.compile(r"(://[^/:]*:).*@|([?&]password=)[^&#]*", re.IGNORECASE)
"""In front of a host, and, as Redis has it too, in the query."""
_LONGEST_SHOWN = 200

_WORDS: Mapping[type, tuple[str, tuple[type, ...]]] = {
    inspect.IntType: ("integer", (int,)),
    inspect.FloatType: ("number", (int, float)),
    inspect.BoolType: ("boolean", (bool,)),
    inspect.VarTupleType: ("list", (list,)),
}
"""What a type is called, and the types of TOML that it takes; all others take strings."""


@dataclass(frozen=True, slots=True)
class SettingType:
    """What a setting takes, as its type says it: read by msgspec, and by the type's own parser."""

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
    if isinstance(form, inspect.FloatType) and not abs(value) <= LARGEST:  # NaN fails, too
        return "Must be a finite number."
    of_its_own = form.le not in (LARGEST, LARGEST_INTEGER) or value > form.le
    bounds = {
        "greater than": form.gt,
        "greater than or equal to": form.ge,
        "less than or equal to": form.le if of_its_own else None,
    }
    said = (f"{words} {bound}" for words, bound in bounds.items() if bound is not None)
    return f"Must be {' and '.join(said)}."


def _located(base: Path, _: type, text: object) -> Path:
    """Return a path that begins at ``base``, unless it is absolute."""
    path = base / to_path(msgspec.convert(text, Text))
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
    """Return a value as it may stand in a message."""
    try:
        text = repr(without_password(value) if isinstance(value, str) else value)
        return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
    except ValueError:  # Python writes no integer of thousands of digits; in base 16 it reads them
        return "a number of too many digits"


def without_password(text: str) -> str:
    """Return a value as it may be shown: a URL may hold a password."""
    return _PASSWORD.sub(lambda m: f"{m[1]}***@" if m[1] else f"{m[2]}***", text)
