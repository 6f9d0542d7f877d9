"""A loaded model: one version, ready to answer, and immutable.

A `Model` holds its features, classes and weights together: a request that took one reference is
served by one version from start to end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import numpy as np
from msgspec import to_builtins

from .batching import BatchingRuntime
from .bundle import Bundle
from .cache import AnswerCache
from .code.answers import HandlerAnswer
from .code.golden import GoldenRequest, check_requests, read_golden_requests
from .code.handler import Handler
from .code.request import HandlerRequest
from .encoder import FeatureEncoder
from .errors import BundleError, InputsRejected, ModelError, NonFiniteOutput, first_line, shown
from .golden import Golden
from .isolation import DEFAULT_LIMITS
from .predictions import Batch, Prediction
from .runtime import Runtime
from .self_test import check_answer, runs_of, seconds_of_a_row
from .signature import Tensors, no_rows, row_count
from .steps.encoder import StepEncoder
from .steps.limits import DEFAULT_SAMPLE_LIMITS, SampleLimits
from .tasks import task_of

LONGEST_SHOWN = 4096
"""The most bytes of a golden request's body that is kept, as an example for callers."""
_FEW_VALUES = 64
"""Up to this many values of an answer, numpy takes longer to begin than Python for all of them."""
LONG_SECONDS = 0.001
"""A network that takes so long for one row takes long: a thread costs a request a tenth of it."""


