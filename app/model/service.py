"""`ModelService`: the one owner of the model in a process.

It loads, answers, and tells how it stands. A load that fails is remembered, not raised: the
process stays up and says why it can't predict.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.model.errors import ModelError, ModelUnavailable
from app.model.loading import ModelSource, load_model, runtime_for
from app.model.model import BatchPrediction, Model, Prediction
from app.model.runtime import import_library

log = logging.getLogger("lantern.model")


class ModelService:
    """Holds the model that this process serves; make one a process."""

    def __init__(
        self, source: ModelSource, on_load: Callable[[Model, float], None] | None = None
    ) -> None:
        """Make the service of ``source``; ``on_load`` is told each model and its seconds."""
        self.source = source
        self._on_load = on_load
        self._lock = threading.Lock()
        self._tried = False
        self._model: Model | None = None
        self._unavailable = ""

    def import_libraries(self) -> None:
        """Import what the runtime needs: done before a fork, every worker shares it.

        Never raises: what is wrong with the model is told by `load`.
        """
        try:
            import_library(runtime_for(self.source))
        except Exception as error:
            log.debug("no library imported ahead: %s", error)

    def load(self) -> bool:
        """Load the model, once, and tell whether it serves. Never raises.

        Call it after the fork: the runtimes' threads don't survive one. In a process where nobody
        called it, the first question about the model does.
        """
        with self._lock:
            if not self._tried:
                self._tried = True
                self._load()
        return self._model is not None

    def _load(self) -> None:
        started = time.perf_counter()
        try:
            model = load_model(self.source)
        except ModelError as error:
            self._unavailable = str(error)
            log.error("model not loaded", extra={"reason": str(error)})
            return
        except Exception as error:
            # A worker that dies here would be forked again at once, and die again, for ever.
            self._unavailable = (
                f"Loading failed unexpectedly ({type(error).__name__}); see the log."
            )
            log.exception("model not loaded")
            return
        seconds = time.perf_counter() - started
        self._model = model
        log.info(
            "model loaded",
            extra={
                "model": model.manifest.name,
                "model_version": model.version,
                "runtime": model.runtime.name,
                "device": model.runtime.device,
                "milliseconds": round(seconds * 1000, 1),
            },
        )
        if self._on_load is not None:
            try:
                self._on_load(model, seconds)
            except Exception:  # whoever wanted to know can't keep the model from serving
                log.exception("the news of the model was not taken")

    def current(self) -> Model:
        """Give the model; take it once a request, so that one version answers all of it.

        Raises `ModelUnavailable` with the reason when there is none.
        """
        if self._model is None and not self.load():
            raise ModelUnavailable(self._unavailable)
        assert self._model is not None
        return self._model

    @property
    def loaded(self) -> Model | None:
        """The model, or None where it can't be loaded."""
        self.load()
        return self._model

    @property
    def unavailable_reason(self) -> str:
        """Why there is no model; empty when there is one."""
        self.load()
        return self._unavailable

    def predict(self, features: NDArray[np.float32]) -> Prediction:
        """Classify one row ``(1, width)`` by the current model; see `Model.predict`."""
        return self.current().predict(features)

    def predict_batch(self, samples: NDArray[np.float32]) -> BatchPrediction:
        """Classify rows ``(n, width)`` by the current model; see `Model.predict_batch`."""
        return self.current().predict_batch(samples)

    def info(self) -> dict[str, Any]:
        """Describe the current model; see `Model.info`."""
        return self.current().info()
