"""The extension `Lantern`: what the application has beside Flask's own state.

There is one for each application, in ``app.extensions["lantern"]``; views get it from
`current_lantern`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from flask import Flask, current_app

from ..access.guard import Guard
from ..access.header_names import environ_key
from ..inference.shadow import Shadow
from ..model.errors import ModelUnavailable, UnknownModel
from ..model.memory_limit import MemoryLimit
from ..registry.loading import ModelSource
from ..registry.service import ModelService
from ..registry.watcher import Watcher
from ..settings import Settings
from ..telemetry.metrics import Metrics
from ..telemetry.statistics import InferenceStatistics
from ..telemetry.versions import ServedVersions
from .overload import WaitBudget


@dataclass(slots=True)
class Lantern:
    """The settings, services, metrics and access control that all requests share.

    ``services`` has one `ModelService` for each model. The first is the ``default_service``, which
    answers requests that name no model. ``routing_variable`` is the WSGI environ's key of the
    header that assigns a caller to one side of a canary. ``may_send_body`` decides from the head of
    a request whether its body is to be received, ``pool_queue`` in which queue it waits for a
    thread of its own, if it does. ``direct_calls``, if there are any, answer requests without WSGI.
    ``draining`` returns True once this worker is about to stop.
    """

    settings: Settings
    services: Sequence[ModelService]
    metrics: Metrics
    shadow: Shadow
    wait_budget: WaitBudget
    draining: Callable[[], bool] = field(default=lambda: False)
    may_send_body: Callable[[dict[str, Any]], bool] = field(default=lambda environ: True)
    pool_queue: Callable[[dict[str, Any]], str | None] = field(default=lambda environ: None)
    direct_calls: Any = None  # `DirectCalls`, which knows this class
    default_service: ModelService = field(init=False)
    guard: Guard = field(init=False)
    routing_variable: str = field(init=False)
    statistics: InferenceStatistics = field(init=False)
    watcher: Watcher | None = None

    @classmethod
    def install(cls, app: Flask, settings: Settings) -> Lantern:
        """Create the extension from ``settings`` and add it to ``app``."""
        model = settings.model
        metrics = Metrics()
        versions = ServedVersions(metrics.registry)
        services = [
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
                    allow_code=model.allow_code,
                    cache_size=settings.cache.size,
                    max_answer_values=settings.limits.max_answer_values,
                    limits=model.process_limits,
                    run_limits=settings.limits.run_limits,
                    sample_limits=settings.limits.sample_limits,
                ),
                metrics,
                versions,
            )
            for name, path in settings.models.items()
        ]
        for service in services:
            service.learn_name()
        shadow = Shadow(metrics, metrics.current_in_flight)
        self = cls(settings, services, metrics, shadow, WaitBudget(settings.limits))
        app.extensions["lantern"] = self
        return self

    def __post_init__(self) -> None:
        self.default_service = self.services[0]
        self.guard = Guard(self.settings)
        self.statistics = InferenceStatistics(self.metrics.registry)
        self.routing_variable = environ_key(self.settings.release.routing_header)

    @property
    def services_by_name(self) -> Mapping[str, ModelService]:
        """The services by the names of their models; the key is empty while a name is unknown."""
        return {service.name: service for service in self.services}

    def get_service(self, name: str | None) -> ModelService:
        """Return the service of the model ``name``, or the default one for None.

        Raises `UnknownModel`; or `ModelUnavailable` if the name of a model that could not be loaded
        is unknown, so that it may be this one.
        """
        if name is None:
            return self.default_service
        services = self.services_by_name
        if "" in services:
            fault = services[""].fault  # if nothing was loaded yet, this loads it
            services = self.services_by_name
            if "" in services:
                raise ModelUnavailable(fault)
        if name not in services:
            raise UnknownModel(name[:80], tuple(services))
        return services[name]

    def service_at(self, directory: Path) -> ModelService | None:
        """Return the service of the model in ``directory``; None if the settings don't name it."""
        return next((each for each in self.services if each.source.path == directory), None)

    def limit_memory(self) -> None:
        """Limit the memory of this process, which serves nothing else; call it before `start`.

        Not on another device: its driver maps far more into a process than is used.
        """
        megabytes, model = self.settings.limits.run_memory_mb, self.settings.model
        if megabytes and model.device == "cpu":
            limit = MemoryLimit(megabytes, model.process_limits)
            for service in self.services:
                service.loading = limit.loading

    def use_cores(self, cores: int) -> None:
        """Run passes of a network beside each other where this process has the ``cores``, and
        else be shared, unless ``model.batch_rows`` says so; call it before `start`.
        """
        model = self.settings.model
        if model.batch_rows == "auto" and model.device == "cpu" and cores > model.threads:
            for service in self.services:
                service.source = replace(service.source, batch_rows=0)

    def start(self) -> None:
        """Load the models and follow their releases; call it in each worker, after the fork."""
        for service in self.services:
            service.load()
        self.watcher = Watcher(self.services, self.settings.release.poll_seconds)
        self.watcher.start()

    def stop(self, seconds: float) -> bool:
        """Stop the threads that `start` began; return False if one still runs after ``seconds``.

        A thread that is inside a runtime when the process ends can abort it.
        """
        ended = self.shadow.stop(seconds)
        return (self.watcher is None or self.watcher.stop(seconds)) and ended


def current_lantern() -> Lantern:
    """Return the extension of the application that handles the current request."""
    return cast(Lantern, current_app.extensions["lantern"])
