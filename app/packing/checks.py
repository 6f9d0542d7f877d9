"""The checks that a user's model must pass to become a bundle: form, answers, nulls, parity.

Every check compares answers on the user's own samples and around them; none looks at the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..model.errors import BundleError, first_line
from ..model.features import Feature
from ..model.runtime import OnnxRuntime, Runtime
from .answers import probabilities_of
from .network import PARITY_TOLERANCE
from .samples import Samples
from .source import DYNAMIC_BATCH, Answers, Matrix, Outputs, Source

_DYNAMIC_INTEGERS = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul"})
_SUM_TOLERANCE = 1e-4
_ONE_SCORE = (
    "one column per class is required. Let the model end in torch.cat([1 - p, p], dim=1), where p "
    "(rows, 1) is the probability of the second class, or of logits z in "
    "torch.cat([torch.zeros_like(z), z], dim=1)"
)


def filled(matrix: Matrix, stand_in: Matrix) -> Matrix:
    """Return ``matrix`` with NaN replaced by ``stand_in``, one value per column."""
    return np.where(np.isnan(matrix), stand_in, matrix)


def check_form(raw: Answers, classes: int, path: Path) -> None:
    """Refuse outputs that don't have one column per class."""
    if raw.ndim == 1 or (raw.ndim == 2 and raw.shape[1] == 1):
        raise BundleError(f"{path} returns one score per row; {_ONE_SCORE}.")
    if raw.ndim != 2 or raw.shape[1] != classes:
        raise BundleError(
            f"{path} returns outputs of shape {raw.shape} for {len(raw)} rows; (rows, {classes}) "
            f"is required: the features file names {classes} classes."
        )


def check_finite(answers: Answers, samples: Samples, path: Path) -> None:
    """Refuse a model whose output for one of its own samples is not finite."""
    strange = np.flatnonzero(~np.isfinite(answers).all(axis=1))
    if not len(strange):
        return
    row = int(strange[0])
    why = " (there is a null in it)" if np.isnan(samples.matrix[row]).any() else ""
    raise BundleError(
        f"{path} returns NaN or infinity for {len(strange)} of {len(answers)} samples, the first "
        f"on line {samples.lines[row]} of the CSV{why}."
        + (" Set a median for each nullable feature in the features file." if why else "")
    )


def are_probabilities(raw: Answers, outputs: Outputs, path: Path) -> bool:
    """Return True if the model's outputs are probabilities, False if they are logits."""
    if outputs == "logits":
        return False
    off = float(np.abs(raw.sum(axis=1) - 1).max())
    if (raw >= 0).all() and off <= _SUM_TOLERANCE:
        return True
    if outputs == "probabilities":
        raise BundleError(
            f"{path} does not return probabilities: they must not be negative, and each row must "
            f"sum to 1 (off by up to {off:.2g}). Are they logits?"
        )
    if ((raw >= 0) & (raw <= 1)).all():
        raise BundleError(
            f"{path} returns numbers between 0 and 1 for every sample, but they don't sum to 1. "
            "Are they independent sigmoids? Lantern's classes are mutually exclusive: end in a "
            "softmax. If they are logits, use --outputs logits."
        )
    return False


def check_nulls(
    runtime: Runtime, features: Sequence[Feature], samples: Samples, path: Path
) -> None:
    """Refuse a model whose output is not finite if a nullable feature is null."""
    nullable = [index for index, feature in enumerate(features) if feature.nullable]
    each = [[index] for index in nullable]
    for columns in [*each, nullable] if nullable else []:
        matrix = samples.matrix.copy()
        matrix[:, columns] = np.nan
        if not np.isfinite(probabilities_of(runtime, matrix)).all():
            which = " and ".join(repr(features[index].name) for index in columns[:3])
            raise BundleError(
                f"{path} returns no finite probabilities if {which} is null (NaN). Set its median "
                "in the features file, let the model replace NaN, or don't declare it nullable."
            )


