"""Importing what the code of a bundle takes before the fork, so that workers share the libraries.

The code is read for that, and not executed: each worker does that, with the model.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import PurePath

from .bundle_access import HandlerBundle
from .declaration import HandlerSpec
from .modules import Provided

log = logging.getLogger("lantern.handler")

SHARED_LIBRARIES = frozenset(
    {
        *("PIL", "cv2", "numpy", "onnxruntime", "pandas", "safetensors", "scipy"),
        *("sentencepiece", "sklearn", "tokenizers", "torch", "torchvision", "transformers"),
    }
)
"""Libraries that work in a worker although the master imported them: they start threads, and CUDA,
when they are first used. Others might not, and each worker imports them.
"""


def import_before_fork(spec: HandlerSpec, bundle: HandlerBundle) -> None:
    """Import those of `SHARED_LIBRARIES` that the code of ``bundle`` imports when it is loaded.

    The caller has checked that it is allowed. What can't be imported is left for the worker, which
    reports it. Raises `BundleError` if a file of the code was altered.
    """
    sources = {PurePath(n).stem: bundle.read(n) for n in spec.all_files if n.endswith(".py")}
    provided: Provided = {}
    if spec.interface == "torchserve":
        from .torchserve.modules import provided_modules

        provided = provided_modules()
    libraries = SHARED_LIBRARIES - {*sources}  # its own files come first
    for source in sources.values():
        for module, names in imports_of(source):
            if module in provided:
                _attempt(module, provided[module])
            elif module.partition(".")[0] in libraries:
                # As the statement does: names may be modules, too.
                _attempt(module, partial(__import__, module, fromlist=names))


def imports_of(source: bytes) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each module that is imported whenever ``source`` is executed, and the names from it.

    That is nothing that its functions import, or that depends on a condition. What is no Python
    imports nothing.
    """
    try:
        yield from _imports_in(ast.parse(source).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        log.debug("the code of a bundle can't be read: %s", error)


def _imports_in(statements: Iterable[ast.stmt]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for statement in statements:
        if isinstance(statement, ast.Import):
            yield from ((alias.name, ()) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            yield statement.module, tuple(alias.name for alias in statement.names)
        elif isinstance(statement, ast.Try | ast.With):
            yield from _imports_in(statement.body)


def _attempt(module: str, import_: Callable[[], object]) -> None:
    try:
        import_()
    except (Exception, SystemExit) as error:
        log.debug("%s was not imported before the fork: %s", module, error)
