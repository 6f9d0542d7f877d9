"""The object ``bundle`` that a handler gets when it is loaded: what it may know and use."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ..bundle import read_verified
from ..errors import listed
from ..manifest import Manifest, Target
from ..signature import OutputSpec, TensorSpec
from .counters import Counters, HandlerCounter
from .errors import HandlerRefusal

log = logging.getLogger("lantern.handler")


class HandlerBundle:
    """The bundle of a handler: facts of its manifest, its files, errors for callers, counters.

    ``name`` is what the service calls the model. ``Refusal`` is the class of the errors that
    `error` returns, for handlers that catch them.
    """

    Refusal = HandlerRefusal

    def __init__(self, directory: Path, manifest: Manifest, name: str) -> None:
        self.name = name
        self.version = manifest.version
        self.description = manifest.description
        self.classes: tuple[str, ...] = manifest.classes
        self.labels: tuple[str, ...] = manifest.labels
        self.targets: tuple[Target, ...] = manifest.targets
        self.inputs: tuple[TensorSpec, ...] = manifest.inputs
        self.outputs: tuple[OutputSpec, ...] = manifest.outputs
        self.training: Mapping[str, Any] = manifest.training
        self.logger = _Logger(log, {"model": name, "model_version": manifest.version})
        self.counters = Counters()
        self._directory = directory
        self._manifest = manifest

    def path(self, name: str) -> Path:
        """Return the path of a file of the bundle. Raises `FileNotFoundError`."""
        if name not in self._manifest.files:
            raise FileNotFoundError(
                f"the bundle has no file {name!r}; it has: {listed(self._manifest.files)}"
            )
        return self._directory / name

    def read(self, name: str) -> bytes:
        """Return the content of a file, as it was verified."""
        return read_verified(self.path(name), self._manifest.files[name])

    def open(self, name: str, mode: str = "rb", encoding: str | None = None) -> IO[Any]:
        """Open a file for reading."""
        if mode not in ("r", "rt", "rb"):
            raise ValueError(f"a file of a bundle is opened for reading, not with {mode!r}")
        if mode != "rb":
            encoding = encoding or "utf-8"
        file: IO[Any] = self.path(name).open(mode, encoding=encoding)
        return file

    def error(self, message: str, status: int = 422) -> HandlerRefusal:
        """Return an error to raise: the caller gets ``message`` with ``status``, 400 to 599."""
        return HandlerRefusal(message, status)

    def counter(self, name: str, help: str = "") -> HandlerCounter:
        """Return a counter that the metrics show under ``name``; it has ``inc(amount=1)``."""
        return self.counters.get(name, help)


class _Logger(logging.LoggerAdapter[logging.Logger]):
    """The service's log, with the model and its version in each line."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs
