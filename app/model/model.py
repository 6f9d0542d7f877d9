"""A loaded model: one version, ready to answer, and immutable.

Whoever holds a `Model` holds its features, its classes and its weights together: a request that
took one reference is served by one version from start to end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.model import bundle as bundles
from app.model.batching import BatchingRuntime
from app.model.bundle import Bundle
from app.model.cache import AnswerCache
from app.model.errors import BundleError, NonFiniteOutput
from app.model.features import FeatureEncoder
from app.model.manifest import Golden
from app.model.runtime import OnnxRuntime, Runtime, RuntimeChoice, TorchRuntime, choose_runtime

GOLDEN_TOLERANCE = 1e-5
"""How far a probability may lie from the one that was packed, absolutely."""
DEVICE_GOLDEN_TOLERANCE = 1e-4
"""The same on a device beside the CPU, which sums in other orders."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one sample; ``probabilities`` has one value a class, in their order.

    ``was_cached`` tells whether it was remembered; None where nothing is.
    """

    class_index: int
    label: str
    probabilities: tuple[float, ...]
    model_version: str
    timestamp: datetime
    was_cached: bool | None = None

    @property
    def confidence(self) -> float:
        """The probability of the predicted class."""
        return self.probabilities[self.class_index]


@dataclass(frozen=True, slots=True)
class BatchPrediction:
    """The answers for ``n`` samples; iterating gives a `Prediction` a row.

    ``class_indices`` is int ``(n,)``, ``probabilities`` float32 ``(n, classes)``.
    """

    class_indices: NDArray[np.intp]
    probabilities: NDArray[np.float32]
    classes: tuple[str, ...]
    model_version: str
    timestamp: datetime

    def __len__(self) -> int:
        return len(self.class_indices)

    def __iter__(self) -> Iterator[Prediction]:
        rows = zip(self.class_indices.tolist(), self.probabilities.tolist(), strict=True)
        for index, row in rows:
            yield Prediction(
                index, self.classes[index], tuple(row), self.model_version, self.timestamp
            )

    def class_counts(self) -> dict[str, int]:
        """Count the predictions of each class that has any."""
        counts = np.bincount(self.class_indices, minlength=len(self.classes)).tolist()
        return {name: n for name, n in zip(self.classes, counts, strict=True) if n}


class Model:
    """One version of a classifier, loaded into a runtime.

    ``cache`` remembers what `predict` answered, if ``cache_size`` is not 0.
    """

    def __init__(
        self, bundle: Bundle, runtime: Runtime, checksum: str, *, cache_size: int = 0
    ) -> None:
        self.manifest = bundle.manifest
        self.runtime = runtime
        self.checksum = checksum
        self.encoder = FeatureEncoder(bundle.manifest.features)
        self.loaded_at = datetime.now(UTC)
        self.version = bundle.manifest.version
        self.cache = AnswerCache(cache_size) if cache_size else None
        self._classes = bundle.manifest.classes

    def predict(self, row: NDArray[np.float32]) -> Prediction:
        """Classify one row: raw features, float32, shape ``(1, width)``, NaN for null.

        Raises `NonFiniteOutput` when the network overflows on these values.
        """
        cache = self.cache
        was_cached: bool | None = None
        if cache is None:
            probabilities = self._run_one(row)
        else:
            key = row.tobytes()
            found = cache.get(key)
            was_cached = found is not None
            probabilities = found or self._run_one(row)
            if not was_cached:
                cache.put(key, probabilities)
        index = probabilities.index(max(probabilities))
        return Prediction(
            index, self._classes[index], probabilities, self.version, datetime.now(UTC), was_cached
        )

    def _run_one(self, row: NDArray[np.float32]) -> tuple[float, ...]:
        probabilities = tuple(self.runtime.run(row)[0].tolist())
        if not math.isfinite(sum(probabilities)):  # any NaN makes the sum NaN
            raise NonFiniteOutput
        return probabilities

    def predict_batch(self, matrix: NDArray[np.float32]) -> BatchPrediction:
        """Classify ``(n, width)`` float32 rows, ``n`` may be 0, in one pass of the network.

        Raises `NonFiniteOutput` with the rows on which the network overflows.
        """
        if len(matrix):
            probabilities = self.runtime.run(matrix)
        else:  # not every exported graph takes an empty batch
            probabilities = np.empty((0, len(self._classes)), dtype=np.float32)
        finite = np.isfinite(probabilities).all(axis=1)
        if not finite.all():
            raise NonFiniteOutput(np.flatnonzero(~finite).tolist())
        return BatchPrediction(
            probabilities.argmax(axis=1),
            probabilities,
            self._classes,
            self.version,
            datetime.now(UTC),
        )

    def self_test(self) -> None:
        """Answer the golden samples, one by one and together: warm-up and self-test in one.

        A bare checkpoint has none; it must then answer a row of zeros with probabilities.
        Raises `BundleError` when an answer is not what was packed.
        """
        golden = self.manifest.golden or self._without_golden()
        allowed = GOLDEN_TOLERANCE if self.runtime.device == "cpu" else DEVICE_GOLDEN_TOLERANCE
        batch = self._answers(golden.samples)
        single = np.concatenate([self._answers(row[np.newaxis]) for row in golden.samples])
        for answers in (batch, single):
            error = float(np.abs(answers - golden.probabilities).max())
            if not error <= allowed:
                raise BundleError(
                    f"The golden samples are answered differently than when the model was packed "
                    f"(by up to {error:.2g}, {allowed:g} is allowed): this model does not serve."
                )

    def info(self) -> dict[str, Any]:
        """Describe the model: what it takes, what it answers, and how it was loaded."""
        manifest = self.manifest
        return {
            "name": manifest.name,
            "model_version": manifest.version,
            "description": manifest.description,
            "created_at": manifest.created_at,
            "model_loaded": True,
            "num_features": self.encoder.width,
            "feature_names": list(self.encoder.names),
            "features": list(manifest.features),
            "classes": list(manifest.classes),
            "preprocessing": [dict(step) for step in manifest.preprocessing],
            "training": dict(manifest.training),
            "runtime": self.runtime.name,
            "device": self.runtime.device,
            "checksum": f"sha256:{self.checksum}",
            "loaded_at": self.loaded_at,
        }

    def _without_golden(self) -> Golden:
        zeros = np.zeros((1, self.encoder.width), dtype=np.float32)
        return Golden(zeros, self._answers(zeros))

    def _answers(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network on ``matrix`` and see that what it gives are probabilities."""
        answers = self.runtime.run(matrix)
        wanted = (len(matrix), len(self._classes))
        if answers.shape != wanted:
            raise BundleError(
                f"The network answers {wanted[0]} rows in the shape {answers.shape}, not {wanted}: "
                f"the manifest names {wanted[1]} classes."
            )
        # Written so that NaN fails too.
        if not (answers >= 0).all() or not (np.abs(answers.sum(axis=1) - 1) <= 1e-4).all():
            raise BundleError(
                "The network's answers are not probabilities: they must be finite, not negative, "
                "and sum to 1 (is softmax in the graph?)."
            )
        return answers


