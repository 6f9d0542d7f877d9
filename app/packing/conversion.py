"""Conversion: from a user's file to a bundle that is checked to answer as the original does.

It runs in a child process (`app.model.isolation`): the file may be hostile.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from msgspec import structs

from ..model import bundle as bundles
from ..model.errors import BundleError, listed, shown
from ..model.golden import Golden, same_strings
from ..model.manifest import EXACT, Manifest, Target, TaskName, Tolerance
from ..model.reference import FILE_NAME, Reference, write_reference
from ..model.runtime import OnnxRuntime
from ..model.self_test import is_close
from ..model.signature import OutputSpec, Signature, Tensors, TensorSpec, row_count
from .bundle_writer import write_bundle
from .checks import (
    Allowed,
    Run,
    are_rows,
    check_finite,
    check_logits,
    check_nulls,
    check_probabilities,
    check_rows_alone,
    check_same,
    run_of,
    tolerance_of,
)
from .description import ModelDescription
from .material import Material, gather
from .reading import fixed_rows, in_rows, open_source
from .reference import MAX_FEATURES, make_reference
from .roles import Answer, Roles, roles_of
from .samples import read_column
from .served import Served, expected, magnitudes, serve, wanted
from .source import CHECKPOINT_SUFFIXES, GraphOutput, GraphSource
from .statement import Statement, names_of_answer, task_of_model
from .tries import tries

_PART = 1_000
"""How many rows are run together for the reference."""


def make_bundle(
    path: Path, out: Path, *, description: ModelDescription, statement: Statement, samples: Path
) -> list[str]:
    """Write the bundle ``out``, whose path has name and version, from the model in ``path``.

    Returns what was assumed and measured, a sentence each. Raises `BundleError`, with a message for
    the user, and OSError.
    """
    if path.suffix in CHECKPOINT_SUFFIXES and not statement.allow_code:
        from .checkpoint import pack_checkpoint

        return pack_checkpoint(
            path, out, description=description, statement=statement, samples=samples
        )
    source = open_source(path, statement, samples)
    task, notes = task_of_model(statement, description, source.outputs)
    names, more = names_of_answer(task, statement, description)
    material = gather(description, samples, source.inputs)
    if material.features and task == "tensors":
        raise BundleError(
            "The task tensors has no features: leave --features out, and give samples as a .npz or "
            ".json with an array for each input."
        )
    rows = fixed_rows(source.inputs, path) if material.features else None
    original = in_rows(run_of(source.ask, path), rows)
    outputs = _as_run(source.outputs, original(material.filled(material.tried())), material)
    roles = roles_of(task, statement, names, outputs)
    if not material.features:
        roles = _own_labels(roles)
    made = _Conversion(source, task, roles, material, original)
    made.check_answers()
    told = made.convert(out, description, statement)
    return [*source.notes, *notes, *more, *material.notes, *roles.notes, *told]


def _as_run(
    outputs: Sequence[GraphOutput], found: Tensors, material: Material
) -> tuple[GraphOutput, ...]:
    """Return the outputs with the shapes that a run has: a graph need not say them, or may be
    wrong.
    """
    return tuple(
        structs.replace(
            output, spec=_spec_as_run(output.spec, found[output.spec.name].shape, material)
        )
        for output in outputs
    )


def _spec_as_run(spec: TensorSpec, shape: tuple[int, ...], material: Material) -> TensorSpec:
    stated = spec.shape if len(spec.shape) == len(shape) else (-1,) * len(shape)
    if material.features:  # rows, and columns that don't vary
        return structs.replace(spec, shape=(-1, *shape[1:]))
    sizes = (size if size == found else -1 for size, found in zip(stated, shape, strict=True))
    return structs.replace(spec, shape=tuple(sizes))


def _own_labels(roles: Roles) -> Roles:
    """Return roles in which a label is an output as the graph has it, with its own values."""
    answer = roles.answer
    if answer is None or answer.label is None:
        return roles
    others = ((answer.label, "tensor"), *roles.others)
    return replace(roles, answer=replace(answer, label=None, label_values=()), others=others)


class _Conversion:
    """One model on its way into a bundle."""

    def __init__(
        self,
        source: GraphSource,
        task: TaskName,
        roles: Roles,
        material: Material,
        original: Run,
    ) -> None:
        self._source, self._task, self._roles = source, task, roles
        self._material, self._original = material, original

    def check_answers(self) -> None:
        """Raise `BundleError` where the original's answers to the samples can't be served."""
        answer, material = self._roles.answer, self._material
        if answer is None:
            return
        found = self._original(material.filled(material.tried()))
        name = answer.output.spec.name
        check_finite(found[name], material, self._source.path, name)
        if answer.from_logits:
            check_logits(found[name], self._source.path, name)
        if answer.role == "probabilities":
            values = expected(self._task, answer, found)["probabilities"]
            is_exclusive = self._task == "classification"
            check_probabilities(values, material, self._source.path, name, sum_to_one=is_exclusive)

    def convert(self, out: Path, description: ModelDescription, statement: Statement) -> list[str]:
        """Write the bundle; return what was measured, a sentence each."""
        source, material = self._source, self._material
        served = serve(source, self._task, self._roles, material)
        outputs = served.outputs
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / bundles.ONNX
            file.write_bytes(served.content)
            run = self._runtime(file, outputs)
            tolerances = {spec.name: tolerance_of(spec) or EXACT for spec in outputs}
            batch, notes = self._compare(run, served, tolerances)
            golden = Golden(material.golden(), run(material.golden()))
            self._check_golden(run, golden, tolerances)
            reference = self._reference(run, statement)
        answer = self._roles.answer
        manifest = Manifest(
            name=out.parent.name,
            version=out.name,
            task=self._task,
            inputs=material.inputs,
            outputs=outputs,
            features=material.features,
            tolerances={n: each for n, each in tolerances.items() if each != EXACT},
            batch=batch,
            description=description.description,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            preprocessing=_preprocessing(description),
            training=description.training,
            reference=FILE_NAME if reference is not None else "",
        )
        manifest = _with_names(manifest, answer, description)

        def fill(directory: Path) -> None:
            (directory / bundles.ONNX).write_bytes(served.content)
            if reference is not None:
                write_reference(reference, directory / FILE_NAME)

        write_bundle(out, manifest, golden, fill)
        return [*notes, *_shown_answer(self._task, answer, golden, outputs)]

    def _runtime(self, file: Path, outputs: tuple[OutputSpec, ...]) -> Run:
        """Return what runs the graph in ``file`` as a worker would."""
        path = f"{self._source.path}, as it would be served,"
        try:
            runtime = OnnxRuntime(file, 1, Signature(self._material.inputs, outputs))
        except BundleError as error:
            raise BundleError(str(error).replace(str(file), path)) from error
        return run_of(runtime.run, path)

    def _compare(
        self, run: Run, served: Served, tolerances: dict[str, Tolerance]
    ) -> tuple[bool, list[str]]:
        """Compare what is served with the original. Return whether rows may run together, and what
        was measured.
        """
        source, material = self._source, self._material
        notes = []
        if material.features:
            apart = check_rows_alone(run, material, source, tolerances)
            notes.append(f"A row alone and with others: the same within {apart:.1g}.")
            batch = True
        else:
            batch = are_rows(run, material.samples, tolerances)
        given, answer = tries(material), self._roles.answer
        theirs = self._original(material.filled(given))
        correct = wanted(served, self._task, answer, theirs)
        found = run(given)
        largest = 0.0
        for spec, original in zip(served.outputs, served.originals, strict=True):
            is_made = answer is not None and original is None and spec.role == "probabilities"
            times = magnitudes(answer, theirs) if answer is not None and is_made else None
            off = check_same(
                found[spec.name],
                correct[spec.name],
                Allowed(tolerances[spec.name], times),
                material,
                f"{source.path}, as it would be served: {shown(spec.name)}",
            )
            largest = max(largest, off or 0.0)
        notes.append(f"The original and what is served: the same within {largest:.1g}.")
        if material.features:
            check_nulls(run, material, source.path, served.outputs[0].name)
        return batch, notes

    def _reference(self, run: Run, statement: Statement) -> Reference | None:
        """Return how the samples of a model with features are distributed, and its answers."""
        material, answer = self._material, self._roles.answer
        if answer is None or not 0 < len(material.features) <= MAX_FEATURES:
            if statement.truth:
                raise BundleError("--truth is for models with features, whose samples are a CSV.")
            return None
        rows, places = material.referred()
        parts = [
            run({name: array[start : start + _PART] for name, array in rows.items()})
            for start in range(0, row_count(rows), _PART)
        ]
        answers = np.concatenate([part[answer.role] for part in parts])
        return make_reference(
            material.encoder,
            rows,
            answers.reshape(len(answers), -1),
            answer.names,
            truth=self._truth(answer, statement, places),
            real_rows=statement.real_background,
        )

    def _truth(self, answer: Answer, statement: Statement, places: list[int]) -> list[str] | None:
        """Return the name of the true class of each row, if the samples have it."""
        if not statement.truth:
            return None
        if self._task != "classification" or not self._material.lines:
            raise BundleError("--truth is for classifiers, whose samples are a CSV.")
        cells = read_column(self._material.path, statement.truth)
        known = dict(zip(map(str, answer.label_values), answer.names, strict=False))
        known |= {name: name for name in answer.names}
        for line, cell in zip(self._material.lines, cells, strict=True):
            if cell not in known:
                raise BundleError(
                    f"{self._material.path}: line {line}, column {statement.truth!r}: "
                    f"{cell[:40]!r} is not one of the classes, {listed(answer.names)}."
                )
        return [known[cells[place]] for place in places]

    def _check_golden(self, run: Run, golden: Golden, tolerances: dict[str, Tolerance]) -> None:
        """Raise `BundleError` for golden data that a worker would not find the same again."""
        again = run(golden.inputs)
        for name, array in golden.outputs.items():
            if not is_close(again[name], array, tolerances[name]):
                raise BundleError(
                    f"{self._source.path} answers the same example differently each time "
                    f"({shown(name)}); a bundle must answer alike. Does it draw random numbers, or "
                    "keep a state?"
                )
        for name, array in (*golden.inputs.items(), *golden.outputs.items()):
            if array.dtype.kind == "O" and not same_strings(array):
                raise BundleError(
                    f"{self._source.path}: {shown(name)} has a string that ends with a null "
                    "character, which golden data can't hold; use another example."
                )


def _with_names(
    manifest: Manifest, answer: Answer | None, description: ModelDescription
) -> Manifest:
    """Return the manifest with the names of the answer's columns."""
    if answer is None or not answer.names:
        return manifest
    if manifest.task == "classification":
        return structs.replace(manifest, classes=answer.names)
    if manifest.task == "multilabel":
        return structs.replace(manifest, labels=answer.names)
    described = {target.name: target for target in description.targets}
    targets = tuple(described.get(name, Target(name)) for name in answer.names)
    return structs.replace(manifest, targets=targets)


def _preprocessing(description: ModelDescription) -> tuple[dict[str, object], ...]:
    medians = dict(description.medians)
    return ({"step": "impute", "median": medians},) if medians else ()


def _shown_answer(
    task: TaskName, answer: Answer | None, golden: Golden, outputs: Sequence[OutputSpec]
) -> list[str]:
    """Return the answer to a sample in words, for its owner to recognise."""
    if answer is None or not answer.names:
        return []
    row = min(1, golden.rows - 1)
    values = golden.outputs[outputs[0].name][row].reshape(-1)
    if task == "classification":
        index = int(values.argmax())
        if answer.label is not None:
            index = int(golden.outputs[outputs[1].name][row])
        said = f"{answer.names[index]} {values[index]:.4g}"
    else:
        pairs = zip(answer.names, values.tolist(), strict=True)
        said = ", ".join(f"{name} {value:.4g}" for name, value in list(pairs)[:5])
    return [f"Golden sample {row + 1} of {golden.rows} -> {said}."]
