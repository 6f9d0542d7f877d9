"""The modules of one bundle, executed from the bytes that were verified.

Several versions are loaded in one process, and their files have the same names. So a bundle's
modules see each other by ``import helpers``, and nobody else sees them: they are found by the
import statement of their own code, and not by any path.
"""

from __future__ import annotations

import builtins
import itertools
import sys
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from threading import RLock, get_ident
from types import ModuleType
from typing import Any

Provided = Mapping[str, Callable[[], ModuleType]]
"""Modules of ours that a bundle's code may import, by the names that it knows."""

_numbers = itertools.count(1)
_loading = RLock()


class OwnModules:
    """The modules of one bundle: ``sources`` by their names, and those that are ``provided``.

    ``directory`` is where their files were, for tracebacks.
    """

    def __init__(
        self, sources: Mapping[str, bytes], directory: Path, provided: Provided | None = None
    ) -> None:
        self._sources = dict(sources)
        self._provided = dict(provided or {})
        self._directory = directory
        self._loaded: dict[str, ModuleType] = {}
        self._lock = RLock()
        self._prefix = f"_lantern_code_{next(_numbers)}_"
        # The modules must not keep this object alive: they end with it.
        self._builtins = builtins.__dict__ | {"__import__": _import_for(weakref.ref(self))}
        weakref.finalize(self, _forget, [f"{self._prefix}{name}" for name in sources])

    def __contains__(self, name: str) -> bool:
        return name in self._sources or name in self._provided

    def load(self, name: str) -> ModuleType:
        """Return the module ``name``, executed once. Raises what its code raises."""
        with self._lock:
            if name not in self._loaded:
                if name in self._sources:
                    self._execute(name)
                elif name in self._provided:
                    self._loaded[name] = self._provided[name]()
                else:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
                parent, _, last = name.rpartition(".")
                if parent:
                    setattr(self.load(parent), last, self._loaded[name])
            return self._loaded[name]

    @contextmanager
    def importable(self) -> Iterator[None]:
        """Let this thread import the modules by any means, as `importlib.import_module` or a
        pickle does, while the bundle is loaded.

        Modules of others stay what they are to everybody: one of the same name that is loaded, or
        comes with Python, is found first here.
        """
        with _loading:
            names = {
                name
                for name in (*self._sources, *self._provided)
                if name not in sys.modules and name not in sys.stdlib_module_names
            }
            finder = _Finder(self, names)
            sys.meta_path.insert(0, finder)
            try:
                yield
            finally:
                sys.meta_path.remove(finder)
                for name in names:
                    sys.modules.pop(name, None)

    def _execute(self, name: str) -> None:
        file = str(self._directory / f"{name}.py")
        module = ModuleType(f"{self._prefix}{name}")
        module.__file__ = file
        module.__dict__["__builtins__"] = self._builtins
        # Under a name of its own: pickles and dataclasses look a class's module up.
        self._loaded[name] = sys.modules[module.__name__] = module
        try:
            code = compile(self._sources[name], file, "exec", dont_inherit=True)
            exec(code, module.__dict__)  # noqa: S102 - the settings allow it
        except BaseException:
            del self._loaded[name], sys.modules[module.__name__]
            raise


class _Finder:
    """Finds the modules of one bundle for the thread that loads it."""

    def __init__(self, modules: OwnModules, names: Collection[str]) -> None:
        self._modules, self._names, self._thread = modules, names, get_ident()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if get_ident() != self._thread or name not in self._names:
            return None
        return ModuleSpec(name, self, is_package=False)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._modules.load(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: it was executed when it was created."""


def _import_for(reference: weakref.ref[OwnModules]) -> Callable[..., ModuleType]:
    """Return the import statement of a bundle's code."""

    def import_(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        own, root = reference(), name.partition(".")[0]
        if level or own is None or root not in own:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        module = own.load(name)
        for each in fromlist or ():
            if not hasattr(module, each) and f"{name}.{each}" in own:
                own.load(f"{name}.{each}")
        return module if fromlist else own.load(root)

    return import_


def _forget(names: Collection[str]) -> None:
    for name in names:
        sys.modules.pop(name, None)
