"""A checkpoint of Lantern's own network as a bundle: it classifies named numbers."""

from __future__ import annotations

from pathlib import Path

import torch

from ..model.errors import BundleError
from ..model.network import build_network, read_checkpoint
from ..model.signature import FEATURES, PROBABILITIES, matrix_spec
from ..model.torch_runtime import TorchRuntime
from .checks import check_finite, check_nulls, run_of
from .description import ModelDescription
from .material import gather
from .network import pack
from .statement import Statement, names_of_answer


def pack_checkpoint(
    path: Path,
    out: Path,
    *,
    description: ModelDescription,
    statement: Statement,
    samples: Path | None,
) -> list[str]:
    """Write the bundle ``out`` of the checkpoint in ``path``; see `make_bundle`."""
    checkpoint = read_checkpoint(path)  # first: a file that is none says what to do with it
    _check_stated(path, description, statement)
    if samples is None:
        raise BundleError(
            f"{path} is a checkpoint, which is packed with samples: --samples, a CSV file."
        )
    classes, notes = names_of_answer("classification", statement, description)
    told = (checkpoint.input_dim, checkpoint.output_dim)
    wanted = (len(description.features), len(classes))
    if told != wanted:
        raise BundleError(
            f"{path} has {told[0]} inputs and {told[1]} outputs, but the features file describes "
            f"{wanted[0]} features and {wanted[1]} classes."
        )
    material = gather(description, samples, [matrix_spec(told[0])])
    runtime = TorchRuntime(build_network(checkpoint), torch.get_num_threads())
    run = run_of(runtime.run, path)
    tried = run(material.tried)[PROBABILITIES]
    check_finite(tried, material, path, PROBABILITIES)
    check_nulls(run, material, path, PROBABILITIES)
    pack(
        build_network(checkpoint),
        out,
        name=out.parent.name,
        version=out.name,
        features=material.features,
        classes=classes,
        golden_samples=material.golden[FEATURES],
        description=description.description,
        training=description.training,
    )
    return [*notes, *material.notes]


def _check_stated(path: Path, description: ModelDescription, statement: Statement) -> None:
    """Raise `BundleError` for what can't be said of a checkpoint."""
    if statement.task not in (None, "classification"):
        raise BundleError(
            f"{path} is a checkpoint of Lantern's own network, which classifies; the task can't be "
            f"{statement.task}."
        )
    if statement.roles or statement.role not in (None, "logits"):
        raise BundleError(
            f"{path} is a checkpoint: its network returns logits; leave --outputs out."
        )
    if description.steps:
        raise BundleError(
            f"{path} is a checkpoint, which takes features: describe those in place of steps."
        )
    if description.medians:
        raise BundleError(
            f"{path} is a checkpoint, whose own preprocessing imputes; remove median from the "
            "features file, or pack the model as a .pt2."
        )
