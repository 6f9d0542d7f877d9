"""What the application holds beside Flask: settings, the models' services and the metrics.

One object, kept in ``app.extensions["lantern"]``; views reach it by `current_lantern`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from flask import Flask, current_app

from ..access.guard import Guard
from ..access.header_names import environ_key
from ..inference.shadow import Shadow
from ..model.errors import ModelUnavailable, UnknownModel
from ..registry.loading import ModelSource
from ..registry.service import ModelService
from ..registry.watcher import Watcher
from ..settings import Settings
from ..telemetry.metrics import Metrics
from ..telemetry.versions import ServedVersions
from .overload import WaitBudget


@dataclass(slots=True)
class Lantern:
    """What requests share: settings, models, metrics and what lets requests in.

    ``models`` has a service for each model, and ``service`` is that of the first, which calls
    without a name are for; ``routing_variable`` is the key in a WSGI environ of the header
    by which a canary's callers are told apart. ``guard`` lets requests in, ``may_send_body``
    says which of them may send a body, by the environ of its head. ``draining`` tells whether this
    worker is about to stop.
    """

    settings: Settings
    models: Sequence[ModelService]
    metrics: Metrics
    shadow: Shadow
    wait_budget: WaitBudget
    draining: Callable[[], bool] = field(default=lambda: False)
    may_send_body: Callable[[dict[str, Any]], bool] = field(default=lambda environ: True)
    service: ModelService = field(init=False)
    guard: Guard = field(init=False)
    routing_variable: str = field(init=False)
    watcher: Watcher | None = None

    @classmethod
    def install(cls, app: Flask, settings: Settings) -> Lantern:
        """Make them from ``settings`` and hang them on ``app``."""
        model = settings.model
        metrics = Metrics()
        versions = ServedVersions(metrics.registry)
        models = [
            ModelService(
                ModelSource(
                    path=path,
                    name=name,
                    version=model.version,
                    runtime=model.runtime,
                    device=model.device,
                    threads=model.threads,
                    batch_rows=model.batch_rows,
                    feature_names=model.feature_names,
                    class_names=model.class_names,
                    cache_size=settings.cache.size,
                    max_answer_values=settings.limits.max_answer_values,
                    limits=model.trial_limits,
                ),
                metrics,
                versions,
            )
            for name, path in settings.models.items()
        ]
        for service in models:
            service.learn_name()
        shadow = Shadow(metrics, metrics.current_in_flight)
        self = cls(settings, models, metrics, shadow, WaitBudget(settings.limits))
        app.extensions["lantern"] = self
        return self

    def __post_init__(self) -> None:
        self.service = self.models[0]
        self.guard = Guard(self.settings)
        self.routing_variable = environ_key(self.settings.release.routing_header)

    @property
    def services(self) -> Mapping[str, ModelService]:
        """The services by their models' names; of one whose name nobody knows yet it is empty."""
        return {service.name: service for service in self.models}

    def named(self, name: str | None) -> ModelService:
        """Return the service of the model ``name``; without one, that of the first model.

        Raises `UnknownModel`; or, where a model's name isn't known, so that it may be this one,
        `ModelUnavailable` with the reason.
        """
        if name is None:
            return self.service
        services = self.services
        if "" in services:
            fault = services[""].fault  # where nothing was loaded yet, it is now
            services = self.services
            if "" in services:
                raise ModelUnavailable(fault)
        if name not in services:
            raise UnknownModel(name[:80], tuple(services))
        return services[name]

    def start(self) -> None:
        """Load the models and follow their releases; in each worker, after the fork."""
        for service in self.models:
            service.load()
        self.watcher = Watcher(self.models, self.settings.release.poll_seconds)
        self.watcher.start()

    def stop(self, seconds: float) -> bool:
        """End what `start` began, in ``seconds`` for each; tell whether nothing runs on.

        A thread that is inside a runtime when the process ends can abort it.
        """
        ended = self.shadow.stop(seconds)
        return (self.watcher is None or self.watcher.stop(seconds)) and ended


def current_lantern() -> Lantern:
    """Return what the application that handles the current request holds."""
    return cast(Lantern, current_app.extensions["lantern"])
