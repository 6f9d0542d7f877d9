"""Samples in JSON: decoded into rows, or into the faults that they have.

A typed decoder reads the valid rows, and makes few objects of them. Only a row that it rejects is
read name by name; the number and the size of such rows are bounded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from math import nan
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import Raw
from msgspec.structs import astuple
from numpy.typing import NDArray

from ...model.errors import MAX_FAULTS, BatchTooLarge, Fault, InvalidFeatures
from ...model.features import Feature, FeatureEncoder, invalid_features
from .. import raw_json

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


def _type(feature: Feature) -> Any:
    return float | None if feature.nullable else float


class SampleReader:
    """Reads samples for the model of ``encoder``."""

    def __init__(self, encoder: FeatureEncoder) -> None:
        self._encoder = encoder
        self._max_commas = encoder.width + raw_json.MAX_COMMAS
        self._names = frozenset(encoder.names)
        self._pack = struct.Struct(f"={encoder.width}f").pack
        self._values = _values_decoder(encoder)

    def row(self, sample: Raw) -> NDArray[np.float32]:
        """Return the row ``(1, width)`` of one sample, with NaN for null.

        Raises `InvalidFeatures`.
        """
        packed = self._accept(sample)
        if packed is not None:
            return self._matrix([packed])
        if fault := self._oversize(sample, ()):
            raise invalid_features([fault])
        return self._encoder.encode(self._by_name(sample))

    def matrix(self, samples: Raw, max_rows: int) -> NDArray[np.float32]:
        """Return the rows ``(n, width)`` of an array of samples, with NaN for null.

        Raises `BatchTooLarge`, and `InvalidFeatures` with the first faults, ordered by row.
        """
        rows = _split(samples, max_rows)
        packed: list[bytes | None] = []
        faults: list[Fault] = []
        most = _MAX_READ_BY_NAME
        for first in range(0, len(rows), MAX_FAULTS):
            some = dict(enumerate(rows[first : first + MAX_FAULTS], first))
            packed += map(self._accept, some.values())
            others = [index for index in some if packed[index] is None]
            faults += self._read_by_name({index: some[index] for index in others[:most]}, packed)
            if not faults and len(others) > most:
                faults.append(Fault((others[most],), _NOT_READ))
            if len(faults) >= MAX_FAULTS or len(others) > most:
                break
            most -= len(others)
        if faults:
            raise invalid_features(faults[:MAX_FAULTS])
        return self._matrix(packed)

    def _accept(self, sample: Raw) -> bytes | None:
        """Return the row of a sample as packed float32, or None if it is invalid."""
        try:
            # Rounds to float32 as numpy does, and raises for what rounds to infinity.
            return self._pack(*self._values(sample))
        except (msgspec.MsgspecError, LookupError, OverflowError):
            return None

    def _read_by_name(self, rows: dict[int, Raw], packed: list[bytes | None]) -> list[Fault]:
        """Return the faults of rows given by index; if there are none, set them in ``packed``."""
        samples: dict[int, object] = {}
        faults: list[Fault] = []
        for index, row in rows.items():
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
            for index, row in zip(samples, encoded, strict=True):
                packed[index] = row.tobytes()
        return faults

    def _by_name(self, sample: Raw) -> object:
        """Return a sample as a dictionary; of values that are not numbers, only their kind.

        Unknown names are limited to the number of faults that are reported.
        """
        if not raw_json.is_object(sample):
            return raw_json.outline(sample)
        members = raw_json.members(sample)
        unknown = islice((name for name in members if name not in self._names), MAX_FAULTS)
        wanted = self._names.union(unknown)
        return {name: raw_json.outline(members[name]) for name in members if name in wanted}

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

    def _matrix(self, packed: list[bytes | None]) -> NDArray[np.float32]:
        joined = bytearray().join(row for row in packed if row is not None)
        return np.frombuffer(joined, dtype=np.float32).reshape(len(packed), self._encoder.width)


def _at(indices: list[int], fault: Fault) -> Fault:
    """Return a fault with the index among all rows instead of that among ``indices``."""
    place, *inner = fault.path
    return replace(fault, path=(indices[int(place)], *inner))


def _split(samples: Raw, max_rows: int) -> list[Raw]:
    """Return the elements of an array, at most ``max_rows``.

    Raises `BatchTooLarge`, and `InvalidFeatures` for the first element that is not an object if
    there may be very many.
    """
    if raw_json.commas(samples) >= _MAX_ELEMENTS:
        try:
            count = raw_json.count_objects(samples)
        except raw_json.NotAllObjects as error:
            raise invalid_features(
                [Fault((error.index,), "must be an object of feature names and numbers")]
            ) from None
        if count > max_rows:
            raise BatchTooLarge(count, max_rows)
    rows = raw_json.elements(samples)
    if len(rows) > max_rows:
        raise BatchTooLarge(len(rows), max_rows)
    return rows


def _values_decoder(encoder: FeatureEncoder) -> Callable[[Raw], Sequence[float]]:
    """Return a decoder of valid samples, which returns their values in the features' order.

    It raises `msgspec.MsgspecError` or `LookupError` for an invalid sample.
    """
    row = row_struct(encoder)
    if row is not None:
        decode: Callable[[Raw], Any] = msgspec.json.Decoder(row).decode
        return lambda sample: _with_nan(astuple(decode(sample)))
    decode = msgspec.json.Decoder(dict[Literal[encoder.names], float | None]).decode  # type: ignore[name-defined]
    solid = [feature.name for feature in encoder.features if not feature.nullable]

    def values(sample: Raw) -> Sequence[float]:
        by_name = decode(sample)
        found = encoder.columns(by_name)
        if None in found and any(by_name[name] is None for name in solid):
            raise LookupError
        return _with_nan(found)

    return values


def _with_nan(values: Sequence[float | None]) -> Sequence[float]:
    if None in values:
        return [nan if value is None else value for value in values]
    return values  # type: ignore[return-value]
