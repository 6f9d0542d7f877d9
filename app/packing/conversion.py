"""Conversion: from a user's file to a bundle that is checked to answer as the original does.

It runs in a child process (`app.model.isolation`): the file may be hostile.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from msgspec import structs

from ..model import bundle as bundles
from ..model.errors import BundleError, listed
from ..model.golden import Golden
from ..model.manifest import EXACT, Manifest, Target, TaskName
from ..model.reference import FILE_NAME, write_reference
from ..model.signature import Tensors, TensorSpec, row_count
from .answers_shown import shown_answers
from .bundle_writer import write_bundle
from .checks import run_of
from .comparison import check_answers, check_golden, make_served
from .description import ModelDescription
from .examples import SUFFIXES
from .faults import Faults
from .material import Material, gather
from .plan import Plan
from .preprocessing import check_preprocessing
from .reading import fixed_rows, in_parts, open_source
from .reference import reference_of
from .roles import Answer, Roles, check_outputs_exist, missing_options, roles_of
from .source import CHECKPOINT_SUFFIXES, GraphOutput, GraphSource
from .statement import Statement, names_of_answer, task_of_model


def make_bundle(
    path: Path,
    out: Path,
    *,
    description: ModelDescription,
    statement: Statement,
    samples: Path | None,
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
    with tempfile.TemporaryDirectory() as scratch:
        if path.is_dir():
            from .huggingface.model import open_directory

            opened = open_directory(path, description, statement, Path(scratch))
            source, description, statement = opened.source, opened.description, opened.statement
        else:
            source = open_source(path, statement, description, samples)
        return make_bundle_of_source(source, out, description, statement, samples)


def make_bundle_of_source(
    source: GraphSource,
    out: Path,
    description: ModelDescription,
    statement: Statement,
    samples: Path | None,
) -> list[str]:
    """Write the bundle ``out`` from a model that is opened; see `make_bundle`."""
    path = source.path
    try:
        return _make(source, out, description, statement, samples)
    except BundleError as error:
        if str(error).startswith((str(path), str(samples))):
            raise
        raise BundleError(f"{path}: {error}") from error


def _make(
    source: GraphSource,
    out: Path,
    description: ModelDescription,
    statement: Statement,
    samples: Path | None,
) -> list[str]:
    path = source.path
    task, names, material, notes = _as_said(source, description, statement, samples)
    if source.preprocess is not None:
        check_preprocessing(source.preprocess, material, path)
    rows = fixed_rows(source.inputs) if material.has_rows else None
    original = in_parts(run_of(source.ask, path), source, rows)
    answered = original(material.filled(material.tried))
    outputs = _as_run(source.outputs, answered, material)
    roles = roles_of(task, statement, names, outputs)
    if not material.has_rows:
        roles = _own_labels(roles)
    plan = Plan(source, task, roles, material, original, answered, rows)
    check_answers(plan)
    told = _convert(plan, out, description, statement)
    return [*source.notes, *notes, *material.notes, *roles.notes, *told]


def _as_said(
    source: GraphSource,
    description: ModelDescription,
    statement: Statement,
    samples: Path | None,
) -> tuple[TaskName, tuple[str, ...], Material, tuple[str, ...]]:
    """Return the task, the names in its answer, the samples, and notes; all before the model runs.

    Raises `BundleError` with everything that is missing or wrong, as far as it can be known.
    """
    faults = Faults()
    assumed = faults.attempt(task_of_model, statement, description, source.outputs)
    task = assumed[0] if assumed else None
    named = faults.attempt(names_of_answer, task, statement, description) if task else None
    faults.attempt(check_outputs_exist, statement, source.outputs)
    material = faults.attempt(_material, task, source, description, statement, samples)
    if faults and (task is None or named is not None):
        names = named[0] if named else statement.names
        for missing in missing_options(task, statement, names, source.outputs):
            faults.add(missing)
    faults.check()
    assert assumed is not None
    assert named is not None
    assert material is not None
    return assumed[0], named[0], material, (*assumed[1], *named[1])


def _material(
    task: TaskName | None,
    source: GraphSource,
    description: ModelDescription,
    statement: Statement,
    samples: Path | None,
) -> Material:
    if task == "tensors":
        faults = Faults()
        if description.features:
            faults.add(
                "The task tensors has no features: leave --features out, and give samples as a "
                ".npz or .json with an array for each input."
            )
        if description.steps:
            faults.add(
                "Steps are for a task with an answer, and the task is tensors: give another "
                "--task, or leave the steps out."
            )
        if samples is not None and samples.suffix not in SUFFIXES:
            faults.add(
                f"{samples} must be a .npz or .json with an array for each input where the task is "
                f"tensors: {listed(spec.name for spec in source.inputs)}."
            )
        faults.check()
    return gather(description, samples, source.inputs, truth=statement.truth)


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
    if material.has_rows and shape[:1] == (row_count(material.tried),):  # only rows vary
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


def _convert(
    plan: Plan, out: Path, description: ModelDescription, statement: Statement
) -> list[str]:
    """Write the bundle; return what was measured, a sentence each."""
    material, answer = plan.material, plan.roles.answer
    with tempfile.TemporaryDirectory() as scratch:
        compared = make_served(plan, Path(scratch) / bundles.ONNX)
        golden = Golden(material.golden, compared.run(material.golden), material.raw)
        check_golden(plan, compared, golden)
        reference = reference_of(plan, compared, statement)
    served = compared.served
    manifest = Manifest(
        name=out.parent.name,
        version=out.name,
        task=plan.task,
        inputs=material.inputs,
        outputs=served.outputs,
        features=material.features,
        steps=description.steps,
        top=description.top,
        tolerances={name: each for name, each in compared.tolerances.items() if each != EXACT},
        batch=compared.batch,
        description=description.description,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        preprocessing=_preprocessing(description),
        training=description.training,
        reference=FILE_NAME if reference is not None else "",
    )

    def fill(directory: Path) -> None:
        (directory / bundles.ONNX).write_bytes(served.content)
        if reference is not None:
            write_reference(reference, directory / FILE_NAME)
        for name, file in description.files.items():
            shutil.copyfile(file, directory / name)

    write_bundle(out, _with_names(manifest, answer, description), golden, fill)
    return [*compared.notes, *shown_answers(plan, golden, served.outputs)]


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
