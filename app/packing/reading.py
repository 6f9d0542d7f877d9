"""Reading a user's model, whatever its file: each kind imports what the others don't need."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..model.errors import BundleError
from ..model.signature import Tensors, TensorSpec, row_count
from .checks import Run
from .source import DYNAMIC_BATCH, GRAPH_SUFFIX, GraphSource
from .statement import Statement


def open_source(path: Path, statement: Statement, samples: Path) -> GraphSource:
    """Return the model in ``path``. Raises `BundleError`."""
    if path.suffix == GRAPH_SUFFIX:
        from .graph_reading import read_graph

        return read_graph(path)
    from .program import open_program

    return open_program(path)


def fixed_rows(inputs: tuple[TensorSpec, ...], path: Path) -> int | None:
    """Return the one number of rows that a model takes, None for any number.

    Raises `BundleError` for more than one: a single row would have to be filled up.
    """
    rows = {spec.shape[0] for spec in inputs if spec.shape and spec.shape[0] >= 0}
    if not rows:
        return None
    if rows != {1}:
        raise BundleError(f"{path} was exported for {max(rows):,} rows. {DYNAMIC_BATCH}.")
    return 1


def in_rows(run: Run, rows: int | None) -> Run:
    """Return ``run`` for any number of rows, where it takes one alone."""
    if rows is None:
        return run

    def each(given: Tensors) -> Tensors:
        answers = [
            run({name: array[index : index + 1] for name, array in given.items()})
            for index in range(row_count(given))
        ]
        return {name: np.concatenate([each[name] for each in answers]) for name in answers[0]}

    return each
