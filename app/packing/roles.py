"""Which output of a graph is the answer of its task, and what it means.

The owner says it, or the graph itself does; where neither does, the error names the option to give.
Where both do, they must agree. Nothing is concluded from the numbers that a model answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..model.errors import BundleError, listed, shown
from ..model.manifest import TaskName
from ..model.manifest_checks import answer_roles
from ..model.signature import Role
from .faults import Faults
from .source import GraphOutput, OutputKind
from .statement import NAMED, StatedRole, Statement

_MEANS: Mapping[StatedRole, Role] = {"logits": "probabilities"}
"""The role of an output in the served graph, if that is another one."""
_FITTING: Mapping[TaskName, tuple[StatedRole, ...]] = {
    "classification": ("probabilities", "logits", "scores"),
    "multilabel": ("probabilities", "logits"),
    "regression": ("values",),
    "embedding": ("embedding",),
    "tensors": (),
}
"""The roles that an owner may give the answer, by task."""
_WHY: Mapping[OutputKind, str] = {
    "probabilities": "the graph ends in a softmax, a sigmoid or a classifier's probabilities",
    "scores": "the graph ends in the decision function of a classifier",
    "logits": "the graph has a classifier without a softmax there",
    "values": "the graph ends in a regressor",
    "label": "it is the label that the graph predicts",
}
"""The evidence for the kind of an output."""
_COMPATIBLE = (("scores", "logits"), ("values", "scores"))
"""Kinds that an owner may say are something else: a softmax of scores is a decision, and what a
regressor answers may be scores, as those of a support vector machine of one class are.
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """The output that is the answer, and how it becomes what is served.

    ``role`` is that of the served output, and ``names`` are those of its columns. With
    ``from_logits`` a softmax or sigmoid is added; with ``is_one_score`` two classes are made of one
    column. ``label`` is the output that has the predicted class (or labels) itself, if there is
    one; ``label_values`` are its values, in the order of the classes.
    """

    output: GraphOutput
    role: Role
    names: tuple[str, ...] = ()
    from_logits: bool = False
    is_one_score: bool = False
    label: GraphOutput | None = None
    label_values: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True)
class Roles:
    """The answer, None for the task ``tensors``; what all other outputs are; and notes."""

    answer: Answer | None
    others: tuple[tuple[GraphOutput, Role], ...]
    notes: tuple[str, ...] = ()


def roles_of(
    task: TaskName, statement: Statement, names: tuple[str, ...], outputs: Sequence[GraphOutput]
) -> Roles:
    """Return what the ``outputs`` of a graph are for ``task``.

    ``names`` are those of the classes, labels or targets, as the owner said them. Raises
    `BundleError`, which names the option that is missing or wrong.
    """
    check_outputs_exist(statement, outputs)
    if task == "tensors":
        return _tensor_roles(statement, outputs)
    answer, notes = _answer_of(task, statement, names, outputs)
    _check_columns(task, answer)
    others = _others(task, statement, answer, outputs)
    return Roles(answer, others, (*notes, *_notes_of(task, answer)))


def _answer_of(
    task: TaskName, statement: Statement, names: tuple[str, ...], outputs: Sequence[GraphOutput]
) -> tuple[Answer, Sequence[str]]:
    """Return the answer of a model with a task, and notes. Raises `BundleError` with all that is
    missing or wrong.
    """
    faults = Faults()
    found = faults.attempt(_answer_output, task, statement, names, outputs)
    if found is None:
        faults.attempt(_check_named, task, names, outputs)
        faults.check()
    assert found is not None
    answer, said = found
    role = faults.attempt(_stated_role, task, statement, answer, said)
    if role is not None:
        faults.attempt(_check_stated, task, answer, role)
    label = _label_output(task, statement, outputs)
    named = faults.attempt(_names, task, names, answer, label)
    faults.check()
    assert role is not None
    assert named is not None
    names, label_values, notes = named
    made = Answer(
        answer,
        _MEANS.get(role) or _as_role(role),
        names,
        from_logits=role == "logits",
        is_one_score=task == "classification" and _columns(answer) == 1,
        label=label,
        label_values=label_values,
    )
    return made, notes


