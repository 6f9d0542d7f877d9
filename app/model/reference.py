"""The reference of a model: how the samples that it was packed with were distributed.

Pack writes it, for watching drift and explaining answers; it is a file of the bundle, hashed as the
others, and never part of a response.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
import orjson
from msgspec import Struct

from .errors import BundleError, first_line

FILE_NAME = "reference.json"
LARGEST_FILE = 64 << 20


class Histogram(Struct, frozen=True):
    """``counts[i]`` values lie from ``edges[i]`` up to ``edges[i + 1]``, the last edge included."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class FeatureReference(Struct, frozen=True, omit_defaults=True):
    """The values of a feature: those of numbers by deciles, of others by how often each was.

    ``others`` counts the values that aren't listed, and ``nulls`` the nulls.
    """

    nulls: int = 0
    deciles: Histogram | None = None
    values: dict[str, int] = {}
    others: int = 0


class CalibrationBin(Struct, frozen=True):
    """Answers of about the same probability: how many, their mean, and how often it came true."""

    count: int
    mean_probability: float
    frequency: float


class Background(Struct, frozen=True):
    """Rows that stand for the samples, each for ``weights[i]`` of them.

    They are centroids of clusters, or real rows where the owner asked for them.
    """

    kind: Literal["centroids", "rows"]
    rows: tuple[dict[str, Any], ...]
    weights: tuple[int, ...]


class Reference(Struct, frozen=True, omit_defaults=True):
    """``samples`` rows: each feature's values, each column of the answers, and the background.

    ``calibration`` has bins for each class or label, where the samples say what was true.
    """

    samples: int
    features: dict[str, FeatureReference]
    answers: dict[str, Histogram]
    background: Background
    calibration: dict[str, tuple[CalibrationBin, ...]] = {}


def read_reference(path: Path) -> Reference:
    """Read a reference. Raises `BundleError`."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise BundleError(f"{path} exceeds the limit of {LARGEST_FILE:,} bytes.")
        return msgspec.json.decode(path.read_bytes(), type=Reference)
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror or error}.") from error
    except msgspec.MsgspecError as error:
        raise BundleError(f"{path} is no reference: {first_line(error)}.") from error


def write_reference(reference: Reference, path: Path) -> None:
    """Write ``reference`` to ``path``; `read_reference` returns the same."""
    path.write_bytes(orjson.dumps(msgspec.to_builtins(reference)))