def trying_inputs(samples: Samples, features: Sequence[Feature]) -> Matrix:
    """Return inputs to test a graph: samples, noise around them, and nulls where allowed."""
    random = np.random.default_rng(0)
    drawn = samples.matrix[random.integers(len(samples.lines), size=600)]
    noisy = (drawn * random.normal(1.0, 0.5, size=drawn.shape)).astype(np.float32)
    nullable = np.array([feature.nullable for feature in features])
    noisy[300:][nullable & (random.random(size=noisy[300:].shape) < 0.3)] = np.nan
    return np.concatenate([samples.matrix, noisy])


def check_parity(
    runtime: OnnxRuntime, source: Source, matrix: Matrix, stand_in: Matrix, *, softmax: bool
) -> None:
    """Refuse a graph whose answers differ from the original's.

    Logits far from zero are less exact in float32, and so are their probabilities: the tolerance
    grows with them.
    """
    raw = np.asarray(source.ask(filled(matrix, stand_in)), dtype=np.float64)
    answers = _run(runtime, matrix, source)
    with np.errstate(over="ignore", invalid="ignore"):
        shifted = np.exp(raw - raw.max(axis=1, keepdims=True))
        expected = shifted / shifted.sum(axis=1, keepdims=True) if softmax else raw
        allowed = PARITY_TOLERANCE * np.maximum(1.0, np.abs(raw).max(axis=1))
        difference = np.abs(answers - expected).max(axis=1)
    overflow = ~np.isfinite(raw).all(axis=1)
    same = np.where(overflow, ~np.isfinite(answers).all(axis=1), difference <= allowed)
    if not same.all():
        by = float(np.max(difference[~same]))
        raise BundleError(
            f"{source.path}, as it would be served, answers {np.count_nonzero(~same)} of "
            f"{len(same)} inputs differently from the original (by up to {by:.2g})."
            + about_rows(source)
        )


def _run(runtime: OnnxRuntime, matrix: Matrix, source: Source) -> Answers:
    try:
        return probabilities_of(runtime, matrix)
    except Exception as error:  # a pybind exception with no public base
        raise BundleError(
            f"{source.path} can't be run with {len(matrix)} rows: {first_line(error)}."
            + about_rows(source)
        ) from error


def about_precision(source: Source) -> str:
    """Return advice for a model that may have failed because it computes in float64."""
    if not source.double:
        return ""
    return (
        " It computes in float64, for which ONNX Runtime lacks some operators: convert the model "
        "with model.float()."
    )


def about_rows(source: Source) -> str:
    """Return advice for a model that may have failed because its number of rows is fixed."""
    if source.fixed_rows is None:
        return ""
    return f" It was exported for exactly {source.fixed_rows} row(s). {DYNAMIC_BATCH}."


def check_rows_alone(runtime: OnnxRuntime, source: Source, samples: Samples) -> None:
    """Refuse a model whose answer to a row depends on the rows beside it."""
    together = _run(runtime, samples.matrix, source)
    alone = np.concatenate([_run(runtime, row[np.newaxis], source) for row in samples.matrix])
    no_answer = np.isnan(together) & np.isnan(alone)  # which is parity's concern
    off = float(np.where(no_answer, 0.0, np.abs(together - alone)).max())
    if not off <= PARITY_TOLERANCE:
        raise BundleError(
            f"{source.path} answers a row differently alone and together with others (by up to "
            f"{off:.2g}). " + _about_other_rows(source)
        )


def _about_other_rows(source: Source) -> str:
    """Return advice for a model whose answers depend on the other rows."""
    operators = {node.op_type for node in source.graph.graph.node}
    if operators & _DYNAMIC_INTEGERS:
        return (
            "It is quantised dynamically: its scale is computed from all rows of a call. Quantise "
            "it statically (onnxruntime.quantization.quantize_static), or pack the model in "
            "float32."
        )
    return (
        "It computes over all rows of a call: a mean over rows, or batch normalisation in training "
        "mode. Call model.eval() before exporting, and let the model treat rows one by one."
    )
