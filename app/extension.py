"""What the application holds beside Flask: settings, the model service and the metrics.

One object, kept in ``app.extensions["lantern"]``; views reach it by `lantern()`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from flask import Flask, current_app

from app.model.loading import ModelSource
from app.model.service import ModelService
from app.settings import Settings
from app.telemetry.metrics import Metrics


@dataclass(slots=True)
class Lantern:
    """The parts that requests share. ``draining`` tells whether this worker is about to stop."""

    settings: Settings
    service: ModelService
    metrics: Metrics
    draining: Callable[[], bool] = field(default=lambda: False)

    @classmethod
    def install(cls, app: Flask, settings: Settings) -> Lantern:
        """Make the parts from ``settings`` and hang them on ``app``."""
        model = settings.model
        source = ModelSource(
            path=model.path,
            version=model.version,
            runtime=model.runtime,
            device=model.device,
            threads=model.threads,
            batch_rows=model.batch_rows,
            feature_names=model.feature_names,
            class_names=model.class_names,
            cache_size=settings.cache.size,
        )
        metrics = Metrics()
        self = cls(settings, ModelService(source, on_load=metrics.model_loaded), metrics)
        app.extensions["lantern"] = self
        return self


def lantern() -> Lantern:
    """Give the parts of the application that handles the current request."""
    return cast(Lantern, current_app.extensions["lantern"])
