"""The served graph beside the original: made, run as a worker would, and compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..model.errors import BundleError, shown
from ..model.golden import Golden, same_strings
from ..model.manifest import EXACT, Tolerance
from ..model.onnx_runtime import OnnxRuntime
from ..model.self_test import is_close
from ..model.signature import OutputSpec, Signature, Tensors
from .checks import (
    TOLERANCES,
    Allowed,
    Run,
    are_rows,
    check_finite,
    check_label,
    check_logits,
    check_nulls,
    check_probabilities,
    check_rows_alone,
    check_same,
    run_of,
    tolerance_of,
)
from .graphs.border import about_bfloat16
from .plan import Plan
from .reading import about_precision, about_rows
from .roles import Answer
from .served import Served, expected, magnitudes, serve, wanted
from .tries import tries


@dataclass(frozen=True, slots=True)
class Compared:
    """A graph that answers as the original does, and what was found of it.

    ``run`` runs it; ``batch`` says whether rows may run together; ``tolerances`` are how far its
    outputs may lie from the golden ones. ``notes`` say what was measured.
    """

    served: Served
    run: Run
    batch: bool
    tolerances: Mapping[str, Tolerance]
    notes: tuple[str, ...]


def check_answers(plan: Plan) -> None:
    """Raise `BundleError` where the original's answers to the samples can't be served."""
    answer, material, path = plan.roles.answer, plan.material, plan.source.path
    if answer is None:
        return
    found = plan.answered
    name = answer.output.spec.name
    check_finite(found[name], material, path, name)
    datatype = answer.output.spec.datatype
    sum_tolerance = TOLERANCES.get(datatype, EXACT).of_sum
    if answer.from_logits:
        check_logits(found[name], path, name, sum_tolerance)
    made = expected(plan.task, answer, found)
    if plan.task == "classification" and "label" in made:
        check_label(made["label"], found, answer, material, path)
    if answer.role == "probabilities":
        values = made["probabilities"]
        is_exclusive = plan.task == "classification"
        check_probabilities(
            values, material, path, name, sum_tolerance=sum_tolerance if is_exclusive else None
        )


def make_served(plan: Plan, file: Path) -> Compared:
    """Return the graph that is served, which is written to ``file``.

    A graph for one row at a time may take any number if it is only declared so; if it doesn't, it
    is run row by row. Raises `BundleError` for one that answers otherwise than the original.
    """
    any_rows = plan.material.has_rows
    if plan.fixed_rows != 1:
        try:
            return _made(plan, file, any_rows=any_rows)
        except BundleError as error:
            raise BundleError(f"{error}{about_rows(plan.fixed_rows)}") from error
    try:
        return _made(plan, file, any_rows=any_rows)
    except BundleError:
        return _made(plan, file, any_rows=False)


def _made(plan: Plan, file: Path, *, any_rows: bool) -> Compared:
    served = serve(plan.source, plan.task, plan.roles, plan.material, any_rows=any_rows)
    file.write_bytes(served.content)
    return _compare(plan, served, _runner(plan, file, served.outputs))


def _runner(plan: Plan, file: Path, outputs: tuple[OutputSpec, ...]) -> Run:
    """Return what runs the graph in ``file`` as a worker would."""
    path = f"{plan.source.path}, as it would be served,"
    try:
        signature = Signature(plan.material.inputs, outputs)
        runtime = OnnxRuntime(file, 1, signature, has_rows=plan.material.has_rows)
    except BundleError as error:
        why = str(error).replace(str(file), path)
        advice = about_bfloat16(plan.source.graph, why) or about_precision(plan.source.inputs)
        raise BundleError(f"{why}{advice}") from error
    return run_of(runtime.run, path)


def _compare(plan: Plan, served: Served, run: Run) -> Compared:
    """Compare what is served with the original. Raises `BundleError`."""
    source, material = plan.source, plan.material
    answer = plan.roles.answer
    tolerances = {
        spec.name: tolerance_of(spec, _made_of(spec, answer)) or EXACT for spec in served.outputs
    }
    notes = []
    if material.has_rows:
        varies = any(-1 in spec.shape[1:] for spec in served.outputs)
        apart = check_rows_alone(run, material, source, tolerances, are_padded=varies)
        notes.append(f"A row alone and with others: the same within {apart:.1g}.")
        batch = True
    else:
        batch = are_rows(run, material.samples, tolerances)
    given = tries(material)
    found = run(given)
    largest = _largest_difference(plan, served, tolerances, given, found)
    for more in material.more:
        largest = max(largest, _largest_difference(plan, served, tolerances, more, run(more)))
    notes.append(f"The original and what is served: the same within {largest:.1g}.")
    notes += _about_label(plan, served, found)
    if material.features:
        check_nulls(run, material, source.path, served.outputs[0].name)
    return Compared(served, run, batch, tolerances, tuple(notes))


def _largest_difference(
    plan: Plan,
    served: Served,
    tolerances: Mapping[str, Tolerance],
    given: Tensors,
    found: Tensors,
) -> float:
    """Return how far what is served, which answers ``found`` to ``given``, is from the original.

    Raises `BundleError` where that is too far.
    """
    answer, path = plan.roles.answer, plan.source.path
    theirs = plan.original(plan.material.filled(given))
    correct = wanted(served, plan.task, answer, theirs)
    largest = 0.0
    for spec, original in zip(served.outputs, served.originals, strict=True):
        is_made = answer is not None and original is None and spec.role == "probabilities"
        times = magnitudes(answer, theirs) if answer is not None and is_made else None
        off = check_same(
            found[spec.name],
            correct[spec.name],
            Allowed(tolerances[spec.name], times),
            plan.material,
            f"{path}, as it would be served: {shown(spec.name)}",
        )
        largest = max(largest, off or 0.0)
    return largest


def _made_of(spec: OutputSpec, answer: Answer | None) -> str:
    """Return the datatype of what an output is made of."""
    is_answer = answer is not None and spec.role == answer.role
    return answer.output.spec.datatype if answer is not None and is_answer else spec.datatype


def _about_label(plan: Plan, served: Served, found: Tensors) -> Iterator[str]:
    """Yield how often the label is not the class of the largest number, where it ever isn't."""
    by_role = {spec.role: found[spec.name] for spec in reversed(served.outputs)}
    for role in ("probabilities", "scores"):
        label, numbers = by_role.get("label"), by_role.get(role)
        if label is None or numbers is None or label.ndim != 1:
            continue
        if not ((label >= 0) & (label < numbers.shape[1])).all():
            strange = label[(label < 0) | (label >= numbers.shape[1])][0]
            raise BundleError(f"The label {strange} is the index of none of the classes.")
        of_label = np.take_along_axis(numbers, label[:, np.newaxis], axis=1)
        count = np.count_nonzero(of_label[:, 0] < numbers.max(axis=1))
        has_values = plan.roles.answer is not None and plan.roles.answer.label_values
        if 2 * count > len(label) and not has_values:
            raise BundleError(
                f"For {count} of {len(label)} rows tried, the label is not the class with the "
                f"largest of the {role}: is it counted from 1? Leave it out, or let it be the "
                "index of the class from 0."
            )
        if count:
            yield (
                f"For {count} of {len(label)} rows tried, the label is not the class with the "
                f"largest of the {role}; it is served as the model answers it."
            )


def check_golden(plan: Plan, compared: Compared, golden: Golden) -> None:
    """Raise `BundleError` for golden data that a worker would not find the same again."""
    again = compared.run(golden.inputs)
    for name, array in golden.outputs.items():
        if not is_close(again[name], array, compared.tolerances[name]):
            raise BundleError(
                f"{plan.source.path} answers the same example differently each time "
                f"({shown(name)}); a bundle must answer alike. Does it draw random numbers, or "
                "keep a state?"
            )
    for name, array in (*golden.inputs.items(), *golden.outputs.items()):
        if array.dtype.kind == "O" and not same_strings(array):
            raise BundleError(
                f"{plan.source.path}: {shown(name)} has a string that ends with a null "
                "character, which golden data can't hold; use another example."
            )
