"""The material of packing beside the file: the inputs as they are served, and samples of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from ..model.encoder import FeatureEncoder
from ..model.errors import BundleError, InvalidSamples, RowsTooLarge, listed
from ..model.features import Feature
from ..model.signature import Array, Tensors, TensorSpec, row_at, row_count, select_rows
from ..model.steps.checks import faults_of_steps
from ..model.steps.declaration import Sample
from ..model.steps.encoder import StepEncoder
from .description import ModelDescription
from .examples import SUFFIXES, read_example, row_of_ones
from .made_texts import long_text, made_texts
from .placement import placed
from .samples import GOLDEN_ROWS, column_names, read_samples, spread, with_ranges
from .step_samples import StepSamples, made_samples, read_step_samples

_REFERRED_ROWS = 10_000
"""The most rows of the samples that the reference describes."""
_TRIED_ROWS = 1000
"""The most rows of the samples that are tried on the original and on the bundle."""


@dataclass(frozen=True)
class Material:
    """The ``inputs`` as they are served, the ``features`` in their columns or the ``steps`` that
    make them, if there are any, and ``samples`` of them.

    ``medians`` (input -> a value for each column, NaN where null is kept) replace null in front of
    the model. ``lines`` are those of the samples in their file, where it is a CSV. ``sampled`` is
    what the steps made the samples of.
    """

    inputs: tuple[TensorSpec, ...]
    features: tuple[Feature, ...]
    samples: Tensors
    lines: tuple[int, ...]
    path: Path
    medians: Mapping[str, Array]
    notes: tuple[str, ...] = ()
    steps: StepEncoder | None = None
    sampled: StepSamples | None = None
    longest: Tensors | None = None

    @property
    def has_rows(self) -> bool:
        """True if each sample is a row: of features, or made by steps."""
        return bool(self.features) or self.steps is not None

    @property
    def raw(self) -> tuple[Sample, ...]:
        """The images and texts that the golden rows were made of; none of other models."""
        return () if self.sampled is None else self.sampled.samples

    @property
    def more(self) -> tuple[Tensors, ...]:
        """More rows on which the original and what is served are compared: as long a text as the
        model takes.
        """
        return () if self.longest is None else (self.longest,)

    def alone(self, index: int) -> Tensors:
        """Return a golden row as it is when its sample is sent alone, without padding."""
        if self.steps is None:
            return row_at(self.golden, index)
        return self.steps.encode(self.raw[index : index + 1])

    @cached_property
    def encoder(self) -> FeatureEncoder:
        """The encoder of a model with features."""
        return FeatureEncoder(self.features, self.inputs)

    @cached_property
    def tried(self) -> Tensors:
        """The samples to compare on, at most `_TRIED_ROWS` where there are rows."""
        return self._spread(_TRIED_ROWS)

    @cached_property
    def golden(self) -> Tensors:
        """The samples that become golden data."""
        return self._spread(GOLDEN_ROWS)

    def _spread(self, most: int) -> Tensors:
        if not self.features:
            return self.samples
        return select_rows(self.samples, spread(row_count(self.samples), most))

    def place_of_tried(self, index: int) -> str:
        """Return which of the samples a row of `tried` is, in words."""
        if self.sampled is not None:
            return self.sampled.places[index]
        place = int(spread(row_count(self.samples), _TRIED_ROWS)[index])
        if self.lines:
            return f"line {self.lines[place]} of {self.path.name}"
        return f"row {place} of the samples"

    def referred(self) -> tuple[Tensors, list[int]]:
        """Return the samples of which the reference is made, and their places among all."""
        chosen = spread(row_count(self.samples), _REFERRED_ROWS)
        return select_rows(self.samples, chosen), chosen.tolist()

    def filled(self, rows: Tensors) -> Tensors:
        """Return ``rows`` with null replaced as in front of the model."""
        return {
            name: np.where(np.isnan(array), self.medians[name].astype(array.dtype), array)
            if name in self.medians
            else array
            for name, array in rows.items()
        }


def gather(
    description: ModelDescription,
    samples: Path | None,
    inputs: Sequence[TensorSpec],
    *,
    truth: str = "",
) -> Material:
    """Read the samples of a model with ``inputs``; without any, make a row of ones.

    Their column ``truth`` is none of the features. Raises `BundleError` and OSError.
    """
    if description.steps:
        return _made_by_steps(description, samples, inputs, truth)
    if samples is None:
        return Material(tuple(inputs), (), row_of_ones(inputs), (), Path("an example of ones"), {})
    features, stated = description.features, description.stated_of_each()
    notes: tuple[str, ...] = ()
    is_table = samples.suffix not in SUFFIXES
    if not features:
        if not is_table:
            example = read_example(samples, inputs)
            return Material(tuple(inputs), (), example, (), samples, {})
        features = _named_by_header(samples, inputs, truth)
        stated = tuple(frozenset[str]() for _ in features)
        notes = (f"The features are the columns of {samples.name}, in their order.",)
    found, served = placed(features, stated, inputs)
    encoder = FeatureEncoder(found, served)
    if is_table:
        read = read_samples(samples, encoder)
        rows, lines = read.rows, read.lines
    else:
        rows, lines = read_example(samples, served), ()
    try:
        described = with_ranges(encoder, rows)
    except BundleError as error:
        raise BundleError(f"{samples}: {error}") from None
    medians = _medians(encoder, description.medians)
    return Material(served, described, rows, lines, samples, medians, notes)


def _made_by_steps(
    description: ModelDescription, path: Path | None, inputs: Sequence[TensorSpec], truth: str
) -> Material:
    """Return the material of a model whose inputs are made by steps. Raises `BundleError`."""
    served = tuple(replace(spec, shape=(-1, *spec.shape[1:])) for spec in inputs)
    for fault in faults_of_steps(description.steps, served):
        raise BundleError(fault)
    encoder = StepEncoder(
        description.steps, served, lambda name: description.files[name].read_bytes()
    )
    if path is None:
        sampled = made_samples(encoder.members, lambda: made_texts(description))
    else:
        sampled = read_step_samples(path, encoder.members, truth)
    try:
        rows = encoder.encode(sampled.samples)
    except InvalidSamples as error:
        index, member = error.faults[0].path[:2]
        place = sampled.places[int(index)]
        raise BundleError(f"{place}: the {member} {error.faults[0].detail}.") from None
    except RowsTooLarge as error:
        raise BundleError(f"{path or 'The example'}: {error}") from None
    called, longest = path or Path("an example"), _longest(description, encoder, sampled)
    return Material(
        inputs=served,
        features=(),
        samples=rows,
        lines=(),
        path=called,
        medians={},
        notes=sampled.notes,
        steps=encoder,
        sampled=sampled,
        longest=longest,
    )


def _longest(
    description: ModelDescription, encoder: StepEncoder, sampled: StepSamples
) -> Tensors | None:
    """Return a row of a text that is as long as one may be; None of other models."""
    text = long_text(description)
    return None if text is None else encoder.encode([Sample(sampled.samples[0].image, text)])


def _named_by_header(
    samples: Path, inputs: Sequence[TensorSpec], truth: str
) -> tuple[Feature, ...]:
    """Return features that are called as the columns of a CSV file, ``truth`` apart.

    Raises `BundleError` unless they are those that the model takes.
    """
    names = [name for name in column_names(samples) if name != truth]
    if len(inputs) > 1:
        missing = [spec.name for spec in inputs if spec.name not in names]
        if missing:
            raise BundleError(
                f"{samples} has no column {listed(missing)}, which the model takes as an input: "
                "name the columns as the inputs, or describe the features (--features)."
            )
        return tuple(Feature(spec.name) for spec in inputs)
    (only,) = inputs
    width = only.shape[1] if len(only.shape) == 2 else 1
    if width not in (-1, len(names)):
        raise BundleError(
            f"The model takes {width} columns, and {samples.name} has {len(names)}: "
            f"{listed(names)}. Leave the others out of it, or name the features, in their order, "
            "in a features file (--features)."
        )
    return tuple(Feature(name) for name in names)


def _medians(encoder: FeatureEncoder, medians: Mapping[str, float]) -> Mapping[str, Array]:
    """Return the medians by tensor, NaN where null is kept."""
    by_tensor = {}
    for columns in encoder.tensors:
        if any(feature.name in medians for feature in columns.features):
            if columns.dtype.kind != "f":
                raise BundleError(
                    f"median replaces null in inputs of floats, and {columns.spec.name!r} is "
                    f"{columns.spec.datatype}; say null_as instead."
                )
            values = [medians.get(feature.name, np.nan) for feature in columns.features]
            by_tensor[columns.spec.name] = np.array(values, dtype=columns.dtype)
    return by_tensor
