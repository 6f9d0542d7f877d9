"""``lantern serve FILE``: a model's file as its library exported it, packed for as long as it is
served.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..model.errors import BundleError
from ..model.isolation import ProcessLimits
from ..model.manifest import TaskName
from ..model.naming import as_name
from ..packing.archives.packing import is_archive
from ..packing.file import pack_file
from ..packing.source import GRAPH_SUFFIX, PROGRAM_SUFFIX
from ..packing.statement import Statement
from ..version import COMMAND


def is_model_file(path: Path) -> bool:
    """Return True if ``path`` is a file that is packed to be served."""
    by_name = path.suffix in (GRAPH_SUFFIX, PROGRAM_SUFFIX) or is_archive(path)
    return by_name and path.is_file()


@contextmanager
def packed_for_now(
    file: Path, limits: ProcessLimits, *, allow_code: bool = False
) -> Iterator[Path]:
    """Pack ``file``, and yield the directory of the model: with the tensors that it takes and
    returns, or an archive with its handler, where its code is allowed.

    Nothing is asked: the example is one row of ones. The directory is removed in the end, by this
    process alone: workers are forked from it. Raises `BundleError` where an example is needed.
    """
    signal.signal(signal.SIGTERM, _exit)  # until Gunicorn's own handler, which ends in order
    owner, scratch = os.getpid(), Path(tempfile.mkdtemp(prefix="lantern-"))
    try:
        model = scratch / as_name(file.name.partition(".")[0] if is_archive(file) else file.stem)
        task: TaskName | None = None if is_archive(file) else "tensors"
        statement = Statement(task=task, allow_code=allow_code)
        try:
            pack_file(file, model / "1", statement=statement, limits=limits)
        except BundleError as error:
            if is_archive(file):
                raise
            raise BundleError(f"{error} {_advice(file)}") from error
        yield model
    finally:
        if os.getpid() == owner:
            shutil.rmtree(scratch, ignore_errors=True)


def _exit(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _advice(file: Path) -> str:
    return (
        "To serve it, pack it with what it needs to be known: "
        f"{COMMAND} model pack {file} --task tensors --samples example.npz "
        f"--out models/{as_name(file.stem)}/1 (an array for each input)."
    )
