"""Documents read as structs: the first place that doesn't fit is named, with what fits there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct, ValidationError, field
from msgspec.json import decode

from app.documents.schema import SchemaError, explain, read_as


class Part(Struct, forbid_unknown_fields=True):
    size: Annotated[int, Meta(ge=0, description="a number of bytes")]
    kind: Literal["a", "b"] = "a"
    weight: float | None = None


class Whole(Struct):
    name: Annotated[str, Meta(min_length=1)] = field(name="called")
    pairs: tuple[list[float], ...] = ()
    parts: dict[Annotated[str, Meta(pattern="^[a-z]+$", description="lower case")], Part] = {}
    rest: dict[str, Any] = {}


def test_a_document_that_fits_becomes_its_struct() -> None:
    document = {"called": "x", "pairs": [[1, 2.5]], "parts": {"a": {"size": 3}}, "else": 1}
    assert read_as(Whole, document) == Whole("x", ([1.0, 2.5],), {"a": Part(3)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"called": None}, "called must be a string that is not empty."),
        ({"called": ""}, "called must be a string that is not empty."),
        ({"pairs": 3}, "pairs must be an array."),
        ({"pairs": [[1], [1, None]]}, "pairs[1][1] must be a finite number."),
        ({"pairs": [[1], [True]]}, "pairs[1][0] must be a finite number."),
        ({"pairs": [[10**400]]}, "pairs[0][0] must be a finite number."),
        ({"parts": {"x": {}}}, "parts.x.size must be a number of bytes."),
        ({"parts": {"x": {"size": -1}}}, "parts.x.size must be a number of bytes."),
        ({"parts": {"x": {"size": 1, "kind": "c"}}}, "parts.x.kind must be one of 'a', 'b'."),
        ({"parts": {"x": {"size": 1, "weight": "1"}}}, "x.weight must be a finite number or null."),
        ({"parts": {"x": {"size": 1, "hue": 1}}}, "parts.x.hue must be left out."),
        ({"parts": {"../x": {"size": 1}}}, "parts.../x must be lower case."),
        ({"parts": {"X" * 5000: {"size": 1}}}, f"parts.{'X' * 80} must be lower case."),
        ({"parts": {"x": []}}, "parts.x must be an object."),
    ],
)
def test_the_first_fault_is_told_with_its_place(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SchemaError) as error:
        read_as(Whole, {"called": "x"} | change)
    assert str(error.value).endswith(said)


def test_a_member_that_is_missing_is_told_from_one_that_is_wrong() -> None:
    with pytest.raises(SchemaError) as missing:
        read_as(Whole, {})
    with pytest.raises(SchemaError) as wrong:
        read_as(Whole, {"called": 3})
    assert str(missing.value) == str(wrong.value)
    assert (missing.value.missing, wrong.value.missing) == (True, False)


def test_of_a_member_that_is_not_declared_those_that_are_can_be_told() -> None:
    with pytest.raises(SchemaError) as error:
        read_as(Part, {"size": 1, "king": "a"})
    assert (error.value.path, error.value.known) == (("king",), ("size", "kind", "weight"))


@pytest.mark.parametrize("value", [None, 3, [], "x"])
def test_a_document_of_another_kind_is_refused(value: object) -> None:
    with pytest.raises(SchemaError, match=r"^the document must be an object\.$"):
        read_as(Whole, value)


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (Annotated[int, Meta(ge=1, le=9)], 10, "x must be an integer from 1 to 9."),
        (Annotated[int, Meta(ge=1)], "1", "x must be an integer of at least 1."),
        (Annotated[int, Meta(ge=1, le=2**63 - 1)], 0, "x must be an integer of at least 1."),
        (Annotated[float, Meta(gt=0, le=9)], 0, "x must be a finite number greater than 0 and at"),
        (Annotated[float, Meta(le=9)], 10, "x must be a finite number of at most 9."),
        (Literal["canary", "shadow"], "shaddow", "'shadow'; did you mean 'shadow'?"),
        (Literal["canary", "shadow"], 3, "x must be one of 'canary', 'shadow'."),
    ],
)
def test_bounds_and_choices_are_told(kind: Any, value: object, said: str) -> None:
    with pytest.raises(SchemaError) as fault:
        read_as(kind, value, ("x",))
    assert said in str(fault.value)


class Named(Struct):
    name: str
    sizes: Annotated[list[Annotated[int, Meta(ge=0)]], Meta(max_length=3)] = []
    of: int | str | None = None


@pytest.mark.parametrize(
    ("text", "path", "wanted", "sent"),
    [
        ('[{"name": 1}]', (0, "name"), "a string", "an integer"),
        ('[{"name": "a"}, {"name": "a", "sizes": [1, -1]}]', (1, "sizes", 1), "of at least 0", ""),
        ('[{"name": "a", "sizes": [1, null]}]', (0, "sizes", 1), "of at least 0", "null"),
        ('[{"name": "a", "sizes": [1, 2, 3, 4]}]', (0, "sizes"), "an array of at most 3", ""),
        ('[{"name": "a", "of": []}]', (0, "of"), "an integer or a string or null", "an array"),
        ("{}", (), "an array", "an object"),
    ],
)
def test_what_msgspec_does_not_decode_is_explained(
    text: str, path: tuple[str | int, ...], wanted: str, sent: str
) -> None:
    with pytest.raises(ValidationError) as refusal:
        decode(text, type=list[Named])
    error = explain(list[Named], refusal.value)
    assert (error.path, error.sent, error.missing) == (path, sent, False)
    assert error.wanted.endswith(wanted)


def test_a_member_that_msgspec_misses_is_named() -> None:
    with pytest.raises(ValidationError) as refusal:
        decode('[{"sizes": []}]', type=list[Named])
    error = explain(list[Named], refusal.value)
    assert (error.path, error.missing) == ((0, "name"), True)
