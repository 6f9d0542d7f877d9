"""The checks that a user's model must pass to become a bundle: answers, nulls, rows, parity.

Every check compares answers on the user's own samples and around them; none looks at the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..model.errors import BundleError, first_line, listed, shown
from ..model.manifest import Tolerance
from ..model.self_test import is_close, largest_difference
from ..model.signature import Array, OutputSpec, Tensors, row_at, row_count
from .material import Material
from .roles import Answer
from .source import GraphSource

Run = Callable[[Tensors], Tensors]
PARITY_TOLERANCE = 1e-5
"""The largest absolute difference allowed between the original's probabilities and those served."""
TOLERANCES = {
    "BF16": Tolerance(relative=8e-2, absolute=8e-3),  # of FP16's digits it has three fewer
    "FP16": Tolerance(relative=1e-2, absolute=1e-3),
    "FP32": Tolerance(relative=1e-4, absolute=1e-5),
    "FP64": Tolerance(relative=1e-6, absolute=1e-8),
}
"""The distance that other floats may have from the original's: machines sum in other orders."""
_DYNAMIC_INTEGERS = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul"})
_HALVES = ("FP16", "BF16")


@dataclass(frozen=True, slots=True)
class Allowed:
    """The distance that an output may have from the original's: ``times``, by row, multiply the
    tolerance.
    """

    tolerance: Tolerance
    times: Array | None = None

    def of(self, expected: Array) -> Array:
        """Return the difference that is allowed for each number."""
        found: Array = self.tolerance.absolute + self.tolerance.relative * np.abs(expected)
        if self.times is not None:
            found = found * self.times.reshape(-1, *[1] * (expected.ndim - 1))
        return found


def tolerance_of(spec: OutputSpec, made_of: str = "") -> Tolerance | None:
    """Return how far an output may lie from the original's; None for what must be equal.

    ``made_of`` is the datatype of what it is made of: it is no more exact than that.
    """
    if made_of in _HALVES:
        return TOLERANCES[made_of]
    if spec.role == "probabilities":
        return Tolerance(absolute=PARITY_TOLERANCE)
    return TOLERANCES.get(spec.datatype)


