"""The models in ``./models``: served if the settings name none.

A single model is served as if `model.path` named it, several as if [models] named each by its
directory, and if there is none, the example that comes with Lantern. The example may be among them,
as in a checkout and in the image: by its name it comes last, so that a user's own model answers
calls without a name.
"""

from __future__ import annotations

from pathlib import Path

from ..documents.text import readable
from ..model.bundle import (
    bundles_below,
    has_versions,
    holds_versions,
    models_below,
    unreadable_below,
)
from ..model.errors import BundleError
from ..model.naming import NAME, NAME_FORM
from .collected import Collected
from .places import EXAMPLE, MODELS, SHIPPED

ORIGIN = f"./{MODELS}"
_OF_A_SINGLE_MODEL = ("model.name", "model.version")
_MOST_NAMED = 5


def find_models(collected: Collected) -> None:
    """Set the models in ``./models``, if there are any; never raises for what is there."""
    found = _models()
    if len(found) > 1:
        _set_several(collected, found)
    elif found and not _is_default(found[0]):
        collected.set("model", "path", _text(found[0]), ORIGIN)
    unreadable = unreadable_below(Path(MODELS))
    collected.warnings += [
        f"{_text(path)} can't be read: if it has a model, that is not served."
        for path in unreadable
        if path not in found
    ]
    collected.warnings += [
        f"{_text(path)} is a bundle, and isn't served: in {ORIGIN} a model is a directory of "
        f"versions. Pack it to {_text(path)}/1, or name it as the model."
        for path in bundles_below(Path(MODELS))
        if found != [Path(MODELS)] and path not in (*found, *unreadable)
    ]


def _models() -> list[Path]:
    directory = Path(MODELS)
    found = models_below(directory)
    if not found:
        # It is a directory of versions, or a bundle, itself; or unreadable, which loading it
        # reports: serving the example instead would be a surprise.
        found = [directory] if _is_model(directory) else unreadable_below(directory)[:1]
    return sorted(found, key=lambda path: path.name == EXAMPLE.name)


def _is_model(directory: Path) -> bool:
    if directory.is_symlink() and not directory.exists():  # of a volume that is not mounted, maybe
        return True
    try:
        return has_versions(directory) or (directory.exists() and not holds_versions(directory))
    except (BundleError, OSError):
        return True


def _is_default(path: Path) -> bool:
    return path.resolve() == (SHIPPED / EXAMPLE).resolve()


def _set_several(collected: Collected, found: list[Path]) -> None:
    for path in found:
        if NAME.fullmatch(path.name):
            collected.set("models", path.name, _text(path), ORIGIN)
    if not collected.values["models"]:
        collected.set("model", "path", _text(found[0]), ORIGIN)
    collected.models_fault = _fault(collected, found)


def _fault(collected: Collected, found: list[Path]) -> str:
    for path in found:
        if not NAME.fullmatch(path.name):
            return (
                f"The models in {ORIGIN} are served by the names of their directories, and "
                f"{_text(path)!r} can't stand in a URL: a model's name must be {NAME_FORM}. Rename "
                "it, or name the models to serve in [models]."
            )
    for key in _OF_A_SINGLE_MODEL:
        if not collected.is_default(key):
            names = ", ".join(_text(path) for path in found[:_MOST_NAMED])
            return (
                f"Setting {key} ({collected.origins[key]}) is for a single model, but {ORIGIN} has "
                f"several: {names}. Remove it, or set model.path to one of them."
            )
    return ""


def _text(path: Path) -> str:
    return readable(str(path))
