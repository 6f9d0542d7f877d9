"""Files of images, before Pillow reads them: what of them it is to read, and in how many blocks.

Pillow takes each block in Python, inflates metadata, and copies what it has of the EXIF for each
further part of it: a file that consists of such blocks would take many times as long as the largest
picture. So the blocks are counted here, by their lengths alone, and Pillow gets only those that
make pixels, without what is between them: there is nothing that it could take for more.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from .faults import PartRejected

_MOST_SCANS = 50
"""Of a JPEG: encoders make about ten. Each goes over all pixels, and may have only 51 bytes."""
_JPEG, _SCAN, _END, _OF_EXIF = b"\xff\xd8", 0xDA, 0xD9, 0xE1
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd8\x01])")
"""Of those that a length follows, and of the end."""
_OF_JPEG = {*range(0xC0, 0xC8), *range(0xC9, 0xD0), 0xDB, 0xDC, 0xDD, 0xE0, 0xEE}
"""The segments that make pixels: frames, tables, and which colours JFIF or Adobe meant."""
_PNG = b"\x89PNG\r\n\x1a\n"
_OF_PNG = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_GIF, _EXTENSION, _CONTROL = (b"GIF87a", b"GIF89a"), ord("!"), b"!\xf9\x04"
_BMP, _LONG_HEADER, _RUN_LENGTHS = b"BM", 40, (1, 2)
_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112
_INTEGERS = {1: "B", 3: "H", 4: "I"}
"""The format of a value of EXIF, by its type."""


class ImageFile(NamedTuple):
    """The part of a file that Pillow is to read, how many ``blocks`` there were, and the ``exif``
    of a JPEG or PNG, which is none of it.
    """

    data: bytes
    blocks: int = 0
    exif: bytes = b""


def prepare(data: bytes, most: int) -> ImageFile:
    """Return what Pillow is to read of a file, which may have ``most`` blocks.

    They are the chunks of a PNG, the segments of a JPEG before its first scan, and the blocks of a
    GIF before its first frame. Raises `PartRejected`.
    """
    if data.startswith(_JPEG):
        return _jpeg(data, most)
    if data.startswith(_PNG):
        return _png(data, most)
    if data.startswith(_GIF):
        return _gif(data, most)
    if data.startswith(_BMP):
        _check_bmp(data)
    return ImageFile(data)


def orientation(exif: bytes) -> int | None:
    """Return how a picture is held, from 1 to 8, as its EXIF says; None if it doesn't."""
    tiff = exif.removeprefix(_EXIF).removeprefix(_EXIF)  # some programs write it twice
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 10:
        return None
    (place,) = struct.unpack_from(f"{order}I", tiff, 4)
    entries = tiff[place + 2 :]
    if entries:
        (count,) = struct.unpack_from(f"{order}H", tiff, place)
        entries = entries[: min(count, len(entries) // 12) * 12]
    for tag, kind, values, packed in struct.iter_unpack(f"{order}HHI4s", entries):
        if tag == _ORIENTATION and kind in _INTEGERS and values == 1:
            found: int = struct.unpack_from(order + _INTEGERS[kind], packed)[0]
            return found
    return None


class _Blocks:
    """The blocks of a file: those that are ``kept``, and the number of all, ``most`` at most."""

    def __init__(self, begin: bytes, most: int, called: str) -> None:
        self.kept = [begin]
        self.count = 0
        self._most = most
        self._called = called

    def add(self) -> None:
        """Count a block."""
        self.count += 1
        if self.count > self._most:
            raise PartRejected(
                f"has more than {self._most:,} {self._called}, which is the limit for the pixels "
                "that an image may have (limits.max_image_pixels); save it anew",
                too_large=True,
            )

    def file(self, exif: bytes = b"") -> ImageFile:
        """Return the file of those that are kept."""
        return ImageFile(b"".join(self.kept), self.count, exif)


def _jpeg(data: bytes, most: int) -> ImageFile:
    _check_scans(data)
    blocks, exif = _Blocks(_JPEG, most, "segments of a JPEG"), [_EXIF]
    place = len(_JPEG)
    while (found := _MARKER.search(data, place)) and (marker := found[1][0]) not in (_SCAN, _END):
        blocks.add()
        begin, place = found.start(), _end_of_segment(data, found.end())
        if marker in _OF_JPEG:
            blocks.kept.append(data[begin:place])
        elif marker == _OF_EXIF and data.startswith(_EXIF, begin + 4):
            exif.append(data[begin + 4 + len(_EXIF) : place])
    blocks.kept.append(data[found.start() :] if found else b"")
    return blocks.file(b"".join(exif))


def _check_scans(data: bytes) -> None:
    """Raise `PartRejected` for a JPEG of which a few kilobytes take minutes to decode."""
    if data.count(bytes((0xFF, _SCAN))) <= _MOST_SCANS:
        return  # what is counted may be within a thumbnail, or behind the image
    scans, place = 0, len(_JPEG)
    while (found := _MARKER.search(data, place)) and (marker := found[1][0]) != _END:
        scans += marker == _SCAN
        if scans > _MOST_SCANS:
            raise PartRejected(f"is a JPEG of more than {_MOST_SCANS} scans; save it with fewer")
        place = _end_of_segment(data, found.end())


def _end_of_segment(data: bytes, place: int) -> int:
    """Return where the segment ends whose length is at ``place``."""
    return place + max(2, int.from_bytes(data[place : place + 2]))


def _png(data: bytes, most: int) -> ImageFile:
    blocks, exif = _Blocks(_PNG, most, "chunks of a PNG"), b""
    place, kind = len(_PNG), b""
    while place <= len(data) - 8 and kind != b"IEND":
        blocks.add()
        length, kind = struct.unpack_from(">I4s", data, place)
        begin, place = place, place + 12 + length
        if kind in _OF_PNG:
            blocks.kept.append(data[begin:place])
        elif kind == b"eXIf":
            exif = data[begin + 8 : place - 4]
    return blocks.file(exif)


def _gif(data: bytes, most: int) -> ImageFile:
    place = 13
    if len(data) > 10 and data[10] & 0x80:
        place += 6 << (data[10] & 7)  # its colours
    blocks = _Blocks(data[:place], most, "blocks of a GIF before its first frame")
    while place < len(data) and data[place] not in b",;":
        blocks.add()
        begin = place
        place += 1
        if data[begin] == _EXTENSION:
            place += 1
            while place < len(data) and data[place]:
                blocks.add()
                place += 1 + data[place]
            place += 1
        if place == begin + 8 and data.startswith(_CONTROL, begin):  # which colour is transparent
            blocks.kept.append(data[begin:place])
    blocks.kept.append(data[place:])
    return blocks.file()


def _check_bmp(data: bytes) -> None:
    """Raise `PartRejected` for a BMP that Pillow decodes pixel by pixel, in Python."""
    header, compression = (int.from_bytes(data[at : at + 4], "little") for at in (14, 30))
    if header >= _LONG_HEADER and compression in _RUN_LENGTHS:
        raise PartRejected("is a BMP in run-length encoding, which is not read; save it as a PNG")
