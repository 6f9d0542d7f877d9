"""A loaded model: one version, ready to answer, and immutable.

A `Model` holds its features, classes and weights together: a request that took one reference is
served by one version from start to end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .cache import AnswerCache
from .errors import MAX_FAULTS, BundleError, NonFiniteOutput
from .features import FeatureEncoder
from .isolation import DEFAULT_LIMITS
from .manifest import Golden
from .runtime import Runtime
from .signature import classifier_signature

GOLDEN_TOLERANCE = 1e-5
"""The largest absolute difference allowed from a packed probability."""
DEVICE_GOLDEN_TOLERANCE = 1e-4
"""The same on a device other than the CPU, which sums in another order."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction for one sample; ``probabilities`` has one value per class, in their order.

    ``was_cached`` is True if it came from the cache; None without a cache.
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
    """The predictions for ``n`` samples; iterating yields a `Prediction` per row.

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
        """Count the predictions of each class that occurs."""
        counts = np.bincount(self.class_indices)
        return {self.classes[index]: int(counts[index]) for index in np.flatnonzero(counts)}


class Model:
    """One version of a classifier, loaded into a runtime.

    ``cache`` stores the answers of `predict`, unless ``cache_size`` is 0. ``check_seconds`` limits
    the self-test.
    """

    def __init__(
        self,
        bundle: Bundle,
        runtime: Runtime,
        checksum: str,
        *,
        name: str = "",
        cache_size: int = 0,
        check_seconds: float = DEFAULT_LIMITS.seconds,
    ) -> None:
        self._check_seconds = check_seconds
        self.manifest = bundle.manifest
        self.runtime = runtime
        self.checksum = checksum
        self.encoder = FeatureEncoder(bundle.manifest.features)
        self.loaded_at = datetime.now(UTC)
        self.name = name or bundle.manifest.name
        self.version = bundle.manifest.version
        self.classes = bundle.manifest.classes
        self.signature = classifier_signature(self.encoder.width, len(self.classes))
        self.cache = AnswerCache(cache_size) if cache_size else None

    def predict(self, row: NDArray[np.float32]) -> Prediction:
        """Classify one row: raw features, float32, shape ``(1, width)``, NaN for null.

        Raises `NonFiniteOutput` if the network overflows on these values.
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
            index, self.classes[index], probabilities, self.version, datetime.now(UTC), was_cached
        )

    def _run_one(self, row: NDArray[np.float32]) -> tuple[float, ...]:
        probabilities = tuple(self.runtime.run(row)[0].tolist())
        if not math.isfinite(sum(probabilities)):  # any NaN makes the sum NaN
            raise NonFiniteOutput
        return probabilities

    def predict_batch(self, matrix: NDArray[np.float32]) -> BatchPrediction:
        """Classify ``(n, width)`` float32 rows, ``n`` may be 0, in one pass of the network.

        Raises `NonFiniteOutput` with the first rows on which the network overflows.
        """
        if len(matrix):
            probabilities = self.runtime.run(matrix)
        else:  # not every exported graph accepts an empty batch
            probabilities = np.empty((0, len(self.classes)), dtype=np.float32)
        finite = np.isfinite(probabilities).all(axis=1)
        if not finite.all():
            raise NonFiniteOutput(np.flatnonzero(~finite)[:MAX_FAULTS].tolist())
        return BatchPrediction(
            probabilities.argmax(axis=1),
            probabilities,
            self.classes,
            self.version,
            datetime.now(UTC),
        )

    def self_test(self) -> None:
        """Predict the golden samples, one by one and together: warm-up and self-test in one.

        A bare checkpoint has none; it must return probabilities for a row of zeros. Raises
        `BundleError` if an answer differs from what was packed, or takes too long.
        """
        with self.runtime.time_limit(self._check_seconds):
            self._test()

    def _test(self) -> None:
        golden = self.manifest.golden or self._without_golden()
        allowed = GOLDEN_TOLERANCE if self.runtime.device == "cpu" else DEVICE_GOLDEN_TOLERANCE
        batch = self._answers(golden.samples)
        single = np.concatenate([self._answers(row[np.newaxis]) for row in golden.samples])
        for answers in (batch, single):
            error = float(np.abs(answers - golden.probabilities).max())
            if not error <= allowed:
                raise BundleError(
                    f"The answers to the golden samples differ from those when the model was "
                    f"packed (by up to {error:.2g}; {allowed:g} is allowed), so this model can't "
                    "be served."
                )

    def info(self) -> dict[str, Any]:
        """Describe the model: its features, its classes, and how it was loaded."""
        manifest = self.manifest
        return {
            "name": self.name,
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
        """Run the network on ``matrix`` and check that its outputs are probabilities."""
        answers = self.runtime.run(matrix)
        wanted = (len(matrix), len(self.classes))
        if answers.shape != wanted:
            raise BundleError(
                f"The network returns outputs of shape {answers.shape} for {wanted[0]} rows, not "
                f"{wanted}: the manifest names {wanted[1]} classes."
            )
        # Written so that NaN fails too.
        if not (answers >= 0).all() or not (np.abs(answers.sum(axis=1) - 1) <= 1e-4).all():
            raise BundleError(
                "The network's outputs are not probabilities: they must be finite, not negative, "
                "and sum to 1 (is softmax in the graph?)."
            )
        return answers
