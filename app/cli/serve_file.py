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
from ..model.naming import as_name
from ..packing.file import pack_file
from ..packing.source import GRAPH_SUFFIX, PROGRAM_SUFFIX
from ..packing.statement import Statement
from ..version import COMMAND

SUFFIXES = (GRAPH_SUFFIX, PROGRAM_SUFFIX)


@contextmanager
def packed_for_now(file: Path, limits: ProcessLimits) -> Iterator[Path]:
    """Pack ``file`` as the tensors that it takes and returns, and yield the directory of the model.

    Nothing is asked: the example is one row of ones. The directory is removed in the end, by this
    process alone: workers are forked from it. Raises `BundleError` where an example is needed.
    """
    owner, scratch = os.getpid(), Path(tempfile.mkdtemp(prefix="lantern-"))
    signal.signal(signal.SIGTERM, _exit)  # until Gunicorn's own handler, which ends in order
    try:
        model = scratch / as_name(file.stem)
        try:
            pack_file(file, model / "1", statement=Statement(task="tensors"), limits=limits)
        except BundleError as error:
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
