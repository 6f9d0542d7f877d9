"""The steps of a bundle beside the preprocessing of the model's own library, on the samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..model.errors import BundleError, shown
from ..model.manifest import EXACT, Tolerance
from ..model.self_test import is_close, largest_difference
from ..model.signature import Tensors
from ..model.steps.declaration import Sample
from .material import Material

_SAME_PIXEL = Tolerance(relative=1e-5, absolute=1e-5)
"""The distance that a float may have from the library's: both compute in 32 bits, in another
order."""


def check_preprocessing(
    original: Callable[[Sequence[Sample]], Tensors], material: Material, path: Path
) -> None:
    """Raise `BundleError` unless the steps make of the samples what ``original`` makes of them.

    A pair is tried beside texts, which callers may send though no sample is one.
    """
    steps, samples = material.steps, list(material.raw)
    assert steps is not None  # only a model with steps has such an original
    places = list(material.sampled.places) if material.sampled is not None else []
    made = dict(material.golden)
    if steps.takes_text and not any(sample.pair for sample in samples):
        samples.append(Sample(samples[0].image, samples[0].text, samples[-1].text))
        places.append("a pair of the first and the last text")
        made = dict(steps.encode(samples))
    wanted = original(samples)
    for name, array in made.items():
        exact = array.dtype.kind != "f"
        for index, place in enumerate(places):
            ours, theirs = array[index], wanted[name][index]
            tolerance = EXACT if exact else _SAME_PIXEL
            if ours.shape == theirs.shape and is_close(ours, theirs, tolerance):
                continue
            by = largest_difference(ours, theirs)
            off = "" if by is None or exact else f", by up to {by:.2g}"
            raise BundleError(
                f"{path}: its own preprocessing can't be carried over: the steps make another "
                f"{shown(name)} of {place}{off}. Export the network, and pack that with steps of "
                "your own (--features)."
            )
