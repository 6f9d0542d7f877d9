"""The base of the schemas of request bodies: an object in JSON, whose members are decoded by their
fields alone, each within bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain, islice
from typing import Any, Self

from marshmallow import RAISE, Schema, ValidationError, pre_load
from marshmallow.fields import Field
from msgspec import Raw

from ...model.errors import MAX_FAULTS, InvalidFeatures
from .. import raw_json

MISSING: dict[str, Any] = {"required": "is missing", "null": "must not be null"}
"""The messages of a field without a value."""


class RequestSchema(Schema):
    """An object whose values are left to its fields to decode."""

    error_messages = {"type": "must be an object", "unknown": "is unknown"}  # noqa: RUF012

    class Meta:
        """An unknown member is an error."""

        unknown = RAISE

    @classmethod
    def of(cls, name: str, members: Mapping[str, Field[Any]]) -> Self:
        """Return a schema called ``name``, whose object has ``members``."""
        schema = cls.from_dict(dict(members), name=name)()
        assert isinstance(schema, cls)
        return schema

    @pre_load
    def _open(self, body: Raw, **kwargs: Any) -> object:
        """Return the members of the body: the known ones, and the first unknown ones."""
        if not raw_json.is_object(body):
            return raw_json.outline(body)
        of_known = sum(raw_json.commas_of_member(body, name) for name in self.fields)
        beside = raw_json.commas(body) - of_known
        if beside > raw_json.MAX_COMMAS:
            names = " and ".join(map(repr, self.fields))
            raise ValidationError(
                f"has {beside:,} commas outside {names}; no other member is expected"
            )
        members = raw_json.members(body)
        unknown = islice((name for name in members if name not in self.fields), MAX_FAULTS)
        return {
            name: None if raw_json.is_null(members[name]) else members[name]
            for name in chain(unknown, members.keys() & self.fields.keys())
        }

    def load_json(self, body: bytes) -> Any:
        """Return what `load` makes of ``body``. Raises `NotJson`, and what `load` raises."""
        return self.load_raw(raw_json.check(body))

    def load_raw(self, value: Raw) -> Any:
        """Return what `load` makes of a value that was checked. Raises as `load_json` does."""
        document: Any = value
        try:
            return self.load(document)
        except RecursionError:  # the check had more of the stack
            raise raw_json.NotJson(raw_json.NESTED_TOO_DEEPLY) from None
        except ValidationError as error:
            messages = error.messages
            # marshmallow's frames refer to their own error: the cycle would keep the document
            # until the next garbage collection.
            error.__traceback__ = None
        raise ValidationError(messages)


class SamplesField(Field[Any]):
    """Many samples: an array in JSON, and what ``read`` makes of it when loaded."""

    default_error_messages = {**MISSING, "type": "must be an array of samples"}  # noqa: RUF012

    def __init__(self, read: Callable[[Raw], Any]) -> None:
        super().__init__(required=True)
        self._read = read

    def _deserialize(self, value: Raw, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not raw_json.is_array(value):
            raise self.make_error("type")
        try:
            return self._read(value)
        except InvalidFeatures as error:
            raise ValidationError(list(error.faults)) from None
