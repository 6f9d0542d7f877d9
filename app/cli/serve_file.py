"""``lantern serve FILE``: a model's file as its library exported it, or a directory of
transformers, packed for as long as it is served.
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
from time import monotonic

import click

from ..documents.text import readable
from ..model.code.permission import may_run
from ..model.errors import BundleError
from ..model.naming import as_name
from ..packing.archives.packing import is_archive
from ..packing.file import pack_file
from ..packing.huggingface.directory import is_directory
from ..packing.own_handler import SUFFIX as HANDLER
from ..packing.source import GRAPH_SUFFIX, PROGRAM_SUFFIX
from ..packing.statement import Statement
from ..settings import ModelSettings
from ..version import COMMAND
from .printing import plain


def is_model_file(path: Path) -> bool:
    """Return True if ``path`` is a file, or a directory, that is packed to be served."""
    by_name = path.suffix in (GRAPH_SUFFIX, PROGRAM_SUFFIX, HANDLER) or is_archive(path)
    return (by_name and path.is_file()) or is_directory(path)


@contextmanager
def packed_for_now(file: Path, settings: ModelSettings) -> Iterator[Path]:
    """Pack ``file``, and yield the directory of the model: with the tensors that it takes and
    returns, as the classifier that a directory of transformers has, or a handler alone or in an
    archive, where its code is allowed.

    Nothing is asked: the example is one row of ones, or a made text or picture. What is done, and
    was assumed, is printed. The directory is removed in the end, by this process alone: workers are
    forked from it. Raises `BundleError` where an example is needed.
    """
    signal.signal(signal.SIGTERM, _exit)  # until Gunicorn's own handler, which ends in order
    owner, scratch = os.getpid(), Path(tempfile.mkdtemp(prefix="lantern-"))
    try:
        says_all = file.suffix == HANDLER or is_archive(file) or is_directory(file)
        model = scratch / (settings.name or as_name(_name_of(file)))
        is_allowed = may_run(settings.allow_code, model.name)
        statement = Statement(task=None if says_all else "tensors", allow_code=is_allowed)
        _say(f"{_work_on(file)}, to serve it as {model.name} ...")
        started, limits = monotonic(), settings.process_limits
        try:
            packed = pack_file(file, model / "1", statement=statement, limits=limits)
        except BundleError as error:
            if says_all:
                raise
            raise BundleError(f"{error} {_advice(file)}") from error
        for note in packed.notes:
            _say(note)
        _say(f"Packed in {monotonic() - started:.1f} s.")
        yield model
    finally:
        if os.getpid() == owner:
            shutil.rmtree(scratch, ignore_errors=True)


def _name_of(file: Path) -> str:
    if is_archive(file):
        return file.name.partition(".")[0]
    return file.resolve().name if file.is_dir() else file.stem


def _work_on(file: Path) -> str:
    """Return what is done with ``file`` before it is served."""
    called = readable(str(file))
    if is_directory(file):
        return f"Exporting {called} by torch in a child process, which may take a minute"
    with_handler = " with its handler" if is_archive(file) else ""
    return f"Packing {called}{with_handler} in a child process"


def _say(line: str) -> None:
    """Print a line for people, where the log is, too."""
    click.echo(plain(line), err=True)


def _exit(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _advice(file: Path) -> str:
    return (
        "To serve it, pack it with what it needs to be known: "
        f"{COMMAND} model pack {file} --task tensors --samples example.npz "
        f"--out models/{as_name(file.stem)}/1 (an array for each input)."
    )
