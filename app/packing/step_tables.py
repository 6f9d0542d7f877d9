"""The tables of steps in a features file: those of the manifest, and where a tokenizer's file is.

In the manifest a tokenizer is a file of the bundle. Here it is a path, and packing copies the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ..documents.schema import SchemaError, place, read_as
from ..documents.suggestions import did_you_mean
from ..model.errors import BundleError
from ..model.steps.declaration import Step

TOKENIZER = "tokenizer.json"
"""The name of a tokenizer in a bundle, whatever it was called before."""

_Steps = Annotated[
    tuple[Step, ...],
    Meta(
        max_length=2,
        description='tables: [[steps]] with kind = "image" or kind = "text", one of each at most',
    ),
]


def read_steps(tables: object, directory: Path) -> tuple[tuple[Step, ...], Mapping[str, Path]]:
    """Return the steps in ``tables``, and the files to copy, by their names in the bundle.

    Paths are relative to ``directory``. Raises `BundleError`, which names the place.
    """
    files: dict[str, Path] = {}
    read = []
    for index, table in enumerate(tables if isinstance(tables, list) else []):
        if isinstance(table, dict) and isinstance(table.get("tokenizer"), str):
            path = directory / table["tokenizer"]
            if not path.is_file():
                raise BundleError(
                    f"steps[{index}].tokenizer: {path} is not a file. Give the path of a "
                    "tokenizer.json, relative to the features file."
                )
            files[TOKENIZER] = path
            read.append({**table, "tokenizer": TOKENIZER})
        else:
            read.append(table)
    try:
        steps: tuple[Step, ...] = read_as(
            _Steps, read if isinstance(tables, list) else tables, ("steps",)
        )
    except SchemaError as error:
        raise BundleError(_sentence(error)) from None
    return steps, files


def _sentence(error: SchemaError) -> str:
    where = place(error.path)
    if error.known:
        hint = did_you_mean(str(error.path[-1]), error.known)
        known = f"; the keys are {', '.join(error.known)}."
        return f"{place(error.path[:-1])}: {error.path[-1]!r} is not a key here{hint or known}"
    if error.missing:
        return f"{where} is missing: it must be {error.wanted}."
    return f"{where} {error.requirement}"
