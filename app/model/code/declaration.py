"""The declaration of the code in a bundle: its handler, as the manifest has it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from ..file_name import FileName

Interface = Literal["lantern", "torchserve"]
GOLDEN_REQUESTS = "golden_requests.json"
MAX_FILES = 1000
"""Files beside the handler at most."""

_Requirement = Annotated[str, Meta(min_length=1, max_length=500)]


class HandlerSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """The code of a bundle: the handler in ``file``, and the ``files`` that it may import or read.

    ``interface`` is how it is called. ``requirements`` are the packages that it needs, as pip
    writes them; they are for people, and nothing is installed. ``golden`` is the file with whole
    requests and their answers.
    """

    file: FileName
    interface: Interface = "lantern"
    files: Annotated[
        tuple[FileName, ...],
        Meta(max_length=MAX_FILES, description=f"an array of at most {MAX_FILES} names of files"),
    ] = ()
    requirements: Annotated[
        tuple[_Requirement, ...],
        Meta(max_length=1000, description="an array of at most 1000 requirements"),
    ] = ()
    golden: FileName = GOLDEN_REQUESTS

    @property
    def all_files(self) -> tuple[str, ...]:
        """The handler and the files beside it."""
        return (self.file, *self.files)
