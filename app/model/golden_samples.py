"""The samples of golden data: how images and texts are arrays of its file.

``image_0``, ``image_1``, ... are the bytes of the images, ``text_0``, ... the texts, and
``pair_0``, ... what belongs to those that are pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from .errors import BundleError
from .signature import Array
from .steps.declaration import IMAGE, PAIR, TEXT, Sample, Step, members_of


def arrays_of(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return ``samples`` as arrays by their names in the file.

    Raises `BundleError` for a text that an array of numpy's can't hold.
    """
    arrays: dict[str, Any] = {}
    for index, sample in enumerate(samples):
        if sample.image is not None:
            arrays[f"{IMAGE}_{index}"] = np.frombuffer(sample.image, np.uint8)
        for member, text in ((TEXT, sample.text), (PAIR, sample.pair)):
            if text is not None:
                arrays[f"{member}_{index}"] = np.array(text)
                if arrays[f"{member}_{index}"].item() != text:
                    raise BundleError("A golden text can't end with a null character.")
    return arrays


def take_samples(arrays: dict[str, Array], steps: tuple[Step, ...], path: Path) -> list[Sample]:
    """Remove the samples for ``steps`` from ``arrays``, which were read from ``path``, and return
    them. Raises `BundleError`.
    """
    members = members_of(steps)
    samples: list[Sample] = []
    for index in count():
        if f"{members[0]}_{index}" not in arrays:
            break
        image, text, pair = (arrays.pop(f"{name}_{index}", None) for name in (IMAGE, TEXT, PAIR))
        for array, member, of_bytes in ((image, IMAGE, True), (text, TEXT, False)):
            if (array is not None) != (member in members):
                raise _unlike(path, f"{member}_{index}")
            if array is not None and not _is(array, of_bytes=of_bytes):
                raise _unlike(path, f"{member}_{index}")
        if pair is not None and not (text is not None and _is(pair, of_bytes=False)):
            raise _unlike(path, f"{PAIR}_{index}")
        samples.append(
            Sample(
                None if image is None else image.tobytes(),
                None if text is None else str(text.item()),
                None if pair is None else str(pair.item()),
            )
        )
    return samples


def _is(array: Array, *, of_bytes: bool) -> bool:
    if of_bytes:
        return array.ndim == 1 and array.dtype == np.uint8
    return array.ndim == 0 and array.dtype.kind == "U"


def _unlike(path: Path, name: str) -> BundleError:
    return BundleError(
        f"{path}: {name} must be there for each step and no other: an image as UINT8 of one "
        "dimension, a text as a string. Pack the model again."
    )
