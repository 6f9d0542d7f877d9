"""Rows: run a model that takes a certain number of samples at once on any number of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..model.errors import BundleError, shown
from ..model.signature import Tensors, select_rows


@dataclass(frozen=True, slots=True)
class Rows:
    """The numbers of rows that a model takes: ``least`` to ``most``, None for any number.

    ``inputs`` and ``outputs`` are the names of the tensors whose first dimension is the rows.
    """

    inputs: frozenset[str]
    outputs: frozenset[str]
    least: int
    most: int | None


def run_in_parts(run: Callable[[Tensors], Tensors], rows: Rows | None, tensors: Tensors) -> Tensors:
    """Return what ``run`` answers to ``tensors``, with as many calls as their rows require.

    Too few rows are repeated until they are enough. Raises `BundleError` if that changes outputs
    that don't have one row for each sample.
    """
    counts = {len(tensors[name]) for name in rows.inputs} if rows else set()
    if rows is None or len(counts) != 1:
        return run(tensors)
    (total,) = counts
    if total and rows.least <= total <= (rows.most or total):
        return run(tensors)
    size = rows.most or max(total, rows.least)
    answers = [_run_part(run, rows, tensors, start, size) for start in range(0, total, size)]
    if not answers:
        raise BundleError("can't be run on no rows.")
    return {
        name: np.concatenate([answer[name] for answer in answers]) for name in sorted(rows.outputs)
    }


def _run_part(
    run: Callable[[Tensors], Tensors], rows: Rows, tensors: Tensors, start: int, size: int
) -> Tensors:
    count = min(size, len(tensors[min(rows.inputs)]) - start)
    part = dict(tensors)
    for name in rows.inputs:
        given = tensors[name][start : start + count]
        missing = max(rows.least, count) - count
        part[name] = np.concatenate([given, np.repeat(given[-1:], missing, axis=0)])
    answer = run(part)
    lone = next((name for name in answer if name not in rows.outputs), None)
    if lone is not None:
        limit = f"{rows.least:,}" if rows.least == rows.most else f"{rows.least:,} to {rows.most:,}"
        raise BundleError(
            f"takes {limit} rows at once, and its output {shown(lone)} doesn't have one for each; "
            "export it for any number of rows."
        )
    return select_rows(answer, slice(count))