def load_model(
    path: Path,
    *,
    version: str = "",
    runtime: RuntimeChoice = "auto",
    device: str = "cpu",
    threads: int = 1,
    batch_rows: int = 0,
    feature_names: tuple[str, ...] = (),
    class_names: tuple[str, ...] = (),
    cache_size: int = 0,
) -> Model:
    """Load, verify and self-test the model that ``path`` (and ``version``) stands for.

    ``feature_names`` and ``class_names`` describe a checkpoint that has no manifest; a bundle's
    manifest holds its own. ``runtime``, ``device`` and ``threads`` say what executes it; with
    ``batch_rows`` the rows of several threads run together, at most so many (`BatchingRuntime`);
    ``cache_size`` is the number of rows whose answers are remembered.
    Raises `BundleError` when it can't be served.
    """
    found = bundles.find_bundle(path, version)
    if bundles.is_bare(found):
        loaded = _load_bare(
            found, runtime, device, threads, feature_names=feature_names, class_names=class_names
        )
    else:
        promised = found.name if found != path else version or None
        loaded = _load_bundle(found, promised, runtime, device, threads)
    bundle, executing, checksum = loaded
    if batch_rows:
        executing = BatchingRuntime(executing, batch_rows)
    model = Model(bundle, executing, checksum, cache_size=cache_size)
    model.self_test()
    return model


def runtime_for(path: Path, version: str, runtime: RuntimeChoice, device: str = "cpu") -> str:
    """Tell which runtime `load_model` will use, without loading anything.

    Raises `BundleError` as it would.
    """
    found = bundles.find_bundle(path, version)
    bare = bundles.is_bare(found)
    return choose_runtime(
        runtime,
        has_onnx=not bare and (found / bundles.ONNX).is_file(),
        has_checkpoint=bare or (found / bundles.CHECKPOINT).is_file(),
        device=device,
    )


_Loaded = tuple[Bundle, Runtime, str]
"""A bundle, what executes it, and the checksum of the file that is executed."""


def _load_bundle(
    path: Path, version: str | None, choice: RuntimeChoice, device: str, threads: int
) -> _Loaded:
    bundle = bundles.open_bundle(path, version)
    manifest = bundle.manifest
    name = choose_runtime(
        choice,
        has_onnx=bundle.onnx is not None,
        has_checkpoint=bundle.checkpoint is not None,
        device=device,
    )
    if name == "onnx" and bundle.onnx is not None:
        width, classes = len(manifest.features), len(manifest.classes)
        runtime = OnnxRuntime(bundle.onnx, threads, width=width, classes=classes)
        return bundle, runtime, manifest.files[bundles.ONNX].sha256
    assert bundle.checkpoint is not None  # choose_runtime saw to it
    from app.model.network import build_network, read_checkpoint

    checkpoint = read_checkpoint(bundle.checkpoint)
    told = (checkpoint.input_dim, checkpoint.output_dim, checkpoint.version)
    if told != (len(manifest.features), len(manifest.classes), manifest.version):
        raise BundleError(
            f"{bundle.checkpoint} has {told[0]} inputs, {told[1]} outputs and version "
            f"{told[2]!r}; the manifest says {len(manifest.features)}, {len(manifest.classes)} "
            f"and {manifest.version!r}."
        )
    checksum = manifest.files[bundles.CHECKPOINT].sha256
    return bundle, TorchRuntime(build_network(checkpoint), threads, device), checksum


def _load_bare(
    path: Path,
    choice: RuntimeChoice,
    device: str,
    threads: int,
    *,
    feature_names: tuple[str, ...],
    class_names: tuple[str, ...],
) -> _Loaded:
    choose_runtime(choice, has_onnx=False, has_checkpoint=True, device=device)
    from app.model.network import build_network, read_checkpoint

    file = bundles.checkpoint_path(path)
    checkpoint = read_checkpoint(file)
    network = build_network(checkpoint)  # before anything is made as large as it claims to be
    bundle = bundles.open_bare_checkpoint(
        file,
        input_dim=checkpoint.input_dim,
        output_dim=checkpoint.output_dim,
        version=checkpoint.version,
        feature_names=feature_names,
        class_names=class_names,
    )
    return bundle, TorchRuntime(network, threads, device), bundles.file_sha256(file)
