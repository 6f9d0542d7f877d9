"""The name of a model: the same in URLs, metrics, logs and commands.

It comes from the settings, or else from the model's own files; never from the name of a directory,
or the target of a link. It is decided once for all processes of a service, so that no release
changes it.
"""

from __future__ import annotations

import fcntl
import os
import re
import weakref
from collections.abc import Callable
from pathlib import Path

from ..documents.text import readable
from . import bundle as bundles
from . import manifest_file
from .manifest import VERSION, VERSION_FORM

NAME = VERSION
"""The form of a name: one segment of a path, without escapes."""
NAME_FORM = VERSION_FORM
_LONGEST = 64
_FALLBACK = "model"


def name_in(bundle: Path) -> str:
    """Return the name of the model in the files of a bundle, or of a bare checkpoint.

    A manifest has a name; a checkpoint without a manifest has that of its file. Raises
    `BundleError` for a manifest that can't be read.
    """
    if bundles.is_bare(bundle):
        return as_name(bundles.checkpoint_path(bundle).stem)
    return as_name(manifest_file.read_name(bundle / manifest_file.FILE_NAME))


def as_name(text: str) -> str:
    """Return ``text`` as a name: characters that a URL can't have become ``-``."""
    plain = re.sub(r"[^A-Za-z0-9._+-]", "-", readable(text)).lstrip("-._+")
    return plain[:_LONGEST] or _FALLBACK


class ModelName:
    """A name that is known from the start, or decided by the first process that learns it.

    The processes that are forked from this one share it, in memory without a name in any file
    system; the system releases the lock of a process that dies.
    """

    def __init__(self, name: str = "") -> None:
        self._name = name
        if not name:
            self._shared = os.memfd_create("lantern-model-name")
            weakref.finalize(self, os.close, self._shared)

    @property
    def value(self) -> str:
        """The name; empty until a process knows it."""
        if not self._name:
            self._name = os.pread(self._shared, _LONGEST, 0).decode()
        return self._name

    def decide(self, learn: Callable[[], str]) -> str:
        """Return the name; if none was decided before, it is what ``learn`` returns.

        Raises what ``learn`` raises; the name is then still undecided.
        """
        if self.value:
            return self._name
        name = learn()
        fcntl.lockf(self._shared, fcntl.LOCK_EX)
        try:
            if not self.value:
                os.pwrite(self._shared, name.encode(), 0)
            return self.value
        finally:
            fcntl.lockf(self._shared, fcntl.LOCK_UN)
