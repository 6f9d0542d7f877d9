"""The helpers that handlers of TorchServe use (``ts.utils.util``, ``ts.handler_utils.timer``)."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class PredictionException(Exception):
    """An error that a handler raises for its caller, with a status."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        self.message, self.error_code = message, error_code
        super().__init__(message)

    def __str__(self) -> str:
        return f"{self.message} : {self.error_code}"


def list_classes_from_module(module: ModuleType, parent_class: type | None = None) -> list[type]:
    """Return the classes that a module defines itself, in the order of their names."""
    classes = [
        each
        for _, each in inspect.getmembers(module, inspect.isclass)
        if each.__module__ == module.__name__
    ]
    return [each for each in classes if parent_class is None or issubclass(each, parent_class)]


def load_label_mapping(mapping_file_path: str) -> dict[str, str] | None:
    """Return the names of the classes by their indices as strings; None if there is no file."""
    path = Path(mapping_file_path)
    if not path.is_file():
        return None
    return label_mapping(json.loads(path.read_text(encoding="utf-8")))


def label_mapping(document: Any) -> dict[str, str]:
    """Return the mapping in an ``index_to_name.json``: of a list, the last is the name.

    Raises `ValueError` for another document.
    """
    if not isinstance(document, dict):
        raise ValueError("index_to_name.json must be an object of names by index")
    names = document.get("object_type_names")
    if isinstance(names, list):
        document = {str(index): name for index, name in enumerate(names)}
    mapping = {
        str(index): name[-1] if isinstance(name, list) and name else name
        for index, name in document.items()
    }
    for index, name in mapping.items():
        if not isinstance(name, str):
            raise ValueError(f"index_to_name.json: the name of {index[:40]!r} is no string")
    return mapping


def map_class_to_label(
    probs: Sequence[Sequence[float]],
    mapping: Mapping[str, str] | None = None,
    lbl_classes: Sequence[Sequence[int]] | None = None,
) -> list[dict[str, float]]:
    """Return, for each row of probabilities, those by the names of their classes."""
    rows = []
    for index, row in enumerate(probs):
        classes = range(len(row)) if lbl_classes is None else lbl_classes[index]
        rows.append(
            {
                str(each) if mapping is None else mapping[str(each)]: probability
                for each, probability in zip(classes, row, strict=False)
            }
        )
    return rows


def get_yaml_config(yaml_file_path: str) -> Any:
    """Return what a YAML file says."""
    # The service doesn't need it: like torch, it is what a handler takes.
    yaml: Any = importlib.import_module("yaml")
    return yaml.safe_load(Path(yaml_file_path).read_text(encoding="utf-8")) or {}


def timed(function: F) -> F:
    """Return ``function`` as it is: the service measures requests."""
    return function
