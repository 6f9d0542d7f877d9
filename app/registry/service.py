"""`ModelService`: the one owner of what a process serves of a model.

It loads what the release names, replaces it when the release changes, and reports its state. A load
that fails is recorded, not raised: the loaded version stays in service, and if there is none, the
process stays up and says why it can't predict.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Protocol, TypeVar

from ..documents.text import readable
from ..model import bundle as bundles
from ..model.compat import breaking_changes, shadow_obstacle
from ..model.errors import ModelError, ModelUnavailable
from ..model.model import Model
from ..model.naming import ModelName, as_name, name_in
from .history import recorded_code
from .identity import bundle_identity, file_identity
from .loading import ModelSource, import_libraries, load_model
from .release import FILE_NAME, InForce, Mode, Release, read_in_force
from .rollout import Rollout

log = logging.getLogger("lantern.model")

T = TypeVar("T")
RETRY_SECONDS = 30.0
"""Seconds after which a failed load is retried, even if no file has changed."""


class ModelObserver:
    """Receives the events of a service; each method may be left as it is, none may raise."""

    def loaded(self, model: Model, seconds: float) -> None:
        """Record that a model was loaded, and how long that took."""

    def served(self, rollout: Rollout) -> None:
        """Record what is served from now on."""

    def rejected(self, name: str, fault: str) -> None:
        """Record why the release can't be served; empty if it can."""


class VersionStore(Protocol):
    """Stores the versions that this and other processes could serve last; no method may raise."""

    def remember(self, model: str, version: str) -> None:
        """Remember that ``version`` of ``model`` can be served."""

    def recall(self, model: str) -> str | None:
        """Return the version of ``model`` that was remembered last, or None."""


@dataclass(frozen=True, slots=True)
class State:
    """The state of a service: what is served, if anything, and why the release is not (empty if it
    is).
    """

    rollout: Rollout | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class _Held:
    """A loaded model, and the identities of the files that it was loaded from."""

    model: Model
    files: object


