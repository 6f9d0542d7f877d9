"""`ModelService`: the one owner of what serves of a model in a process.

It loads what the release names, replaces it when the release changes, and tells how it stands. A
load that fails is remembered, not raised: what served goes on to serve, and where nothing did, the
process stays up and says why it can't predict.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.model import bundle as bundles
from app.model.errors import ModelError, ModelUnavailable
from app.model.loading import ModelSource, load_model, runtime_for
from app.model.model import BatchPrediction, Model, Prediction
from app.model.release import FILE_NAME, Release, release_in_force
from app.model.runtime import import_library
from app.model.serving import Serving

log = logging.getLogger("lantern.model")

T = TypeVar("T")
Identity = tuple[int, ...] | None
"""What tells a file from the one that replaced it: inode, time and size; None for no file."""


class Observer:
    """Who wants to know what a service does; each method may be left as it is, none may raise."""

    def loaded(self, model: Model, seconds: float) -> None:
        """Take note of a model that was loaded, and how long that took."""

    def served(self, serving: Serving) -> None:
        """Take note of what serves from now on."""

    def refused(self, name: str, fault: str) -> None:
        """Take note of why the release can't be served as it stands; empty when it can."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model, and the identity of the bundle that it was loaded from."""

    model: Model
    identity: Identity


