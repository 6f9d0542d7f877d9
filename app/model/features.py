"""Features: the named columns that a model expects, as its manifest describes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from .signature import FEATURES, TensorName

FLOAT32_OVERFLOW = float(2**128 - 2**103)
"""The smallest magnitude that rounds to infinity as float32 (IEEE 754, round half to even)."""
BF16_OVERFLOW = float(2**128 - 2**119 - 2**103)
"""The same as float32, and then as BF16."""
MAX_CATEGORIES = 10_000
"""The most values of a category that a manifest lists."""

Kind = Literal["number", "integer", "boolean", "category"]
Name = Annotated[str, Meta(min_length=1)]
Number = Annotated[
    float,
    Meta(
        gt=-FLOAT32_OVERFLOW,
        lt=FLOAT32_OVERFLOW,
        description="a number that is finite as a 32-bit float",
    ),
]
Value = Annotated[
    bool | int | Number | str,
    Meta(description="a number that is finite as a 32-bit float, a string, or true or false"),
]
"""A value that a client sends for a feature, null apart."""
_NullAs = Annotated[bool | int | str, Meta(description="an integer, a string, or true or false")]
_Categories = Annotated[
    tuple[str, ...],
    Meta(
        max_length=MAX_CATEGORIES,
        description=f"an array of at most {MAX_CATEGORIES:,} strings",
    ),
]


class DescribedColumn(Struct, frozen=True):
    """A feature as a manifest of any format describes it.

    ``minimum`` and ``maximum`` are the range seen in training (informative, not enforced), in
    ``unit``.
    """

    name: Name
    description: str = ""
    unit: str = ""
    minimum: Number | None = None
    maximum: Number | None = None
    nullable: bool = False


class Feature(DescribedColumn, frozen=True):
    """One named input of a model; ``example`` is a typical value, shown to people.

    Its values are a column of the input ``tensor``: the one at the index ``column``, or all of the
    tensor where that is None. A category is one of ``categories``: its string where the tensor
    holds strings, else its position among them. ``unknown`` says what happens to any other string:
    the request is refused, or it is passed on to a network that knows what to do. Where the tensor
    can't hold NaN, a null becomes ``null_as``.
    """

    example: Value | None = None
    kind: Kind = "number"
    tensor: TensorName = FEATURES
    column: Annotated[int, Meta(ge=0)] | None = None
    categories: _Categories = ()
    unknown: Literal["refuse", "pass"] = "refuse"
    null_as: _NullAs | None = None

    @property
    def has_range(self) -> bool:
        """Return False if minimum and maximum are given, and no value lies between them."""
        return self.minimum is None or self.maximum is None or self.minimum <= self.maximum


def in_one_matrix(features: Sequence[Feature]) -> tuple[Feature, ...]:
    """Return ``features`` as the columns of the one matrix that a model takes, in their order."""
    return tuple(
        replace(feature, tensor=FEATURES, column=index) for index, feature in enumerate(features)
    )