class ModelService:
    """Holds the loaded versions of one model in this process, and follows its release.

    ``version_store`` keeps which version it could serve last; a process that starts while the
    release can't be loaded falls back to that one.
    """

    def __init__(
        self,
        source: ModelSource,
        observer: ModelObserver | None = None,
        version_store: VersionStore | None = None,
    ) -> None:
        self.source = source
        self._version_store = version_store
        self._observer = observer or ModelObserver()
        self._name = ModelName(source.name)
        self._told_name: str | None = None
        self._lock = threading.Lock()
        self._tried = False
        self._seen: object = None
        self._try_again_at = float("inf")
        self._held: dict[str, _Held] = {}
        self._state = State()
        self.loading: Callable[[Path], AbstractContextManager[None]] = _not_limited
        """The context in which the model in a directory or file is loaded."""

    @property
    def name(self) -> str:
        """The name of the model, the same in every process for as long as the service runs.

        The name in its source, or else the name in its files when they could first be read; empty
        until then.
        """
        return self._name.value

    def learn_name(self) -> None:
        """Read the name from the model's files, if the settings don't have it. Never raises.

        Called before a fork, so that it doesn't depend on which worker loads first.
        """
        with suppress(Exception):  # `load` reports why they can't be read
            found = bundles.find_bundle(self.source.path, self._in_force().release.stable)
            self._name.decide(lambda: name_in(found))

    def import_libraries(self) -> None:
        """Import what the versions in force need; called before a fork, so that workers share it.

        Never raises: `load` reports what is wrong with the model.
        """
        with suppress(Exception):
            in_force = self._in_force()
            for version in in_force.release.versions:
                try:
                    code = in_force.code_of(version)
                    import_libraries(replace(self._source_of(version), code=code))
                except Exception as error:
                    log.debug(
                        "version %s: nothing was imported before the fork: %s", version, error
                    )

    def load(self) -> bool:
        """Load what the release names, once; return True if a model is loaded. Never raises.

        Call it after the fork: the runtimes' threads don't survive one. If it was not called, the
        first use of the model does it; no later use waits for a load.
        """
        if not self._tried:
            with self._lock:
                if not self._tried:
                    self._follow()
                    self._tried = True
        return self._state.rollout is not None

    def refresh(self) -> None:
        """Load and swap if the release or a bundle in it was replaced. Never raises.

        A new version is loaded and self-tested beside the old one before it takes over.
        """
        with self._lock:
            self._follow()

    @property
    def state(self) -> State:
        """The current state; take it once if both parts matter."""
        self.load()
        return self._state

    @property
    def rollout(self) -> Rollout:
        """The versions that are served now; take them once per request, so that no swap comes
        between.

        Raises `ModelUnavailable` with the reason if nothing is loaded.
        """
        rollout = self._state.rollout
        if rollout is None:
            state = self.state
            rollout = state.rollout
            if rollout is None:
                raise ModelUnavailable(state.fault)
        return rollout

    def current(self) -> Model:
        """Return the stable model. Raises `ModelUnavailable` with the reason if there is none."""
        return self.rollout.stable

    @property
    def takes_long(self) -> bool:
        """True if a request to predict may take long: a version that is served does."""
        rollout = self._state.rollout
        return rollout is not None and rollout.takes_long

    @property
    def loaded(self) -> Model | None:
        """The stable model, or None if it can't be loaded."""
        rollout = self.state.rollout
        return None if rollout is None else rollout.stable

    @property
    def fault(self) -> str:
        """Why the release is not served; empty if it is."""
        return self.state.fault

    # Following the release, under the lock

    def _follow(self) -> None:
        # Taken before anything is read: a change in the meantime is noticed the next time.
        seen = self._identity()
        if seen == self._seen and monotonic() < self._try_again_at:
            return
        self._seen = seen
        before = self._state
        faults: list[str] = []
        rollout = self._serve_release(faults) or before.rollout or self._serve_remembered(faults)
        self._try_again_at = monotonic() + RETRY_SECONDS if faults else float("inf")
        self._state = State(rollout, " ".join(faults))
        if rollout is not None and not rollout.is_as(before.rollout):
            self._notify_swap(rollout, before.rollout)
        self._notify_fault(before)

    def _serve_release(self, faults: list[str]) -> Rollout | None:
        """Load what the release names; return None, and record why, if its stable version fails.

        A candidate that fails is only left out.
        """
        in_force = _attempt(faults, self._in_force)
        if in_force is None:
            return None
        release = in_force.release
        stable = self._version(release.stable, faults, in_force.code_of(release.stable))
        if stable is None:
            return None
        candidate = None
        if release.candidate is not None:
            code = in_force.code_of(release.candidate)
            candidate = self._version(release.candidate, faults, code)
        if candidate is not None and (
            broken := _misfits(stable.model, candidate.model, release.mode)
        ):
            faults.append(broken)
            candidate = None
        held = {release.stable: stable}
        rollout = Rollout(stable.model)
        if candidate is not None:
            held[str(release.candidate)] = candidate
            rollout = Rollout(stable.model, candidate.model, release.mode, release.traffic)
        self._held = held
        if not faults and release.stable and self._version_store:
            self._version_store.remember(self._remembered_as, release.stable)
        faults += [*in_force.held_back.values()][-1:]  # the highest would be next
        return rollout

    def _serve_remembered(self, faults: list[str]) -> Rollout | None:
        """Load the version that another or an earlier process could serve."""
        version = self._version_store and self._version_store.recall(self._remembered_as)
        if not version:
            return None
        stable = self._version(version, [], self._recorded_code(version))
        if stable is None:
            return None
        faults.append(f"Falling back to version {version}.")
        self._held = {version: stable}
        return Rollout(stable.model)

    def _recorded_code(self, version: str) -> str | None:
        try:
            return recorded_code(self.source.path, version) if self._is_directory else None
        except ModelError:  # what a release that can't be read allows is not known: nothing
            return ""

    def _version(self, version: str, faults: list[str], code: str | None) -> _Held | None:
        """Return a version: the loaded model, unless its bundle was replaced, or a new one.

        Of its code only that with the SHA-256 ``code`` runs; any if that is None.
        A loaded model stays valid whatever happens to its files; why it is not reloaded is
        recorded.
        """
        held = self._held.get(version)
        source = _attempt(faults, lambda: self._source_of(version))
        if source is None:
            return held
        files = _attempt(
            faults, lambda: bundle_identity(bundles.find_bundle(source.path, source.version))
        )
        if files is None or (held is not None and held.files == files):
            return held
        started = monotonic()
        model = _attempt(faults, lambda: self._load(replace(source, code=code)))
        if model is None:
            return held
        seconds = monotonic() - started
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
        _notify(lambda: self._observer.loaded(model, seconds))
        return _Held(model, files)

    def _load(self, source: ModelSource) -> Model:
        found = bundles.find_bundle(source.path, source.version)
        name = self._name.decide(lambda: name_in(found))
        with self.loading(found):
            model = load_model(replace(source, name=name))
        written = as_name(model.manifest.name)
        if written != name and not self.source.name:
            log.warning(
                "the manifest has another name; this service keeps its own until it is restarted: "
                "set model.name to keep it permanently",
                extra={"model": name, "manifest": written, "model_version": model.version},
            )
        return model

    def _notify_swap(self, new: Rollout, old: Rollout | None) -> None:
        _notify(lambda: self._observer.served(new))
        if old is None:
            return
        log.info(
            "release followed",
            extra={
                "model": self.name,
                "stable": new.stable.version,
                "candidate": new.candidate and new.candidate.version,
                "mode": new.mode,
                "traffic": new.traffic,
                "before": old.stable.version,
            },
        )

    def _notify_fault(self, before: State) -> None:
        state, name = self._state, self.name
        if name and self._told_name == "":  # what was reported without a name is out of date
            _notify(lambda: self._observer.rejected("", ""))
        self._told_name = name
        _notify(lambda: self._observer.rejected(name, state.fault))
        if state.fault and state.fault != before.fault:
            event = "release not followed" if state.rollout else "model not loaded"
            log.error(event, extra={"model": name or None, "reason": state.fault})

    @property
    def _remembered_as(self) -> str:
        """Return the key of the version store: known before any file is read, and fixed by the
        settings.
        """
        return self.source.name or readable(str(self.source.path))

    def _source_of(self, version: str) -> ModelSource:
        return replace(self.source, version=version) if self._is_directory else self.source

    @property
    def _is_directory(self) -> bool:
        """True if there are versions among which a release can choose."""
        return not self.source.version and bundles.holds_versions(self.source.path)

    def _in_force(self) -> InForce:
        if self._is_directory:
            return read_in_force(self.source.path, name=self.source.name)
        return InForce(Release(self.source.version))  # empty if there are no versions

    def _identity(self) -> object:
        """Return a value that changes when there is something new to serve, or to try again."""
        path = self.source.path
        file = file_identity(path / FILE_NAME)
        try:
            in_force = self._in_force()
            release = in_force.release
            versions = release.versions if self._is_directory else (self.source.version,)
            found = [bundle_identity(bundles.find_bundle(path, version)) for version in versions]
            return file, in_force, tuple(found)
        except Exception as error:
            return file, str(error)


def _misfits(stable: Model, candidate: Model, mode: Mode | None) -> str:
    """Return why ``candidate`` can't answer callers of ``stable``; empty if it can."""
    broken = breaking_changes(stable.manifest, candidate.manifest)
    if mode == "shadow" and (obstacle := shadow_obstacle(candidate.manifest)):
        broken.append(obstacle)
    if not broken:
        return ""
    return f"The candidate {candidate.version} is ignored: {' '.join(broken)}"


def _attempt(faults: list[str], act: Callable[[], T]) -> T | None:
    """Return what ``act`` returns; if it fails, record why and return None.

    Every exception is caught: a worker that dies here would be forked again at once, and die again.
    """
    try:
        return act()
    except ModelError as error:
        faults.append(str(error))
    except Exception as error:
        log.exception("loading failed unexpectedly")
        faults.append(f"Loading failed unexpectedly ({type(error).__name__}); see the log.")
    return None


def _not_limited(path: Path) -> AbstractContextManager[None]:
    return nullcontext()


def _notify(notification: Callable[[], None]) -> None:
    try:
        notification()
    except Exception:  # an observer must not keep a model from being served
        log.exception("observer failed")
