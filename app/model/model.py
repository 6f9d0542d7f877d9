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
from .errors import MAX_FAULTS, InputsRejected, NonFiniteOutput, first_line
from .features import FeatureEncoder
from .isolation import DEFAULT_LIMITS
from .runtime import Runtime
from .signature import FEATURES, PROBABILITIES, Tensors
from .tasks import Classification, probabilities_of, task_of


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
    """One version of a model, loaded into a runtime.

    ``task`` says what its outputs mean. One without features has no rows to `predict`: it takes
    tensors, and `run` answers them. ``cache`` stores the answers of `predict`, unless
    ``cache_size`` is 0. ``check_seconds`` limits the self-test.
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
        self.task = task_of(bundle.manifest)
        self.signature = self.task.signature
        self.cache = AnswerCache(cache_size) if cache_size and self.takes_features else None
        self._bundle = bundle

    @property
    def takes_features(self) -> bool:
        """Whether the model takes named numbers, and not only the tensors of its network."""
        return bool(self.encoder.names)

    def run(self, inputs: Tensors) -> Tensors:
        """Return the network's outputs for ``inputs``, which are as the signature says.

        Raises `InputsRejected` where the network can't be run on their values.
        """
        try:
            return self.runtime.run(inputs)
        except Exception as error:  # ONNX Runtime's have no public base
            raise InputsRejected(first_line(error)) from error

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
        probabilities = tuple(self.runtime.run({FEATURES: row})[PROBABILITIES][0].tolist())
        if not math.isfinite(sum(probabilities)):  # any NaN makes the sum NaN
            raise NonFiniteOutput
        return probabilities

    def predict_batch(self, matrix: NDArray[np.float32]) -> BatchPrediction:
        """Classify ``(n, width)`` float32 rows, ``n`` may be 0, in one pass of the network.

        Raises `NonFiniteOutput` with the first rows on which the network overflows.
        """
        if len(matrix):
            probabilities = probabilities_of(self.runtime, matrix)
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
        """Run the golden data: warm-up and self-test in one.

        A bare checkpoint has none; it must return probabilities for a row of zeros. Raises
        `BundleError` if an answer differs from what was packed, or takes too long.
        """
        with self.runtime.time_limit(self._check_seconds):
            golden = self._bundle.read_golden()
            if golden is None:
                assert isinstance(self.task, Classification)  # all others have some
                zeros = np.zeros((1, self.encoder.width), dtype=np.float32)
                self.task.check_probabilities(probabilities_of(self.runtime, zeros), 1)
                return
            alone, together = self.task.runs_of(golden)
            for each in [together, *alone] if together else alone:
                answers = self.runtime.run(each.inputs)
                self.task.check_answer(answers, each, self.runtime.device)

    def info(self) -> dict[str, Any]:
        """Describe the model: its features, its classes, and how it was loaded."""
        manifest = self.manifest
        return {
            "name": self.name,
            "model_version": manifest.version,
            "description": manifest.description,
            "created_at": manifest.created_at,
            "model_loaded": True,
            "task": self.task.name,
            "inputs": self.signature.inputs,
            "outputs": self.signature.outputs,
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