class ModelService:
    """Holds what serves of one model in this process."""

    def __init__(self, source: ModelSource, observer: Observer | None = None) -> None:
        self.source = source
        self._observer = observer or Observer()
        self._lock = threading.Lock()
        self._seen: object = None
        self._loaded: dict[str, _Loaded] = {}
        self._serving: Serving | None = None
        self._fault = ""

    def import_libraries(self) -> None:
        """Import what the runtime needs: done before a fork, every worker shares it.

        Never raises: what is wrong with the model is told by `load`.
        """
        try:
            import_library(runtime_for(self.source))
        except Exception as error:
            log.debug("no library imported ahead: %s", error)

    def load(self) -> bool:
        """Load what the release names, once, and tell whether anything serves. Never raises.

        Call it after the fork: the runtimes' threads don't survive one. In a process where nobody
        called it, the first question about the model does.
        """
        with self._lock:
            if self._seen is None:
                self._follow()
        return self._serving is not None

    def refresh(self) -> None:
        """Look whether the release or a bundle in it was replaced; if so, load and swap. Never
        raises.

        What is new is loaded beside what serves, and proves itself, before it takes over.
        """
        with self._lock:
            self._follow()

    @property
    def serving(self) -> Serving:
        """What serves now; take it once a request, so that no swap comes between.

        Raises `ModelUnavailable` with the reason when there is nothing.
        """
        serving = self._serving
        if serving is None:
            self.load()
            serving = self._serving
        if serving is None:
            raise ModelUnavailable(self._fault)
        return serving

    def current(self) -> Model:
        """Give the stable model. Raises `ModelUnavailable` with the reason when there is none."""
        return self.serving.stable

    @property
    def loaded(self) -> Model | None:
        """The stable model, or None where it can't be loaded."""
        return self._serving.stable if self.load() and self._serving else None

    @property
    def fault(self) -> str:
        """Why the release is not served as it stands; empty when it is."""
        self.load()
        return self._fault

    def predict(self, features: NDArray[np.float32]) -> Prediction:
        """Classify one row ``(1, width)`` by the stable model; see `Model.predict`."""
        return self.current().predict(features)

    def predict_batch(self, samples: NDArray[np.float32]) -> BatchPrediction:
        """Classify rows ``(n, width)`` by the stable model; see `Model.predict_batch`."""
        return self.current().predict_batch(samples)

    def info(self) -> dict[str, Any]:
        """Describe the stable model; see `Model.info`."""
        return self.current().info()

    # Following the release, under the lock

    def _follow(self) -> None:
        # Looked at before anything is read: what changes meanwhile is seen the next time.
        seen = self._identity()
        if seen == self._seen:
            return
        self._seen = seen
        faults: list[str] = []
        stable = candidate = None
        release = self._attempt(faults, self._release)
        if release is not None:
            stable = self._attempt(faults, lambda: self._version(release.stable))
        if release is not None and release.candidate is not None and stable is not None:
            wanted = release.candidate
            candidate = self._attempt(faults, lambda: self._version(wanted))
        if release is not None and stable is not None:
            self._swap(release, stable, candidate)
        self._fault = " ".join(faults)
        self._tell(lambda: self._observer.refused(self._name, self._fault))
        if faults:
            event = "release not followed" if self._serving else "model not loaded"
            log.error(event, extra={"model": self._name, "reason": self._fault})

    @property
    def _name(self) -> str:
        return self.source.name or self.source.path.name

    def _swap(self, release: Release, stable: _Loaded, candidate: _Loaded | None) -> None:
        old = self._serving
        new = Serving(stable.model)
        if candidate is not None:
            new = Serving(stable.model, candidate.model, release.mode, release.share)
        self._loaded = {loaded.model.version: loaded for loaded in (stable, candidate) if loaded}
        self._serving = new
        self._tell(lambda: self._observer.served(new))
        if old is not None:
            log.info(
                "release followed",
                extra={
                    "model": self._name,
                    "stable": new.stable.version,
                    "candidate": new.candidate and new.candidate.version,
                    "mode": new.mode,
                    "share": new.share,
                    "before": old.stable.version,
                },
            )

    def _version(self, version: str) -> _Loaded:
        """Give a version: the model that is loaded, unless its bundle was replaced, or a new one.

        Raises what loading raises.
        """
        source = replace(self.source, version=version) if self._is_directory else self.source
        identity = _bundle_identity(bundles.find_bundle(source.path, source.version))
        loaded = self._loaded.get(version)
        if loaded is not None and loaded.identity == identity:
            return loaded
        started = time.perf_counter()
        model = load_model(source)
        seconds = time.perf_counter() - started
        log.info(
            "model loaded",
            extra={
                "model": model.name,
                "model_version": model.version,
                "runtime": model.runtime.name,
                "device": model.runtime.device,
                "milliseconds": round(seconds * 1000, 1),
            },
        )
        self._tell(lambda: self._observer.loaded(model, seconds))
        return _Loaded(model, identity)

    @property
    def _is_directory(self) -> bool:
        """Whether there are versions of which a release may choose."""
        return not self.source.version and bundles.holds_versions(self.source.path)

    def _release(self) -> Release:
        if self._is_directory:
            return release_in_force(self.source.path)
        return Release(self.source.version)  # empty for what has no versions

    def _identity(self) -> object:
        """Give what changes when there is something new to serve, or to try again."""
        path = self.source.path
        release = _identity(path / FILE_NAME)
        try:
            versions = self._release().versions if self._is_directory else (self.source.version,)
            found = [_bundle_identity(bundles.find_bundle(path, version)) for version in versions]
        except Exception as error:
            return release, str(error)
        return release, versions, tuple(found)

    def _attempt(self, faults: list[str], act: Callable[[], T]) -> T | None:
        """Do what may fail; then note why, and give None.

        Whatever it is: a worker that dies here would be forked again at once, and die again.
        """
        try:
            return act()
        except ModelError as error:
            faults.append(str(error))
        except Exception as error:
            log.exception("loading failed unexpectedly")
            faults.append(f"Loading failed unexpectedly ({type(error).__name__}); see the log.")
        return None

    def _tell(self, news: Callable[[], None]) -> None:
        try:
            news()
        except Exception:  # whoever wanted to know can't keep a model from serving
            log.exception("the news of the model was not taken")


def _bundle_identity(path: Path) -> Identity:
    """Give the identity of a bundle by its manifest, or of a checkpoint without one."""
    return _identity(path if path.is_file() else bundles.description_file(path))


def _identity(path: Path) -> Identity:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
