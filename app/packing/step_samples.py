"""Samples for a model with steps: pictures and texts, as callers send them.

They are a directory of pictures, one picture, a text file with a text on each line, or a CSV file
with the columns ``image`` (paths), ``text`` and ``pair``. Without any, an example is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from itertools import islice
from pathlib import Path

import numpy as np

from ..documents.text import NotUtf8, decode
from ..model.errors import BundleError, listed
from ..model.steps.declaration import IMAGE, PAIR, TEXT, Sample
from .faults import Faults
from .samples import spread
from .tables import open_table

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
_TEXTS = (".txt",)
_TABLES = (".csv",)
_GOLDEN_TEXTS = 20
_GOLDEN_PICTURES = 8
"""A worker answers each golden sample before it serves, and pictures take long."""
_LARGEST_FILE = 64 << 20
_MOST_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class StepSamples:
    """Samples, the place that each was read from, in words, and what was assumed.

    ``truth`` has the name of the true class of each, where the file says it.
    """

    samples: tuple[Sample, ...]
    places: tuple[str, ...]
    truth: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Row:
    """A sample before its picture is read."""

    place: str
    image: Path | None = None
    text: str | None = None
    pair: str | None = None
    truth: str = ""

    def sample(self) -> Sample:
        """Return the sample. Raises `BundleError` for a picture that can't be read."""
        image = None if self.image is None else _bytes(self.image, self.place)
        return Sample(image, self.text, self.pair)


def read_step_samples(path: Path, members: Sequence[str], truth: str = "") -> StepSamples:
    """Return the samples in ``path`` with the ``members`` "image" or "text", or both.

    They are spread evenly over the file or directory. ``truth`` is the column with the true class.
    Raises `BundleError`, which names the place.
    """
    try:
        rows, notes = _rows(path, members, truth)
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from error
    most = _GOLDEN_PICTURES if IMAGE in members else _GOLDEN_TEXTS
    chosen = [rows[index] for index in spread(len(rows), most)]
    return StepSamples(
        tuple(row.sample() for row in chosen),
        tuple(row.place for row in chosen),
        tuple(row.truth for row in chosen) if truth else (),
        notes,
    )


def _rows(path: Path, members: Sequence[str], truth: str) -> tuple[list[_Row], tuple[str, ...]]:
    suffix = path.suffix.lower()
    if suffix in _TABLES and path.is_file():
        return _in_table(path, members, truth), ()
    if truth:
        raise BundleError(f"--truth is a column, and {path} has none: give samples as a .csv.")
    if len(members) > 1:
        raise BundleError(
            f"{path} must be a .csv with the columns image (paths) and text: each sample has both."
        )
    if members[0] == TEXT:
        if suffix not in _TEXTS or not path.is_file():
            raise BundleError(f"{path} must be a .txt with a text on each line, or a .csv.")
        return _in_lines(path), ()
    if path.is_dir():
        return _in_directory(path)
    if suffix in PICTURES:
        return [_Row(path.name, image=path)], ()
    raise BundleError(
        f"{path} must be a directory of pictures, a picture ({', '.join(PICTURES)}), or a .csv "
        "with a column image of their paths."
    )


def _in_directory(path: Path) -> tuple[list[_Row], tuple[str, ...]]:
    found: list[Path] = []
    left: list[Path] = []
    for each in sorted(path.iterdir()):
        is_picture = each.suffix.lower() in PICTURES and each.is_file()
        if not each.name.startswith("."):
            (found if is_picture else left).append(each)
    if not found:
        raise BundleError(f"{path} has no pictures ({', '.join(PICTURES)}).")
    names = listed((each.name for each in left), 3)
    notes = (f"No pictures, and left out of the samples: {names}.",) if left else ()
    return [_Row(each.name, image=each) for each in found], notes


def _in_lines(path: Path) -> list[_Row]:
    rows = [
        _Row(f"line {number} of {path.name}", text=line.strip())
        for number, line in enumerate(StringIO(_text(path)), 1)
        if line.strip()
    ]
    if not rows:
        raise BundleError(f"{path} has no text.")
    return rows


def _in_table(path: Path, members: Sequence[str], truth: str) -> list[_Row]:
    with open_table(path) as table:
        table.check_header()
        faults = Faults()
        wanted = [*members, *([truth] if truth else [])]
        found = {name: faults.attempt(table.column, name) for name in wanted}
        faults.check()
        if TEXT in members and PAIR in table.header:
            found[PAIR] = table.column(PAIR)
        columns = {name: column for name, column in found.items() if column is not None}
        return [
            _row({name: row[column] for name, column in columns.items()}, line, path, truth)
            for line, row in islice(table.rows(), _MOST_ROWS)
        ]


def _row(cells: Mapping[str, str], line: int, path: Path, truth: str) -> _Row:
    image = cells.get(IMAGE)
    if image is not None and not image.strip():
        raise BundleError(f"line {line}: the column image is blank; each sample has a picture.")
    return _Row(
        f"line {line} of {path.name}",
        None if image is None else path.parent / image.strip(),
        cells.get(TEXT),
        cells.get(PAIR) or None,
        cells[truth].strip() if truth else "",
    )


def _text(path: Path) -> str:
    try:
        return decode(_bytes(path, str(path)))
    except NotUtf8 as error:
        raise BundleError(f"{path} {error}") from None


def _bytes(path: Path, place: str) -> bytes:
    """Return what is in ``path``, which ``place`` names. Raises `BundleError`."""
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise BundleError(
                f"{place}: {path} has {size:,} bytes, which exceeds the limit of "
                f"{_LARGEST_FILE:,} for samples."
            )
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{place}: {path} can't be read: {error.strerror}.") from error


def made_samples(members: Sequence[str], made_texts: Callable[[], tuple[str, str]]) -> StepSamples:
    """Return two examples of a model with ``members``, and of ``made_texts`` if it takes those."""
    images: list[bytes | None] = [None, None]
    texts: Sequence[str | None] = (None, None)
    if IMAGE in members:
        images = [_picture(320, 240), _picture(240, 300)]
    if TEXT in members:
        texts = made_texts()
    samples = [Sample(image, text) for image, text in zip(images, texts, strict=True)]
    called = " and ".join({IMAGE: "pictures", TEXT: "texts"}[member] for member in members)
    return StepSamples(
        tuple(samples),
        tuple(f"example {index}" for index in (1, 2)),
        notes=(f"No samples were given: the golden data are two made {called}.",),
    )


def _picture(width: int, height: int) -> bytes:
    """Return a PNG of colours that change in every direction."""
    from PIL import Image  # which a model of texts doesn't need

    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    wave = (np.sin(x * 17) * np.cos(y * 23) + 1) / 2
    file = BytesIO()
    colours = np.stack([x, y, wave], axis=2) * 255
    Image.fromarray(colours.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
