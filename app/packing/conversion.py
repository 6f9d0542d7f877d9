"""Conversion: from a user's file to a bundle that is checked to answer as the original does.

It runs in a child process (`app.model.isolation`): the file may be hostile.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from ..model import bundle as bundles
from ..model.errors import BundleError
from ..model.features import Feature
from ..model.golden import Golden
from ..model.manifest import Manifest
from ..model.runtime import OnnxRuntime, TorchRuntime
from ..model.signature import classifier_graph
from .answers import probabilities_of
from .bundle_writer import write_bundle
from .checks import (
    about_precision,
    about_rows,
    are_probabilities,
    check_finite,
    check_form,
    check_nulls,
    check_parity,
    check_rows_alone,
    filled,
    trying_inputs,
)
from .description import ModelDescription
from .network import pack
from .samples import Samples, read_samples, with_ranges
from .source import CHECKPOINT_SUFFIXES, GRAPH_SUFFIX, Matrix, Outputs, Source

_TRIED_ROWS = 1000
"""The most rows of the samples that are tried on the original and on the bundle."""


def make_bundle(
    source: Path,
    out: Path,
    *,
    description: ModelDescription,
    samples: Path,
    outputs: Outputs = "auto",
) -> None:
    """Write the bundle ``out``, whose path has name and version, from the model in ``source``.

    Raises `BundleError`, with a message for the user, and OSError.
    """
    rows = read_samples(samples, description.features)
    try:
        features = with_ranges(description.features, rows)
    except BundleError as error:
        raise BundleError(f"{samples}: {error}") from None
    manifest = Manifest.of_classifier(
        out.parent.name,
        out.name,
        features,
        description.classes,
        description=description.description,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        training=description.training,
    )
    medians = description.medians
    if source.suffix in CHECKPOINT_SUFFIXES:
        _pack_checkpoint(source, out, manifest, rows, medians=medians, outputs=outputs)
    else:
        graph = _read(source)
        _pack_graph(graph, out, manifest, rows, medians=medians, outputs=outputs)


def _read(path: Path) -> Source:
    # Each imports much that the other doesn't need.
    if path.suffix == GRAPH_SUFFIX:
        from .graph import read_graph

        return read_graph(path)
    from .program import read_program

    return read_program(path)


def _pack_checkpoint(
    path: Path,
    out: Path,
    manifest: Manifest,
    rows: Samples,
    *,
    medians: Mapping[str, float],
    outputs: Outputs,
) -> None:
    import torch

    from ..model.network import build_network, read_checkpoint

    if outputs == "probabilities":
        raise BundleError(f"{path} is a checkpoint: its network returns logits, not probabilities.")
    if medians:
        raise BundleError(
            f"{path} is a checkpoint, whose own preprocessing imputes; remove median from the "
            "features file, or pack the model as a .pt2."
        )
    checkpoint = read_checkpoint(path)
    told = (checkpoint.input_dim, checkpoint.output_dim)
    wanted = (len(manifest.features), len(manifest.classes))
    if told != wanted:
        raise BundleError(
            f"{path} has {told[0]} inputs and {told[1]} outputs, but the features file describes "
            f"{wanted[0]} features and {wanted[1]} classes."
        )
    network = build_network(checkpoint)
    tried, golden = rows.spread(_TRIED_ROWS), rows.spread()
    runtime = TorchRuntime(network, torch.get_num_threads())
    check_finite(probabilities_of(runtime, tried.matrix), tried, path)
    check_nulls(runtime, manifest.features, golden, path)
    pack(
        network,
        out,
        name=manifest.name,
        version=manifest.version,
        features=manifest.features,
        classes=manifest.classes,
        golden_samples=golden.matrix,
        description=manifest.description,
        training=manifest.training,
    )


def _pack_graph(
    source: Source,
    out: Path,
    manifest: Manifest,
    rows: Samples,
    *,
    medians: Mapping[str, float],
    outputs: Outputs,
) -> None:
    from .graph import served_graph

    path, width, classes = source.path, len(manifest.features), len(manifest.classes)
    tried, golden = rows.spread(_TRIED_ROWS), rows.spread()
    stand_in = _stand_in(manifest.features, medians)
    raw = source.ask(filled(tried.matrix, stand_in))
    check_form(raw, classes, path)
    check_finite(raw, tried, path)
    softmax = not are_probabilities(raw, outputs, path)
    content = served_graph(
        source,
        medians=stand_in if medians else None,
        softmax=softmax,
        width=width,
        classes=classes,
    )
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / bundles.ONNX
        file.write_bytes(content)
        runtime = _served(file, source, width=width, classes=classes)
        tries = trying_inputs(tried, manifest.features)
        check_rows_alone(runtime, source, golden)
        check_parity(runtime, source, tries, stand_in, softmax=softmax)
        check_nulls(runtime, manifest.features, golden, path)
        answers = probabilities_of(runtime, golden.matrix)
    complete = replace(
        manifest,
        preprocessing=({"step": "impute", "median": dict(medians)},) if medians else (),
    )

    def fill(directory: Path) -> None:
        (directory / bundles.ONNX).write_bytes(content)

    write_bundle(out, complete, Golden.of_classifier(golden.matrix, answers), fill)


def _stand_in(features: Sequence[Feature], medians: Mapping[str, float]) -> Matrix:
    """Return the values that replace null: float32 ``(features,)``, NaN where null is kept."""
    return np.array([medians.get(f.name, np.nan) for f in features], dtype=np.float32)


def _served(file: Path, source: Source, *, width: int, classes: int) -> OnnxRuntime:
    """Return the runtime with which a worker would serve the graph in ``file``."""
    try:
        return OnnxRuntime(file, 1, classifier_graph(width, classes))
    except BundleError as error:
        why = str(error).replace(str(file), f"{source.path}, as it would be served,")
        raise BundleError(f"{why}{about_rows(source)}{about_precision(source)}") from error
