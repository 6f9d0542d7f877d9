"""Messages of packing: they name files as the owner gave them, and not where packing put them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..model.errors import BundleError


@contextmanager
def naming_as_given(
    path: Path, directory: Path, copies: Mapping[str, Path] | None = None, inside: str = ""
) -> Iterator[None]:
    """Let a `BundleError` name ``path``, which is packed, and not files of ours in ``directory``.

    ``copies`` are the files there that the owner gave, by their names. Others are named as they are
    called there, after ``inside``.
    """
    try:
        yield
    except BundleError as error:
        said = str(error)
        for name, given in (copies or {}).items():
            said = said.replace(str(directory / name), str(given))
        said = said.replace(f"{directory}/", inside).replace(str(directory), str(path))
        starts = tuple(map(str, (path, *(copies or {}).values())))
        raise BundleError(said if said.startswith(starts) else f"{path}: {said}") from error
