"""Make a bundle of a user's own model: a checkpoint, an exported program or an ONNX graph.

Whatever it was, what is served needs none of its Python code: a graph in ONNX (and of our own
network the checkpoint too), which was seen to answer as the original does.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from app.model import bundle as bundles
from app.model import manifest as manifests
from app.model.errors import BundleError
from app.model.features import Feature
from app.model.manifest import VERSION, VERSION_FORM, Golden, Manifest
from app.model.pack import check_replaceable, pack, require_packages, write_bundle
from app.model.packing.checks import (
    Outputs,
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
from app.model.packing.description import ModelDescription
from app.model.packing.samples import Samples, read_samples, with_ranges
from app.model.packing.source import Matrix, Source
from app.model.release import read_release
from app.model.runtime import OnnxRuntime, TorchRuntime

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".ckpt")
PROGRAM_SUFFIX = ".pt2"
GRAPH_SUFFIX = ".onnx"

_TRIED_ROWS = 1000
"""How many rows of the samples are tried on the original and on the bundle, at most."""


def pack_file(
    source: Path,
    out: Path,
    *,
    description: ModelDescription,
    samples: Path,
    outputs: Outputs = "auto",
    replace: bool = False,
) -> Manifest:
    """Write the bundle ``out`` (``models/NAME/VERSION``) of the model in the file ``source``.

    The file's suffix tells what it is: ``.pt``, ``.pth`` or ``.ckpt`` a checkpoint of our network,
    ``.pt2`` an exported program, ``.onnx`` a graph. ``samples`` is a CSV file with a column for
    each feature. A bundle that is there is kept unless ``replace``. Raises `BundleError`, in words
    for the user; ``out`` is then as it was.
    """
    name, version = _place(out, description)
    check_replaceable(out)
    if not replace and out.is_dir() and any(out.iterdir()):
        raise BundleError(
            f"{out} is there already. Pack the model as another version, or replace this one on "
            "purpose."
        )
    _refuse_released(out)
    if source.suffix not in (*CHECKPOINT_SUFFIXES, PROGRAM_SUFFIX, GRAPH_SUFFIX):
        raise BundleError(
            f"{source} is none of .pt2 (torch.export.save), .onnx, and .pt, .pth, .ckpt (a "
            "checkpoint of Lantern's network)."
        )
    require_packages()
    rows = read_samples(samples, description.features)
    try:
        features = with_ranges(description.features, rows)
    except BundleError as error:
        raise BundleError(f"{samples}: {error}") from None
    manifest = Manifest(
        name=name,
        version=version,
        features=features,
        classes=description.classes,
        description=description.description,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        training=description.training,
    )
    try:
        if source.suffix in CHECKPOINT_SUFFIXES:
            return _pack_checkpoint(
                source, out, manifest, rows, medians=description.medians, outputs=outputs
            )
        return _pack_graph(
            _read(source),
            out,
            manifest,
            rows,
            medians=description.medians,
            outputs=outputs,
            replaces=replace,
        )
    except OSError as error:
        raise BundleError(f"{out} can't be written: {error.strerror}.") from error


def _place(out: Path, description: ModelDescription) -> tuple[str, str]:
    """Give the name and the version that the path of a bundle promises."""
    name, version = out.absolute().parts[-2:] if len(out.absolute().parts) > 2 else ("", "")
    for what, text in (("name", name), ("version", version)):
        if not VERSION.fullmatch(text):
            raise BundleError(
                f"{out} must end in the name of the model and its version, as in models/churn/1; "
                f"a {what} must be {VERSION_FORM}."
            )
    if description.name not in ("", name):
        raise BundleError(
            f"The features file calls the model {description.name!r}, and {out} calls it {name!r}; "
            "name both alike, or leave it out of the file."
        )
    return name, version


def _read(path: Path) -> Source:
    # Both import much that the other doesn't need.
    if path.suffix == GRAPH_SUFFIX:
        from app.model.packing.graph import read_graph

        return read_graph(path)
    from app.model.packing.program import read_program

    return read_program(path)


def _pack_checkpoint(
    path: Path,
    out: Path,
    manifest: Manifest,
    rows: Samples,
    *,
    medians: Mapping[str, float],
    outputs: Outputs,
) -> Manifest:
    import torch

    from app.model.network import build_network, read_checkpoint

    if outputs == "probabilities":
        raise BundleError(f"{path} is a checkpoint: its network gives logits, not probabilities.")
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
            f"{path} has {told[0]} inputs and {told[1]} outputs, and the features file describes "
            f"{wanted[0]} features and {wanted[1]} classes."
        )
    network = build_network(checkpoint)
    tried, golden = rows.spread(_TRIED_ROWS), rows.spread()
    runtime = TorchRuntime(network, torch.get_num_threads())
    check_finite(runtime.run(tried.matrix), tried, path)
    check_nulls(runtime, manifest.features, golden, path)
    return pack(
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
    replaces: bool,
) -> Manifest:
    from app.model.packing.graph import served_graph

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
        answers = runtime.run(golden.matrix)
    complete = dataclasses.replace(
        manifest,
        golden=Golden(golden.matrix, answers),
        preprocessing=({"step": "impute", "median": dict(medians)},) if medians else (),
    )

    def fill(directory: Path) -> None:
        (directory / bundles.ONNX).write_bytes(content)

    return write_bundle(out, complete, fill, replaces=replaces)


def _stand_in(features: Sequence[Feature], medians: Mapping[str, float]) -> Matrix:
    """Give the values that stand in for null: float32 ``(features,)``, NaN where null stays."""
    return np.array([medians.get(f.name, np.nan) for f in features], dtype=np.float32)


def _served(file: Path, source: Source, *, width: int, classes: int) -> OnnxRuntime:
    """Give what a worker would serve the graph in ``file`` with."""
    try:
        return OnnxRuntime(file, threads=1, width=width, classes=classes)
    except BundleError as error:
        why = str(error).replace(str(file), f"{source.path} as it would be served")
        raise BundleError(f"{why}{about_rows(source)}{about_precision(source)}") from error


def _refuse_released(out: Path) -> None:
    """Raise `BundleError` for a version that serves: to replace it would be a release that nobody
    verified, compared, or wrote into the history.
    """
    if not (out / manifests.FILE_NAME).is_file():
        return
    release = None
    with suppress(BundleError):  # what is not to be read releases nothing
        release = read_release(out.parent)
    if release is not None and out.name in release.versions:
        raise BundleError(
            f"Version {out.name} is released, and is not replaced; pack the model as another "
            "version, and promote that."
        )
