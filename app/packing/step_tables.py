"""The tables of steps in a features file: those of the manifest, and where their files are.

In the manifest a tokenizer or a vocabulary is a file of the bundle. Here it is a path, and packing
copies the file.
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
VOCABULARY = "vocabulary.json"
"""The names of these files in a bundle, whatever they were called before."""
_FILES: Mapping[str, str] = {"tokenizer": TOKENIZER, "vocabulary": VOCABULARY}
"""By the key of a table with the path of a file, the file's name in a bundle."""

_Steps = Annotated[
    tuple[Step, ...],
    Meta(
        max_length=2,
        description='tables: [[steps]] with kind = "image", kind = "text" or kind = "words"',
    ),
]


def read_steps(tables: object, directory: Path) -> tuple[tuple[Step, ...], Mapping[str, Path]]:
    """Return the steps in ``tables``, and the files to copy, by their names in the bundle.

    Paths are relative to ``directory``. Raises `BundleError`, which names the place.
    """
    files: dict[str, Path] = {}
    read = []
    for index, table in enumerate(tables if isinstance(tables, list) else []):
        named = dict(table) if isinstance(table, dict) else {}
        for key, name in _FILES.items():
            if isinstance(written := named.get(key), str):
                path = directory / written
                if not path.is_file():
                    raise BundleError(
                        f"steps[{index}].{key}: {path} is not a file. Give the path of a {name}, "
                        "relative to the features file."
                    )
                files[name] = path
                named[key] = name
        read.append(named or table)
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
