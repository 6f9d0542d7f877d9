"""Answers to samples in words, for the owner of a model to recognise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..model.errors import BundleError, listed
from ..model.golden import Golden
from ..model.manifest import TaskName
from ..model.signature import Array, OutputSpec
from .plan import Plan
from .roles import Answer

_MOST = 5
"""The answers that are shown at most, and the values of each."""


def shown_answers(plan: Plan, golden: Golden, outputs: Sequence[OutputSpec]) -> list[str]:
    """Return answers to golden samples, a sentence each: to several images or texts, since each is
    known by its name, and to one row of numbers.

    Raises `BundleError` for a true class that is none of the classes.
    """
    answer, sampled = plan.roles.answer, plan.material.sampled
    if answer is None or not answer.names:
        return []
    values = golden.outputs[outputs[0].name].reshape(golden.rows, -1)
    predicted = golden.outputs[outputs[1].name] if answer.label is not None else None
    if sampled is None:
        row = min(1, golden.rows - 1)
        said = _said(plan.task, answer, values[row], None if predicted is None else predicted[row])
        return [f"Golden sample {row + 1} of {golden.rows} -> {said}."]
    indices = values.argmax(axis=1) if predicted is None else predicted
    shown = [
        f"{place} -> {_said(plan.task, answer, values[row], indices[row])}."
        for row, place in enumerate(sampled.places[:_MOST])
    ]
    return [*shown, *_about_truth(plan.task, answer, indices, sampled.truth)]


def _said(task: TaskName, answer: Answer, values: Array, label: Array | None) -> str:
    if task == "classification":
        index = int(values.argmax() if label is None else label)
        return f"{answer.names[index]} {values[index]:.4g}"
    pairs = zip(answer.names, values.tolist(), strict=True)
    return ", ".join(f"{name} {value:.4g}" for name, value in list(pairs)[:_MOST])


def _about_truth(
    task: TaskName, answer: Answer, indices: Array, truth: Sequence[str]
) -> Iterator[str]:
    """Yield how often the model is right, where the true classes are known."""
    if not truth:
        return
    if task != "classification":
        raise BundleError("--truth is for classifiers.")
    unknown = next((name for name in truth if name not in answer.names), None)
    if unknown is not None:
        raise BundleError(
            f"The true class {unknown[:40]!r} is not one of the classes, {listed(answer.names)}."
        )
    right = sum(answer.names[int(i)] == name for i, name in zip(indices, truth, strict=True))
    yield f"The model is right for {right} of {len(truth)} golden samples."