def _others(
    task: TaskName, statement: Statement, answer: Answer, outputs: Sequence[GraphOutput]
) -> tuple[tuple[GraphOutput, Role], ...]:
    """Return what the outputs beside the answer are. Raises `BundleError` for a second answer."""
    others = tuple(
        (each, _as_role(statement.roles.get(each.spec.name, "tensor")))
        for each in outputs
        if each not in (answer.output, answer.label)
    )
    for each, role in others:
        if role in answer_roles(task) or role == "label":
            raise BundleError(
                f"--outputs says that both {shown(answer.output.spec.name)} and "
                f"{shown(each.spec.name)} are what the model answers; a model has one answer."
            )
    return others


def check_outputs_exist(statement: Statement, outputs: Sequence[GraphOutput]) -> None:
    """Raise `BundleError` if the owner says what outputs are that the graph doesn't have."""
    names = [output.spec.name for output in outputs]
    unknown = [shown(name) for name in statement.roles if name not in names]
    if unknown:
        raise BundleError(
            f"--outputs names {listed(unknown)}, and the model's outputs are {listed(names)}."
        )


def missing_options(
    task: TaskName | None,
    statement: Statement,
    names: tuple[str, ...],
    outputs: Sequence[GraphOutput],
) -> Iterator[str]:
    """Yield what can be known to be missing before the model runs, a sentence each.

    ``task`` is None where that is missing itself.
    """
    says_nothing = statement.role is None and not statement.roles
    if task is None:
        needs = [
            f"{each} takes {' and '.join(options)}"
            for each in ("classification", "multilabel", "regression")
            for options in [[*_options(each, statement, outputs, says_nothing)]]
            if options
        ]
        if needs:
            yield f"For the task that you give there is more to say: {'; '.join(needs)}."
        return
    fitting = _FITTING[task]
    if says_nothing and len(fitting) > 1 and not any(output.kind for output in outputs):
        yield (
            "What the model's outputs are can't be known from the file: give --outputs "
            f"{' or --outputs '.join(fitting)}."
        )
    faults = Faults()
    faults.attempt(_check_named, task, names, outputs)
    yield from faults


def _options(
    task: TaskName, statement: Statement, outputs: Sequence[GraphOutput], says_nothing: bool
) -> Iterator[str]:
    """Yield the options that a model takes for ``task`` in addition."""
    fitting = _FITTING[task]
    if says_nothing and len(fitting) > 1 and not any(output.kind for output in outputs):
        yield f"--outputs {'|'.join(fitting)}"
    if not statement.names:
        yield f"--{NAMED[task]} a,b,..."


def _tensor_roles(statement: Statement, outputs: Sequence[GraphOutput]) -> Roles:
    faults = Faults()
    if statement.role is not None:
        faults.add(
            f"--outputs {statement.role} has no meaning for the task tensors, whose outputs mean "
            "what the caller knows; NAME=state is for one to send with the next request."
        )
    for wrong in statement.roles.values():
        if wrong not in ("tensor", "state"):
            faults.add(
                f"--outputs NAME={wrong} has no meaning for the task tensors; only state and "
                "tensor do."
            )
    faults.check()
    others = [(o, _as_role(statement.roles.get(o.spec.name, "tensor"))) for o in outputs]
    return Roles(None, tuple(others))


def _as_role(stated: StatedRole) -> Role:
    return stated


def _answer_output(
    task: TaskName, statement: Statement, names: tuple[str, ...], outputs: Sequence[GraphOutput]
) -> tuple[GraphOutput, StatedRole | None]:
    """Return the output that is the answer, and what it is said to be by its name."""
    fitting = _FITTING[task]
    named = [
        (output, role)
        for output in outputs
        if (role := statement.roles.get(output.spec.name)) in fitting and role is not None
    ]
    if len(named) > 1:
        both = " and ".join(shown(output.spec.name) for output, _ in named)
        raise BundleError(f"--outputs says that {both} are what the model answers; name one.")
    if named:
        return named[0]
    return _only_answer(task, names, statement, outputs), None


