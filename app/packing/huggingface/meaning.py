"""The meaning of a classifier of transformers: its task and labels, as the pipeline takes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ...model.errors import BundleError
from ...model.manifest import TaskName
from ..statement import Statement
from .directory import CONFIG

_TASKS: dict[str, TaskName] = {
    "single_label_classification": "classification",
    "multi_label_classification": "multilabel",
    "regression": "regression",
}


def stated_by(
    config: Any, path: Path, statement: Statement, *, are_named: bool
) -> tuple[Statement, tuple[str, ...]]:
    """Return ``statement`` with what the configuration says where the owner says nothing, and
    notes on what was assumed.

    ``are_named`` is True if the features file has the names. Raises `BundleError` for a task that
    the configuration leaves open.
    """
    labels = tuple(str(config.id2label[index]) for index in sorted(config.id2label))
    notes: list[str] = []
    task = statement.task
    if task is None:
        task, note = _task(config.problem_type, labels, path)
        notes += [note] if note else []
    names = statement.names
    if not names and not are_named:
        names = labels
        if labels == tuple(f"LABEL_{index}" for index in range(len(labels))):
            notes.append(
                f"{CONFIG} has no names of the labels (id2label): they are {labels[0]} and so on."
            )
    role = statement.role or ("values" if task == "regression" else "logits")
    return replace(statement, task=task, role=role, names=names), tuple(notes)


def _task(problem: str | None, labels: tuple[str, ...], path: Path) -> tuple[TaskName, str]:
    if problem in _TASKS and (len(labels) > 1 or problem != "single_label_classification"):
        return _TASKS[problem], ""
    if problem is not None and problem not in _TASKS:
        raise BundleError(f"{path / CONFIG}: problem_type {problem!r} is not known; give --task.")
    if len(labels) == 1:
        raise BundleError(
            f"{path / CONFIG} has one label, and doesn't say what its number is: give --task "
            "regression for the number as it is, or --task multilabel for the probability of the "
            "label, its sigmoid."
        )
    return "classification", (
        f"The task is classification: {CONFIG} has {len(labels)} labels and no problem_type, for "
        "which transformers takes a softmax."
    )
