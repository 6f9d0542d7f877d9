"""The modules of TorchServe that a handler of it may import, by their names there."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType

from ..modules import Provided
from .context import SERVER_VERSION

_OURS = {
    "ts.context": "context",
    "ts.handler_utils.text_utils": "text_utils",
    "ts.handler_utils.timer": "util",
    "ts.metrics.dimension": "metrics",
    "ts.metrics.metric_type_enum": "metrics",
    "ts.torch_handler.base_handler": "base_handler",
    "ts.torch_handler.image_classifier": "image_classifier",
    "ts.torch_handler.text_classifier": "text_classifier",
    "ts.torch_handler.text_handler": "text_handler",
    "ts.torch_handler.vision_handler": "vision_handler",
    "ts.utils.util": "util",
}
"""By the name in TorchServe, the module beside this one that has the same names."""
_PACKAGES = ("ts", "ts.handler_utils", "ts.metrics", "ts.torch_handler", "ts.utils")


def provided_modules() -> Provided:
    """Return what makes each module, once it is imported."""
    modules: Mapping[str, Callable[[], ModuleType]] = {
        name: lambda module=module: importlib.import_module(f".{module}", __package__)  # type: ignore[misc]
        for name, module in _OURS.items()
    }
    packages: Mapping[str, Callable[[], ModuleType]] = {
        name: lambda name=name: _package(name)  # type: ignore[misc]
        for name in _PACKAGES
    }
    return {**modules, **packages}


def _package(name: str) -> ModuleType:
    module = ModuleType(name)
    module.__path__ = []
    if name == "ts":
        module.__dict__["__version__"] = SERVER_VERSION
    return module
