"""What the owner of a model says about it, beside the features file: its task, what its outputs
are, and their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from ..documents.suggestions import did_you_mean
from ..model.errors import BundleError, shown
from ..model.manifest import Target, TaskName
from .description import ModelDescription
from .faults import Faults
from .source import GraphOutput

StatedRole = Literal[
    "probabilities", "logits", "scores", "values", "embedding", "label", "state", "tensor"
]
"""The roles that an owner may give an output."""
ROLES: tuple[StatedRole, ...] = get_args(StatedRole)
TASKS: tuple[TaskName, ...] = get_args(TaskName)
NAMED: Mapping[TaskName, str] = {
    "classification": "classes",
    "multilabel": "labels",
    "regression": "targets",
}
"""The option that names the columns of the answer, by task."""
_TASK_FORM = f"--task {'|'.join(TASKS)}"


@dataclass(frozen=True, slots=True)
class Statement:
    """The statements of a model's owner.

    ``role`` is that of the answer, ``roles`` are those of outputs by their names. ``names`` are
    those of the classes, labels or targets. None, or nothing, is what wasn't said. With
    ``allow_code``, a file may run its own program. ``truth`` is the column of the samples that has
    the true class; with ``real_background`` the reference keeps some rows of the samples.
    """

    task: TaskName | None = None
    role: StatedRole | None = None
    roles: Mapping[str, StatedRole] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    allow_code: bool = False
    truth: str = ""
    real_background: bool = False


def read_outputs(stated: Iterable[str]) -> tuple[StatedRole | None, dict[str, StatedRole]]:
    """Return the role of the answer, and those of outputs by name, of ``ROLE`` and ``NAME=ROLE``.

    Raises `BundleError`.
    """
    only: StatedRole | None = None
    roles: dict[str, StatedRole] = {}
    faults = Faults()
    for text in stated:
        name, separator, word = text.rpartition("=")
        role = faults.attempt(_role, word)
        if role is None:
            continue
        if separator:
            if roles.setdefault(name, role) != role:
                faults.add(f"--outputs says of {shown(name)} that it is {roles[name]}, too.")
        elif only not in (None, role):
            faults.add(
                f"--outputs says both {only} and {role}; write NAME=ROLE where a model has several "
                "outputs."
            )
        else:
            only = role
    faults.check()
    return only, roles


def _role(word: str) -> StatedRole:
    for role in ROLES:
        if word == role:
            return role
    hint = did_you_mean(word, ROLES)
    raise BundleError(
        f"--outputs {shown(word)} is not what an output can be{hint or '.'} It is one of "
        f"{', '.join(ROLES)}, or NAME=ROLE for the output of that name."
    )


def task_of_model(
    statement: Statement, description: ModelDescription, outputs: Sequence[GraphOutput]
) -> tuple[TaskName, tuple[str, ...]]:
    """Return the task of a model, and notes on what was assumed.

    It is what the owner says, or what the file itself says. Raises `BundleError` where neither
    does.
    """
    if statement.task is not None:
        return statement.task, ()
    said = [task for task, called in NAMED.items() if getattr(description, called)]
    if len(said) == 1:
        return said[0], ()
    if len(said) > 1:
        named = " and ".join(NAMED[task] for task in said)
        raise BundleError(f"The features file has {named}, so say which is meant: {_TASK_FORM}.")
    if any(output.labels for output in outputs):
        return "classification", ("The task is classification: the graph has class labels.",)
    if any(output.kind == "values" for output in outputs):
        return "regression", ("The task is regression: the graph ends in a regressor.",)
    raise BundleError(
        f"What the model is for can't be known from the file: give {_TASK_FORM} (tensors serves "
        "any model with the inputs and outputs that it has)."
    )


def names_of_answer(
    task: TaskName, statement: Statement, description: ModelDescription
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the classes, labels or targets as they were said, and notes.

    Raises `BundleError` where they were said twice, and differently.
    """
    called = NAMED.get(task)
    if task == "multilabel" and description.classes and not description.labels:
        called = "classes"
    notes = tuple(
        f"{other} in the features file is not used: the task is {task}."
        for other in NAMED.values()
        if other != called and getattr(description, other)
    )
    if called is None:
        if statement.names:
            raise BundleError(f"--classes has no meaning for the task {task}; leave it out.")
        return (), notes
    written = tuple(_name(each) for each in getattr(description, called))
    if called != NAMED[task]:
        notes = (*notes, "The labels are the classes of the features file.")
    if written and statement.names and written != statement.names:
        raise BundleError(
            f"--{called} says {', '.join(statement.names)}, and the features file says "
            f"{', '.join(written)}: give them once."
        )
    return statement.names or written, notes


def _name(each: str | Target) -> str:
    return each if isinstance(each, str) else each.name
