"""The self-test: whether a network answers its golden data as it did when it was packed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from time import perf_counter

import numpy as np

from .errors import BundleError, InvalidSamples, RowsTooLarge, shown
from .golden import Golden
from .manifest import EXACT, Manifest, Tolerance
from .runtime import Runtime
from .signature import Array, Tensors, row_at, row_count
from .steps.encoder import StepEncoder
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


_SAME_VALUE = Tolerance(relative=1e-5, absolute=1e-5)
"""The distance that a float which the steps make may have from the one that was packed."""


def runs_of(
    manifest: Manifest, golden: Golden, steps: StepEncoder | None = None
) -> Iterator[Golden]:
    """Yield what to run of the golden data: all of it, then each row alone where there are rows,
    the first `MOST_ALONE` of them.

    With ``steps`` the samples are made into rows again, and each alone as callers send it, without
    the padding that a longer one brings. Raises `BundleError` if they become other rows than those
    that were packed.
    """
    if steps is not None:
        check_steps(manifest, golden, steps)
    yield golden
    for index in range(min(golden.rows, MOST_ALONE) if manifest.batch else 0):
        row = golden.row(index)
        if steps is not None and not _varies(manifest):
            row = Golden(steps.encode(row.samples), row.outputs, row.samples)
        yield row


def _varies(manifest: Manifest) -> bool:
    """Return True if outputs may have another shape for a row that is alone."""
    return any(-1 in spec.shape[1:] for spec in manifest.outputs)


def check_steps(manifest: Manifest, golden: Golden, steps: StepEncoder) -> None:
    """Raise `BundleError` unless ``steps`` make of the golden samples the rows that were packed."""
    try:
        rows = steps.encode(golden.samples)
    except (InvalidSamples, RowsTooLarge) as error:
        raise BundleError(f"The golden samples are refused: {error}") from error
    for spec in manifest.inputs:
        found, wanted = rows[spec.name], golden.inputs[spec.name]
        if found.shape != wanted.shape or not is_close(found, wanted, _tolerance_of(found)):
            largest = largest_difference(found, wanted)
            by = "" if largest is None else f" by up to {largest:.2g}"
            raise BundleError(
                f"The steps make another {shown(spec.name)} of the golden samples than when the "
                f"model was packed{by}: is it another version of Pillow or tokenizers? So this "
                "model can't be served."
            )


def _tolerance_of(rows: Array) -> Tolerance:
    return _SAME_VALUE if rows.dtype.kind == "f" else EXACT


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
        called = "samples" if manifest.takes_samples else "data"
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