def _stated_role(
    task: TaskName, statement: Statement, found: GraphOutput, said: StatedRole | None
) -> StatedRole:
    """Return what the answer is, of which ``said`` was said by its name."""
    fitting = _FITTING[task]
    said = said or statement.role
    if said is None and found.kind in fitting and found.kind:
        said = found.kind
    if said is None and len(fitting) == 1:
        said = fitting[0]  # the task says it
    if said is None and found.kind:
        raise BundleError(
            f"{shown(found.spec.name)} can't be the answer of the task {task}: {_WHY[found.kind]}."
            f"{_other_task(found.kind)}"
        )
    if said is None:
        raise BundleError(
            f"What the output {shown(found.spec.name)} is can't be known from the file: give "
            f"--outputs {' or --outputs '.join(fitting)}."
        )
    if said not in fitting:
        raise BundleError(
            f"--outputs {said} doesn't fit the task {task}, whose answer is {' or '.join(fitting)}."
        )
    return said


def _only_answer(
    task: TaskName, names: tuple[str, ...], statement: Statement, outputs: Sequence[GraphOutput]
) -> GraphOutput:
    """Return the only output that can be the answer."""
    candidates = [
        output
        for output in outputs
        if output.spec.is_float
        and output.spec.shape
        and output.kind != "label"
        and output.spec.name not in statement.roles
    ]
    for chosen in (
        [output for output in candidates if output.kind in _FITTING[task]],  # the graph says it
        [output for output in candidates if names and _columns(output) == len(names)],
    ):
        if len(candidates) > 1 and len(chosen) == 1:
            candidates = chosen
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise BundleError(
            f"The model has no output of floats that could be the answer of the task {task}; its "
            f"outputs are {listed(map(_described, outputs))}."
        )
    classes = {len(each.labels) for each in outputs if each.kind == "label"}
    if len(candidates) in classes and {*map(_columns, candidates)} == {1}:
        raise BundleError(
            f"The model has an output for each class: {listed(map(_described, candidates))}. Let "
            "it return one matrix (in skl2onnx: options={'zipmap': False}), or serve its outputs "
            "as they are: --task tensors."
        )
    first = shown(candidates[0].spec.name).strip("'")
    raise BundleError(
        f"The model has {len(candidates)} outputs that could be the answer: "
        f"{listed(map(_described, candidates))}. Say which: --outputs {first}={_FITTING[task][0]}."
    )


def _check_stated(task: TaskName, output: GraphOutput, stated: StatedRole) -> None:
    """Raise `BundleError` where the graph itself says otherwise than its owner."""
    kind = output.kind
    if kind in ("", stated) or (kind, stated) in _COMPATIBLE:
        return
    if stated in ("values", "embedding") and kind != "label" and not output.labels:
        return  # a number between 0 and 1 is a number, and so is what a regressor answers
    fits = kind in (*_FITTING[task], "label")
    advice = f" Give --outputs {kind}." if fits else _other_task(kind)
    raise BundleError(
        f"{shown(output.spec.name)} is said to be {stated}, but {_WHY[kind]}.{advice}"
    )


def _other_task(kind: OutputKind) -> str:
    task = "regression" if kind == "values" else "classification"
    return f" Give --task {task}, or --task tensors for its outputs as they are."


def _label_output(
    task: TaskName, statement: Statement, outputs: Sequence[GraphOutput]
) -> GraphOutput | None:
    said = [each for each in outputs if statement.roles.get(each.spec.name) == "label"]
    found = said or [
        each
        for each in outputs
        if each.kind == "label"
        and statement.roles.get(each.spec.name) is None
        # Of several labels, 0 or 1 says which apply; a string would say it in the graph's words.
        and (task == "classification" or each.spec.datatype == "INT64")
    ]
    return found[0] if len(found) == 1 else None


def _names(
    task: TaskName, said: tuple[str, ...], answer: GraphOutput, label: GraphOutput | None
) -> tuple[tuple[str, ...], tuple[str | int, ...], tuple[str, ...]]:
    """Return the names of the answer's columns, the label's values in their order, and notes."""
    called = NAMED.get(task)
    if called is None:
        return (), (), ()
    if task == "classification":
        own = answer.labels or (label.labels if label is not None else ())
    else:
        own = answer.labels  # the values of several labels are 0 and 1, not their names
    theirs = label.labels if label is not None else ()
    if (
        task == "classification"
        and answer.labels
        and theirs
        and {*map(str, answer.labels)} != {*map(str, theirs)}
    ):
        raise BundleError(
            f"The graph's label is one of {listed(map(repr, theirs))}, and its columns are "
            f"{listed(map(repr, answer.labels))}."
        )
    if task == "classification" and own:
        names, notes = _reconciled(said, own)
        return names, own if label is not None else (), notes
    if said:
        if task == "classification" and label is not None and label.spec.datatype == "BYTES":
            return said, said, ()  # its values are the names that are said
        return said, (), ()
    if own:
        return tuple(map(str, own)), (), ()
    if task == "regression" and _columns(answer) == 1:
        name = answer.spec.name
        return (name,), (), (f"The target is called {name!r}, as the graph calls it (--targets).",)
    raise BundleError(_names_missing(task))