class Model:
    """One version of a model, loaded into a runtime.

    ``task`` says what its outputs mean. Rows to `predict` come from the ``encoder``, which takes
    features, or from the ``steps``, which take images and texts and are None where there are none.
    One with neither takes tensors, and `run` answers them. With a ``handler`` it takes whole
    requests, which `answer` answers. ``cache`` stores the answers of `predict`, unless
    ``cache_size`` is 0. ``check_seconds`` limits the self-test, and ``sample_limits`` what callers
    may send for the steps. ``golden_request`` is a short request that the handler answers, once the
    self-test has read one. Raises `BundleError` if the steps can't be loaded.

    ``derived`` caches what other packages compute from the model, by classes of their own.
    """

    def __init__(
        self,
        bundle: Bundle,
        runtime: Runtime,
        checksum: str,
        *,
        name: str = "",
        handler: Handler | None = None,
        cache_size: int = 0,
        check_seconds: float = DEFAULT_LIMITS.seconds,
        sample_limits: SampleLimits = DEFAULT_SAMPLE_LIMITS,
    ) -> None:
        self._check_seconds = check_seconds
        self.manifest = bundle.manifest
        self.runtime: Runtime = runtime
        self.checksum = checksum
        self.handler = handler
        self.encoder = FeatureEncoder(
            bundle.manifest.features, bundle.manifest.inputs if bundle.manifest.features else ()
        )
        self.steps = (
            StepEncoder(
                bundle.manifest.steps, bundle.manifest.inputs, bundle.read_file, sample_limits
            )
            if bundle.manifest.steps
            else None
        )
        self._key = self.steps.key if self.steps is not None else self.encoder.key
        self.loaded_at = datetime.now(UTC)
        self.name = name or bundle.manifest.name
        self.version = bundle.manifest.version
        self.classes = bundle.manifest.classes
        self.task = task_of(bundle.manifest)
        self.signature = self.task.signature
        self.cache = AnswerCache(cache_size) if cache_size and self.manifest.takes_samples else None
        self.golden_request: GoldenRequest | None = None
        self._row_seconds = 0.0
        self._bundle = bundle
        self._outputs = [(spec, spec.shape[1:]) for spec in self.manifest.outputs]
        self.derived: dict[type, Any] = {}

    @property
    def takes_features(self) -> bool:
        """True if the model takes named values, and not only the tensors of its network."""
        return bool(self.encoder.names)

    @property
    def takes_samples(self) -> bool:
        """True if the model answers single samples: features, images and texts, or requests of its
        handler.
        """
        return self.manifest.takes_samples or self.handler is not None

    def answer(self, requests: Sequence[HandlerRequest]) -> list[HandlerAnswer]:
        """Return the answer of the handler, which the model must have, to each of ``requests``.

        They run through the network together, and all are answered, or none. Raises
        `HandlerRefusal` and `HandlerFailed`, `NonFiniteOutput` and `OutputsTooLarge` for what it
        answers, and what `run` raises.
        """
        assert self.handler is not None
        return self.handler.answer(requests, self.run_rows)

    @property
    def takes_long(self) -> bool:
        """True if its requests should not be answered on a thread that others wait for.

        That is so if it has steps or a handler, for callers and owners decide how long these take,
        if its network took long for a row when it was loaded, or runs on a device whose driver is
        waited for.
        """
        return (
            self.steps is not None
            or self.handler is not None
            or self._row_seconds >= LONG_SECONDS
            or self.runtime.device != "cpu"
        )

    def share_passes(self, max_rows: int, *, is_measured: bool = False) -> None:
        """Run the rows of several threads together, ``max_rows`` at most, if it has rows, and as
        many as make each cheaper if ``is_measured``.

        Call it before the model is served.
        """
        if self.manifest.batch:
            # An output with a length of its own would have that of the longest row.
            has_length = any(size < 0 for _, of_row in self._outputs for size in of_row)
            padding = None if has_length or self.steps is None else self.steps.padding
            self.runtime = BatchingRuntime(self.runtime, max_rows, padding, is_measured=is_measured)

    def run(self, inputs: Tensors) -> Tensors:
        """Return the network's outputs for ``inputs``, which are as the signature says.

        Raises `InputsRejected` where the network can't be run on their values or answers with other
        shapes than the signature has, and `RunTooLong` or `RunTooLarge` where it does too much with
        them.
        """
        try:
            outputs = self.runtime.run(inputs)
        except ModelError:
            raise
        except Exception as error:  # ONNX Runtime's have no public base
            raise InputsRejected(first_line(error)) from error
        self._check_shapes(inputs, outputs)
        return outputs

    def _check_shapes(self, inputs: Tensors, outputs: Tensors) -> None:
        """Raise `InputsRejected` for an output without a row for each of the inputs', whose answers
        would be taken for those of other rows, or of another shape than its spec has.

        ONNX Runtime doesn't hold a graph to the shapes that it declares.
        """
        rows = len(next(iter(inputs.values()))) if self.manifest.batch else -1
        for spec, of_row in self._outputs:
            shape = outputs[spec.name].shape
            if shape == (rows, *of_row):  # as nearly always
                continue
            if not spec.accepts(shape) or (self.manifest.batch and shape[0] != rows):
                wanted = f" for {rows} rows" if self.manifest.batch else ""
                raise InputsRejected(
                    f"its output {shown(spec.name)} has the shape {list(shape)}{wanted}, and "
                    f"{list(spec.shape)} was stated"
                )

    def run_rows(self, inputs: Tensors) -> Tensors:
        """Return what `run` returns, and for inputs of no rows outputs of none: not every exported
        graph accepts an empty batch.
        """
        if self.manifest.batch and not row_count(inputs):
            return {spec.name: no_rows(spec) for spec in self.manifest.outputs}
        return self.run(inputs)

    def predict(self, row: Tensors) -> Prediction:
        """Return the prediction for one row of the inputs, as the encoder or the steps make it.

        Raises `NonFiniteOutput` if the network overflows on these values, and what `run` raises.
        """
        cache = self.cache
        was_cached: bool | None = None
        if cache is None:
            decided = self.task.decide(self.run(row))
        else:
            key = self._key(row)
            decided = cache.get(key)
            was_cached = decided is not None
            if not was_cached:
                decided = self.task.decide(self.run(row))
                cache.put(key, decided)
        return self.task.prediction(decided, self.version, datetime.now(UTC), was_cached)

    def predict_batch(self, rows: Tensors) -> Batch:
        """Return the predictions for ``n`` rows, ``n`` may be 0, in one pass of the network.

        Raises `NonFiniteOutput` with the first rows on which the network overflows, and what `run`
        raises.
        """
        return self.task.batch(self.run_rows(rows), self.version, datetime.now(UTC))

    def predictions_of(self, outputs: Tensors) -> Prediction | Batch:
        """Return what ``outputs`` of the network say: a prediction for one row, a batch for others.

        Raises `NonFiniteOutput`.
        """
        task, timestamp = self.task, datetime.now(UTC)
        if task.width <= _FEW_VALUES and len(task.answers(outputs)) == 1:
            return task.prediction(task.decide(outputs), self.version, timestamp, None)
        return task.batch(outputs, self.version, timestamp)

    def label_counts(self, outputs: Tensors) -> Mapping[str, int]:
        """Count the classes or labels that ``outputs`` of the network name; none where they name
        none, or aren't finite.
        """
        if not (self.manifest.classes or self.manifest.labels):
            return {}
        try:
            return self.task.batch(outputs, self.version, datetime.now(UTC)).label_counts()
        except (InputsRejected, NonFiniteOutput):
            return {}

    def golden(self) -> Golden:
        """Return the golden data, which a model from a bundle has. Raises `BundleError`."""
        golden = self._bundle.read_golden()
        if golden is None:
            raise BundleError(f"Version {self.version} has no golden data.")
        return golden

    def self_test(self) -> None:
        """Run the golden data: warm-up and self-test in one.

        A bare checkpoint has none; it must answer a row of zeros. Raises `BundleError` if an answer
        differs from what was packed, or takes too long. How long a row took is what `takes_long`
        says.
        """
        with self.runtime.time_limit(self._check_seconds):
            if self.handler is not None:
                self._check_handler(self.handler)
                if not self.manifest.has_network:
                    return
            golden = self._bundle.read_golden()
            if golden is None:
                zeros = {
                    columns.spec.name: np.zeros((1, columns.width), dtype=columns.dtype)
                    for columns in self.encoder.tensors
                }
                self.task.check(self.runtime.run(zeros))
                self._time_a_row(zeros)
                return
            for each in runs_of(self.manifest, golden, self.steps):
                answers = self.runtime.run(each.inputs)
                check_answer(self.manifest, self.task, answers, each, self.runtime.device)
            self._time_a_row(golden.inputs)

    def _time_a_row(self, inputs: Tensors) -> None:
        self._row_seconds = seconds_of_a_row(
            self.runtime, inputs, has_rows=self.manifest.batch, enough=LONG_SECONDS
        )

    def _check_handler(self, handler: Handler) -> None:
        spec, directory = self.manifest.handler, self._bundle.directory
        assert spec is not None
        assert directory is not None
        requests = read_golden_requests(directory / spec.golden)
        check_requests(requests, handler, self.run_rows, self.manifest)
        answered = [each for each in requests if each.status == HTTPStatus.OK and not each.is_form]
        shortest = min(answered, key=lambda each: len(each.body), default=None)
        if shortest is not None and len(shortest.request.body) <= LONGEST_SHOWN:
            self.golden_request = shortest

    def info(self) -> dict[str, Any]:
        """Describe the model: its features or steps, its classes, and how it was loaded."""
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
            "labels": list(manifest.labels),
            "targets": list(manifest.targets),
            "steps": to_builtins(manifest.steps),
            "top": manifest.top,
            "preprocessing": [dict(step) for step in manifest.preprocessing],
            "training": dict(manifest.training),
            "runtime": self.runtime.name,
            "device": self.runtime.device,
            "checksum": f"sha256:{self.checksum}",
            "loaded_at": self.loaded_at,
        }
