"""Packing: make a bundle of a trained network.

The network is exported to ONNX, checked against torch, run on the golden samples, and written with
a manifest. It needs ``onnx`` and ``onnxscript``, which serving does not.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..model import bundle as bundles
from ..model.errors import BundleError
from ..model.features import Feature
from ..model.golden import Golden
from ..model.manifest import Manifest
from ..model.network import Network, Preprocessing, Probabilities, save_checkpoint
from ..model.onnx_runtime import OnnxRuntime
from ..model.reference import FILE_NAME as REFERENCE
from ..model.reference import Reference, write_reference
from ..model.signature import classifier_graph
from ..model.torch_runtime import TorchRuntime
from .answers import probabilities_of
from .bundle_writer import check_replaceable, require_packages, write_bundle

PARITY_TOLERANCE = 1e-5
"""The largest absolute difference allowed between ONNX Runtime's probabilities and torch's."""

OPSET = 18
"""The version of ONNX's operators that exports use: torch's exporter writes it natively."""


def pack(
    network: Network,
    out: Path,
    *,
    name: str,
    version: str,
    features: Sequence[Feature],
    classes: Sequence[str],
    golden_samples: NDArray[np.float32],
    reference: Reference | None = None,
    description: str = "",
    training: Mapping[str, Any] | None = None,
    documents: Mapping[str, bytes] | None = None,
) -> Manifest:
    """Write the bundle of ``network`` to the directory ``out``, completely or not at all.

    ``golden_samples`` are raw features, float32 ``(n, features)``; their answers are recorded.
    ``reference`` says how the samples of training are distributed. ``documents`` (file name ->
    content) are stored beside the model: its card, pictures. An existing bundle at ``out`` is
    replaced. Raises `BundleError` if the exported network answers differently, or if ``out`` is
    something other than a bundle.
    """
    check_replaceable(out)
    network = copy.deepcopy(network).eval().requires_grad_(False)  # the caller's is not changed
    torch_runtime = TorchRuntime(network, torch.get_num_threads())
    probabilities = probabilities_of(torch_runtime, golden_samples)
    golden = Golden.of_classifier(golden_samples, probabilities)
    manifest = Manifest.of_classifier(
        name,
        version,
        features,
        classes,
        description=description,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        preprocessing=describe_preprocessing(network, [feature.name for feature in features]),
        training=training or {},
        reference=REFERENCE if reference is not None else "",
    )

    def fill(directory: Path) -> None:
        save_checkpoint(network, version, directory / bundles.CHECKPOINT)
        export_onnx(network, directory / bundles.ONNX)
        check_export(torch_runtime, directory / bundles.ONNX, parity_samples(golden_samples))
        if reference is not None:
            write_reference(reference, directory / REFERENCE)
        for file_name, content in (documents or {}).items():
            (directory / Path(file_name).name).write_bytes(content)

    return write_bundle(out, manifest, golden, fill)


def export_onnx(network: Network, path: Path) -> None:
    """Export ``network`` with preprocessing and softmax inside, for any number of rows."""
    require_packages("onnx", "onnxscript")
    module = Probabilities(network).eval()
    example = torch.zeros((2, network.dims[0]))
    with quiet_exporter():
        program = torch.onnx.export(
            module,
            (example,),
            input_names=["features"],
            output_names=["probabilities"],
            dynamic_shapes={"features": {0: torch.export.Dim("rows", min=1)}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # dynamo=True always returns a program
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with the paths of the packing machine
    program.save(str(path), external_data=False)


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence torch's warnings about its own deprecations and about optional packages.

    Failures are in its exceptions.
    """
    loggers = [logging.getLogger(f"torch.{name}") for name in ("onnx", "export", "_subclasses")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def parity_samples(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return inputs to test the export: ``samples``, noise around them, nulls and extremes."""
    random = np.random.default_rng(0)
    centres = np.nan_to_num(samples, nan=0.0)[random.integers(len(samples), size=500)]
    noisy = centres * random.normal(1.0, 2.0, size=centres.shape)
    largest = float(np.finfo(np.float32).max)
    extremes = np.array([0.0, -1.0, 1e-30, 1e9, -1e9, largest, -largest, np.nan])
    corners = random.choice(extremes, size=(500, samples.shape[1]))
    return np.concatenate([samples, noisy, corners]).astype(np.float32)


def check_export(reference: TorchRuntime, path: Path, samples: NDArray[np.float32]) -> float:
    """Return the largest difference between ``path``'s probabilities and ``reference``'s.

    Raises `BundleError` if it exceeds ``PARITY_TOLERANCE``, or is not a number.
    """
    expected = probabilities_of(reference, samples)
    signature = classifier_graph(samples.shape[1], expected.shape[1])
    answers = probabilities_of(OnnxRuntime(path, 1, signature), samples)
    # A network without preprocessing may overflow on extremes: then both must.
    both_overflow = np.isnan(answers) & np.isnan(expected)
    error = float(np.where(both_overflow, 0.0, np.abs(answers - expected)).max())
    if not error <= PARITY_TOLERANCE:
        raise BundleError(
            f"The ONNX export differs from torch by up to {error:.2g}; {PARITY_TOLERANCE:g} is "
            "allowed."
        )
    return error


def describe_preprocessing(network: Network, names: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """Return what the network does to its raw input, step by step, for people."""
    steps = network.preprocessing
    if not isinstance(steps, Preprocessing):
        return ()

    def by_name(values: torch.Tensor) -> dict[str, float]:
        return {
            name: round(value, 6)
            for name, value in zip(names, values.tolist(), strict=True)
            if np.isfinite(value)
        }

    return (
        {"step": "impute", "median": by_name(steps.impute.median)},
        {
            "step": "clip",
            "minimum": by_name(steps.clip.minimum),
            "maximum": by_name(steps.clip.maximum),
        },
        {
            "step": "log1p",
            "features": [
                name for name, on in zip(names, steps.log1p.selected.tolist(), strict=True) if on
            ],
        },
        {
            "step": "standardise",
            "mean": by_name(steps.standardise.mean),
            "scale": by_name(steps.standardise.scale),
        },
    )