def _check_named(task: TaskName, names: tuple[str, ...], outputs: Sequence[GraphOutput]) -> None:
    """Raise `BundleError` if names are missing, whichever output is the answer."""
    takes_names = task in ("classification", "multilabel")  # one target has the graph's name
    if takes_names and not names and not any(output.labels for output in outputs):
        raise BundleError(_names_missing(task))


def _names_missing(task: TaskName) -> str:
    called = NAMED[task]
    return (
        f"{called} is missing: the names of what the model answers, in the order of its outputs: "
        f"--{called} a,b,... (or {called} in the features file)."
    )


def _reconciled(
    said: tuple[str, ...], own: tuple[str | int, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the classes in the graph's order, and notes."""
    graph = tuple(map(str, own))
    if not said:
        return graph, (f"The classes are {', '.join(graph[:10])}, as the graph has them.",)
    if said == graph:
        return said, ()
    if sorted(said) == sorted(graph):
        return graph, (
            f"The classes are in the order of the graph: {', '.join(graph[:10])} (the order given "
            "was another).",
        )
    if len(said) != len(graph):
        raise BundleError(
            f"{len(said)} classes are given, and the graph has {len(graph)}: {listed(graph)}. "
            f"Where the {len(said)} don't exclude each other, give --task multilabel."
        )
    if all(isinstance(value, int) for value in own):
        pairs = ", ".join(f"{value} is {name!r}" for value, name in zip(own, said, strict=True))
        return said, (f"The graph's class {pairs[:300]}.",)
    raise BundleError(
        f"The classes given are {listed(said)}, and the graph's own are {listed(graph)}: give "
        "those, in any order, or leave them out."
    )


def _columns(output: GraphOutput) -> int | None:
    """Return how many columns an output has; None where that varies, or it has more dimensions."""
    shape = output.spec.shape
    if len(shape) == 1:
        return 1
    return shape[1] if len(shape) == 2 and shape[1] > 0 else None


def _check_columns(task: TaskName, answer: Answer) -> None:
    """Raise `BundleError` unless the answer has a column for each name."""
    columns, name = _columns(answer.output), shown(answer.output.spec.name)
    if task not in NAMED:
        if len(answer.output.spec.shape) < 2:
            raise BundleError(
                f"{name} has the shape {list(answer.output.spec.shape)}; an embedding has rows and "
                "at least one more dimension."
            )
        return
    called, names = NAMED[task], len(answer.names)
    if columns is None and len(answer.output.spec.shape) != 2:
        raise BundleError(
            f"{name} has the shape {list(answer.output.spec.shape)}; [rows, {called}] is expected."
        )
    if answer.is_one_score:
        if names != 2:
            raise BundleError(f"{name} has one score a row, and there are {names} {called}.")
    elif columns is not None and columns != names:
        raise BundleError(
            f"{name} has {columns} columns, but {names} {called} are given: one for each column."
        )


def _notes_of(task: TaskName, answer: Answer) -> Iterator[str]:
    name = answer.output.spec.name
    if answer.from_logits:
        added = "softmax" if task == "classification" and not answer.is_one_score else "sigmoid"
        yield f"A {added} was added after {name!r}, which has logits."
    if answer.output.is_reversed:
        yield (
            f"The columns of {name!r} change places: ONNX Runtime has the score of each class of a "
            "support vector machine in the column of the other."
        )
    if answer.is_one_score:
        what = "score" if answer.role == "scores" else "probability"
        yield f"{name!r} has one value a row, the {what} of {answer.names[1]!r}."


def _described(output: GraphOutput) -> str:
    return f"{output.spec.name} ({output.spec.datatype} {list(output.spec.shape)})"
