"""The self-test: whether a network answers its golden data as it did when it was packed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from time import perf_counter

import numpy as np

from .errors import BundleError, shown
from .golden import Golden
from .manifest import EXACT, Manifest, Tolerance
from .runtime import Runtime
from .signature import Array, Tensors, row_at, row_count
from .tasks import Task

_OTHER_DEVICE = 10.0
"""Tolerances are so many times as large on a device other than the CPU, which sums in another
order."""

MOST_ALONE = 1000
"""The golden rows that are run alone at most: packing writes far fewer."""
_TIMED_RUNS = 5
_TIMED_SECONDS = 0.1
"""One row is run as many times at most to time it, unless this is exceeded before."""
_SHOWN = 5
"""The outputs that differ at most that one message names."""


def runs_of(manifest: Manifest, golden: Golden) -> Iterator[Golden]:
    """Yield what to run of the golden data: all of it, then each row alone where there are rows,
    the first `MOST_ALONE` of them.
    """
    yield golden
    if manifest.batch:
        yield from (golden.row(index) for index in range(min(golden.rows, MOST_ALONE)))


def seconds_of_a_row(runtime: Runtime, inputs: Tensors, *, has_rows: bool, enough: float) -> float:
    """Return how long the network takes for the first row of ``inputs``, or for all of them where
    they have no rows: the least of a few runs, the first that took less than ``enough`` seconds.
    """
    if has_rows and row_count(inputs):
        inputs = row_at(inputs, 0)
    least, spent = float("inf"), 0.0
    for _ in range(_TIMED_RUNS):
        began = perf_counter()
        runtime.run(inputs)
        taken = perf_counter() - began
        least, spent = min(least, taken), spent + taken
        if least < enough or spent > _TIMED_SECONDS:
            break
    return least


def check_answer(
    manifest: Manifest, task: Task, outputs: Tensors, wanted: Golden, device: str = "cpu"
) -> None:
    """Raise `BundleError` unless ``outputs`` are what was packed, within the tolerances."""
    task.check(outputs)
    faults = [*islice(_faults(manifest, outputs, wanted.outputs, device), _SHOWN)]
    if faults:
        called = "samples" if manifest.features else "data"
        raise BundleError(
            f"The answers to the golden {called} differ from those when the model was packed: "
            f"{'; '.join(faults)}. So this model can't be served."
        )


def _faults(manifest: Manifest, outputs: Tensors, wanted: Tensors, device: str) -> Iterator[str]:
    for spec in manifest.outputs:
        found, expected = outputs[spec.name], wanted[spec.name]
        tolerance = manifest.tolerance(spec.name)
        if device != "cpu":
            tolerance = Tolerance(
                tolerance.relative * _OTHER_DEVICE, tolerance.absolute * _OTHER_DEVICE
            )
        if found.shape != expected.shape:
            shapes = f"{list(found.shape)}, not {list(expected.shape)}"
            yield f"{shown(spec.name)} has the shape {shapes}"
        elif not is_close(found, expected, tolerance):
            largest = largest_difference(found, expected)
            by = "" if largest is None else f" by up to {largest:.2g}"
            allowed = f" ({tolerance_text(tolerance)} is allowed)" if by else ""
            yield f"{shown(spec.name)} differs{by}{allowed}"


def tolerance_text(tolerance: Tolerance) -> str:
    """Return a tolerance in words."""
    absolute, relative = (f"{value:g}" for value in (tolerance.absolute, tolerance.relative))
    return f"{absolute} + {relative} of its size" if tolerance.relative else absolute


def is_close(found: Array, expected: Array, tolerance: Tolerance) -> bool:
    """Return True if two arrays of one shape are the same within ``tolerance``, NaN for NaN.

    What is no number must be equal, and so must whole numbers where no tolerance is stated.
    """
    is_exact = expected.dtype.kind in "iu" and tolerance == EXACT
    if is_exact or expected.dtype.kind not in "fiu":  # float64 doesn't hold every INT64
        return bool(np.array_equal(found, expected))
    return bool(
        np.allclose(
            found.astype(np.float64),
            expected.astype(np.float64),
            rtol=tolerance.relative,
            atol=tolerance.absolute,
            equal_nan=True,
        )
    )


def largest_difference(found: Array, expected: Array) -> float | None:
    """Return the largest difference of two arrays, of numbers that are finite in both.

    None where shapes or values can't be compared so.
    """
    if found.shape != expected.shape or expected.dtype.kind not in "fiub":
        return None
    one, other = found.astype(np.float64), expected.astype(np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    if not np.isfinite(one[~same]).all():
        return None
    return float(np.abs(one[~same] - other[~same]).max(initial=0.0))
