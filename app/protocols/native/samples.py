"""Samples in JSON: decoded into rows, or into the faults that they have.

A typed decoder reads the valid rows, and makes few objects of them. Only a row that it rejects is
read name by name; the number and the size of such rows are bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import islice
from operator import or_
from typing import Any, Literal

import msgspec
from msgspec import Raw
from msgspec.structs import astuple

from ...model.encoder import FeatureEncoder
from ...model.errors import MAX_FAULTS, BatchTooLarge, Fault, InvalidFeatures
from ...model.feature_faults import invalid_features
from ...model.features import Feature
from ...model.signature import Tensors
from .. import raw_json
from .rows import row_form

_WIDEST_STRUCT = 64
"""The most features of a row that is decoded as a Struct: msgspec searches for each name from the
position of the last one, which is quadratic if a caller sends them in another order."""
_MAX_ELEMENTS = 100_000
"""An array that may have more elements is counted before they are split."""
_MAX_READ_BY_NAME = 300
"""The most rows of a batch that are read name by name. A valid row is, only if it has a name twice,
the first time with an invalid value."""
_NOT_READ = f"is not read: {_MAX_READ_BY_NAME} rows before it name a feature twice; name each once"


def row_struct(encoder: FeatureEncoder) -> type[msgspec.Struct] | None:
    """Return the Struct of a row; None if the model has too many features, or a name to escape."""
    if encoder.width > _WIDEST_STRUCT:
        return None
    try:
        return msgspec.defstruct(
            "Row",
            [(f"f{index}", _type(feature)) for index, feature in enumerate(encoder.features)],
            rename={f"f{index}": name for index, name in enumerate(encoder.names)},
            forbid_unknown_fields=True,
            gc=False,
        )
    except ValueError:  # a name that would have to be escaped in JSON
        return None


_TYPES: Mapping[str, Any] = {
    "number": float,
    "integer": int | float,  # as an int, msgspec refuses 1e18
    "boolean": bool,
    "category": str,
}


def _type(feature: Feature) -> Any:
    return _TYPES[feature.kind] | None if feature.nullable else _TYPES[feature.kind]


class SampleReader:
    """Reads samples for the model of ``encoder``."""

    def __init__(self, encoder: FeatureEncoder) -> None:
        self._encoder = encoder
        self._max_commas = encoder.width + raw_json.MAX_COMMAS
        self._names = frozenset(encoder.names)
        self._of_text = frozenset(f.name for f in encoder.features if f.kind == "category")
        self._form = row_form(encoder)
        self._values = _values_decoder(encoder)

    def row(self, sample: Raw) -> Tensors:
        """Return one sample as a row, with NaN for null where that can be. Raises
        `InvalidFeatures`.
        """
        row = self._accept(sample)
        if row is not None:
            return self._form.join([row])
        if fault := self._oversize(sample, ()):
            raise invalid_features([fault])
        return self._encoder.encode(self._by_name(sample))

    def rows(self, samples: Raw, max_rows: int) -> Tensors:
        """Return an array of samples as rows, with NaN for null where that can be.

        Raises `BatchTooLarge`, and `InvalidFeatures` with the first faults, ordered by row.
        """
        given = split(samples, max_rows)
        rows: list[Any] = []
        faults: list[Fault] = []
        most = _MAX_READ_BY_NAME
        for first in range(0, len(given), MAX_FAULTS):
            some = dict(enumerate(given[first : first + MAX_FAULTS], first))
            rows += map(self._accept, some.values())
            others = [index for index in some if rows[index] is None]
            faults += self._read_by_name({index: some[index] for index in others[:most]}, rows)
            if not faults and len(others) > most:
                faults.append(Fault((others[most],), _NOT_READ))
            if len(faults) >= MAX_FAULTS or len(others) > most:
                break
            most -= len(others)
        if faults:
            raise invalid_features(faults[:MAX_FAULTS])
        return self._form.join(rows)

    def _accept(self, sample: Raw) -> Any:
        """Return the row of a sample, or None if it is invalid."""
        try:
            return self._form.row(self._values(sample))
        except (msgspec.MsgspecError, LookupError, OverflowError, ValueError):
            return None

    def _read_by_name(self, given: dict[int, Raw], rows: list[Any]) -> list[Fault]:
        """Return the faults of samples given by index; if there are none, set their ``rows``."""
        samples: dict[int, object] = {}
        faults: list[Fault] = []
        for index, row in given.items():
            fault = self._oversize(row, (index,))
            if fault:
                faults.append(fault)
                continue
            sample = samples[index] = self._by_name(row)
            if isinstance(sample, dict) and len(sample.keys() - self._names) >= MAX_FAULTS:
                break  # it alone has as many faults as are reported
        try:
            encoded = self._encoder.encode_batch(list(samples.values()))
        except InvalidFeatures as error:
            indices = list(samples)
            faults += [_at(indices, fault) for fault in error.faults]
            faults.sort(key=lambda fault: fault.path[0])
        else:
            for index, read in zip(samples, self._form.split(encoded), strict=True):
                rows[index] = read
        return faults

    def _by_name(self, sample: Raw) -> object:
        """Return a sample as a dictionary; of values that no feature takes, only their kind.

        Unknown names are limited to the number of faults that are reported.
        """
        if not raw_json.is_object(sample):
            return raw_json.outline(sample)
        members = raw_json.members(sample)
        unknown = islice((name for name in members if name not in self._names), MAX_FAULTS)
        wanted = self._names.union(unknown)
        return {
            name: (raw_json.text_or_outline if name in self._of_text else raw_json.outline)(value)
            for name, value in members.items()
            if name in wanted
        }

    def _oversize(self, sample: Raw, path: tuple[int, ...]) -> Fault | None:
        """Return a fault if a sample has far more members than features, without decoding them."""
        commas = raw_json.commas(sample)
        if commas <= self._max_commas or not raw_json.is_object(sample):
            return None
        width = self._encoder.width
        return Fault(
            path,
            f"has {commas:,} commas, too many to list its faults: a sample of this model has "
            f"{width:,} feature{'s' if width > 1 else ''}, so {width - 1:,}",
        )


def _at(indices: list[int], fault: Fault) -> Fault:
    """Return a fault with the index among all rows instead of that among ``indices``."""
    place, *inner = fault.path
    return replace(fault, path=(indices[int(place)], *inner))


def split(samples: Raw, max_rows: int) -> list[Raw]:
    """Return the elements of an array, at most ``max_rows``.

    Raises `BatchTooLarge`, and `InvalidFeatures` for the first element that is not an object if
    there may be very many.
    """
    if raw_json.commas(samples) >= _MAX_ELEMENTS:
        try:
            count = raw_json.count_objects(samples)
        except raw_json.NotAllObjects as error:
            raise invalid_features(
                [Fault((error.index,), "must be an object of feature names and values")]
            ) from None
        if count > max_rows:
            raise BatchTooLarge(count, max_rows)
    rows = raw_json.elements(samples)
    if len(rows) > max_rows:
        raise BatchTooLarge(len(rows), max_rows)
    return rows


def _values_decoder(encoder: FeatureEncoder) -> Callable[[Raw], Sequence[Any]]:
    """Return a decoder of valid samples, which returns their values in the features' order.

    It raises `msgspec.MsgspecError` or `LookupError` for an invalid sample.
    """
    row = row_struct(encoder)
    if row is not None:
        decode: Callable[[Raw], Any] = msgspec.json.Decoder(row).decode
        return lambda sample: astuple(decode(sample))
    kinds = {feature.kind for feature in encoder.features}
    value = reduce(or_, (_TYPES[kind] for kind in kinds)) | None
    decode = msgspec.json.Decoder(dict[Literal[encoder.names], value]).decode  # type: ignore[name-defined,valid-type]

    def values(sample: Raw) -> Sequence[Any]:
        found = encoder.columns(decode(sample))
        if not encoder.are_of_their_types(found):
            raise LookupError
        return found

    return values