def check_probabilities(
    values: Array, material: Material, path: Path, name: str, *, sum_tolerance: float | None
) -> None:
    """Refuse what is said to be probabilities, and isn't, for a sample. Unless ``sum_tolerance`` is
    None, they sum to 1 within it.
    """
    with np.errstate(invalid="ignore"):
        wrong = ~((values >= -1e-6) & (values <= 1 + 1e-6)).reshape(len(values), -1).all(axis=1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise BundleError(
            f"{path}: {shown(name)} has no probabilities, which are from 0 to 1: "
            f"{_values(values[row])} for {_row(material, row)}. Are they logits? Then give "
            "--outputs logits."
        )
    off = np.abs(values.sum(axis=1) - 1)
    if sum_tolerance is not None and off.max() > sum_tolerance:
        row = int(off.argmax())
        raise BundleError(
            f"{path}: {shown(name)} has no probabilities of classes, which sum to 1: "
            f"{_values(values[row])} for {_row(material, row)}. Are they logits (--outputs "
            "logits), or independent of each other (--task multilabel)?"
        )


def check_label(
    indices: Array, found: Tensors, answer: Answer, material: Material, path: Path
) -> None:
    """Refuse a label that is none of the classes, for a sample."""
    assert answer.label is not None
    wrong = np.flatnonzero((indices < 0) | (indices >= len(answer.names)))
    if len(wrong):
        row, name = int(wrong[0]), answer.label.spec.name
        (label,) = found[name][row : row + 1].reshape(-1).tolist()
        raise BundleError(
            f"{path}: the label {shown(name)} is {label!r} for {_row(material, row)}, which is not "
            f"one of the classes, {listed(answer.names)}. Give those that the model returns, or "
            f"serve it as an output that isn't the prediction (--outputs {name}=tensor)."
        )


def check_logits(values: Array, path: Path, name: str, sum_tolerance: float) -> None:
    """Refuse what is said to be logits, and is probabilities for every sample: they sum to 1 within
    ``sum_tolerance``.
    """
    if values.ndim != 2 or values.shape[1] < 2:
        return
    wide = values.astype(np.float64)
    if (wide >= 0).all() and (np.abs(wide.sum(axis=1) - 1) <= sum_tolerance).all():
        raise BundleError(
            f"{path}: {shown(name)} is said to be logits, and for every sample it has numbers that "
            "sum to 1, as probabilities do: another softmax would falsify them. Give --outputs "
            "probabilities."
        )


def check_finite(values: Array, material: Material, path: Path, name: str) -> None:
    """Refuse a model whose answer to one of its own samples is not finite."""
    if values.dtype.kind != "f":
        return
    strange = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if not len(strange):
        return
    row = int(strange[0])
    has_null = any(
        array.dtype.kind == "f" and np.isnan(array[row]).any() for array in material.tried.values()
    )
    why = " (there is a null in it)" if has_null else ""
    raise BundleError(
        f"{path}: {shown(name)} is NaN or infinite for {len(strange)} of {len(values)} "
        f"samples, the first {_row(material, row)}{why}."
        + (" Set a median for each nullable feature in the features file." if why else "")
    )


def check_nulls(run: Run, material: Material, path: Path, name: str) -> None:
    """Refuse a model whose answer is not finite if a nullable feature is null."""
    for columns in material.encoder.tensors:
        nullable = np.flatnonzero(columns.nullable).tolist()
        each = [[index] for index in nullable[:_MOST_NULLS]]
        for indices in [*each, nullable] if nullable else []:
            rows = dict(material.golden)
            array = rows[columns.spec.name].copy()
            view = array.reshape(len(array), -1)
            for index in indices:
                null_as = columns.features[index].null_as
                view[:, index] = np.nan if columns.dtype.kind == "f" else null_as
            rows[columns.spec.name] = array
            if not np.isfinite(run(rows)[name]).all():
                which = " and ".join(repr(columns.features[index].name) for index in indices[:3])
                raise BundleError(
                    f"{path} returns no finite answer if {which} is null. Set its median in "
                    "the features file, let the model replace null, or don't declare it nullable."
                )


_MOST_NULLS = 200
"""The most features that are made null one by one; the others are with all."""


def check_same(
    found: Array,
    expected: Array,
    allowed: Allowed,
    material: Material,
    place: str,
) -> float | None:
    """Return the largest difference of what is served from the original, None for no numbers.

    Raises `BundleError` with the first row where it exceeds what is ``allowed``; ``place`` says
    where.
    """
    if found.shape == expected.shape:
        wrong = _wrong(found, expected, allowed)
        if not wrong.any():
            return largest_difference(found, expected)
        row = int(np.flatnonzero(wrong)[0])
        raise BundleError(
            f"{place} differs from the original for {np.count_nonzero(wrong)} of {len(wrong)} "
            f"inputs: it is {_values(np.atleast_1d(found)[row])}, and was "
            f"{_values(np.atleast_1d(expected)[row])}, for {_row(material, row)}."
        )
    raise BundleError(
        f"{place} has the shape {list(found.shape)}, and the original's has {list(expected.shape)}."
    )


def _wrong(found: Array, expected: Array, allowed: Allowed) -> Array:
    """Return for each row whether an answer is another; what overflows in both is the same."""
    found, expected = np.atleast_1d(found), np.atleast_1d(expected)
    wrong: Array
    if expected.dtype.kind != "f":
        wrong = np.asarray(found != expected)
    else:
        ours, theirs = found.astype(np.float64), expected.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            wrong = ~((np.abs(ours - theirs) <= allowed.of(theirs)) | (ours == theirs))
        wrong &= ~(~np.isfinite(ours) & ~np.isfinite(theirs))
    by_row: Array = np.asarray(wrong.reshape(len(wrong), -1).any(axis=1))
    return by_row


def check_rows_alone(
    run: Run,
    material: Material,
    source: GraphSource,
    names: dict[str, Tolerance],
    *,
    are_padded: bool = False,
) -> float:
    """Return the largest difference of a row alone and with others. Refuse a model whose answer to
    a row depends on the rows beside it.

    With ``are_padded`` a text keeps the length that others gave it: an output depends on it.
    """
    golden = material.golden
    together = run(golden)
    largest = 0.0
    for index in range(row_count(golden)):
        alone = run(row_at(golden, index) if are_padded else material.alone(index))
        for name, tolerance in names.items():
            theirs = together[name][index : index + 1]
            if alone[name].shape != theirs.shape:
                raise BundleError(
                    f"{source.path} answers one row with {shown(name)} of shape "
                    f"{list(alone[name].shape)}, and {row_count(golden)} rows with "
                    f"{list(together[name].shape)}: each row must have one of its own."
                )
            difference = largest_difference(alone[name], theirs)
            if not is_close(alone[name], theirs, tolerance) and not _overflows(alone[name]):
                by = "" if difference is None else f" (by up to {difference:.2g})"
                raise BundleError(
                    f"{source.path} answers a row differently alone and together with others{by}. "
                    + _about_other_rows(source, material)
                )
            largest = max(largest, difference or 0.0)
    return largest


def are_rows(run: Run, given: Tensors, names: dict[str, Tolerance]) -> bool:
    """Return True if the first dimension of all tensors is rows that don't influence each other.

    Told by answers alone: those to the example and to a second one, which differs from it, each
    alone and both together.
    """
    counts = {len(array) if array.ndim else 0 for array in given.values()}
    if len(counts) != 1 or counts == {0}:
        return False
    random = np.random.default_rng(0)
    other = {name: _like(array, random) for name, array in given.items()}
    both = {name: np.concatenate([given[name], other[name]]) for name in given}
    rows = row_count(given)
    try:
        apart = run(given), run(other)
        together, first = run(both), run(row_at(both, rows))
    except BundleError:
        return False
    return all(
        all(each[name].ndim and len(each[name]) == rows for each in apart)
        and _is_same(np.concatenate([each[name] for each in apart]), together[name], tolerance)
        and _is_same(first[name], together[name][rows : rows + 1], tolerance)
        for name, tolerance in names.items()
    )


def _is_same(found: Array, expected: Array, tolerance: Tolerance) -> bool:
    return found.shape == expected.shape and is_close(found, expected, tolerance)


def _like(array: Array, random: np.random.Generator) -> Array:
    """Return an array that differs from ``array``, of values that its input may hold."""
    if array.dtype.kind == "f":
        noisy = array * random.uniform(0.5, 1.0, size=array.shape)
        return noisy.astype(array.dtype)
    mixed: Array = random.permutation(array.reshape(-1)).reshape(array.shape)
    return mixed


def _overflows(values: Array) -> bool:
    """Return True for what is not finite: parity's concern."""
    return values.dtype.kind == "f" and not np.isfinite(values).all()


def _row(material: Material, index: int) -> str:
    """Return which input a row is, in words."""
    if not material.has_rows:
        return "the example"
    tried = row_count(material.tried)
    if index >= tried:
        return f"noise around the samples (row {index - tried})"
    return material.place_of_tried(index)


def _values(values: Array) -> str:
    """Return the first values of an answer."""
    flat = np.atleast_1d(values).reshape(-1)
    some = ", ".join(f"{v:.6g}" if flat.dtype.kind == "f" else repr(v) for v in flat[:4].tolist())
    return f"[{some}, ...]" if flat.size > 4 else f"[{some}]"


def _about_other_rows(source: GraphSource, material: Material) -> str:
    """Return advice for a model whose answers depend on the other rows."""
    if material.steps is not None and material.steps.takes_text:
        return (
            "A shorter text is padded beside a longer one, which must not change its answer: name "
            "the model's attention_mask in the step and let the model use it, or give the step "
            'padding = "max_length".'
        )
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


def run_of(run: Run, path: object) -> Run:
    """Return ``run``, which then raises only `BundleError`."""

    def guarded(given: Tensors) -> Tensors:
        try:
            return run(given)
        except BundleError:
            raise
        except Exception as error:  # a pybind exception with no public base
            raise BundleError(f"{path} can't be run: {first_line(error)}.") from error

    return guarded
