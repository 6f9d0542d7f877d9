"""What Pillow gets of a file: what makes the same pixels, in a bounded number of blocks."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from app.model.errors import ImagesTooLarge
from app.model.signature import Array, TensorSpec
from app.model.steps import image as images
from app.model.steps.declaration import ImageStep, Resize, Sample
from app.model.steps.image_file import ImageFile, orientation, prepare
from app.model.steps.limits import LEAST_BLOCKS
from tests.model.steps.test_image import BOMB, FILES, chunk, encoder_of, png, refusal
from tests.step_models import PHOTO, PIXELS, picture

PLAIN = TensorSpec("x", "UINT8", (-1, -1, -1, 3))
ROW = chunk(b"IDAT", zlib.compress((b"\0" + b"\x50" * 120) * 30))
BITMAP = ImageStep("x", resize=Resize(width=40, height=30), layout="NHWC")


def pixels_of(data: bytes) -> Array:
    made: Array = encoder_of(BITMAP, PLAIN).encode([Sample(image=data)])["x"][0]
    return made


def saved(format: str, mode: str = "RGB", **options: object) -> bytes:
    """Return a picture of 40 x 30 whose four corners differ."""
    values = np.arange(30 * 40 * 3, dtype=np.uint32).reshape(30, 40, 3) * 7 % 251
    image = Image.fromarray(values.astype(np.uint8)).convert(mode)
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def segment(marker: int, content: bytes = b"") -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def with_segments(*segments: bytes, jpeg: bytes = b"") -> bytes:
    jpeg = jpeg or saved("JPEG")
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def with_extensions(*extensions: bytes) -> bytes:
    gif = saved("GIF", "P")
    place = 13 + (6 << (gif[10] & 7))
    assert gif[place : place + 1] in b"!,"
    return gif[:place] + b"".join(extensions) + gif[place:]


def run_length_bmp(bits: int, data: bytes) -> bytes:
    colours = b"".join(bytes((index, 255 - index, 7, 0)) for index in range(1 << bits))
    compression = {8: 1, 4: 2}[bits]
    header = struct.pack(
        "<IiiHHIIiiII", 40, 40, 30, 1, bits, compression, len(data), 0, 0, 1 << bits, 0
    )
    offset = 14 + len(header) + len(colours)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + header + colours + data


MANY = LEAST_BLOCKS + 1
OF_BLOCKS: dict[str, tuple[bytes, str]] = {
    "empty chunks": (png(40, 30, chunk(b"prIv", b"") * MANY, ROW), "chunks of a PNG"),
    "empty texts": (png(40, 30, chunk(b"tEXt", b"") * MANY, ROW), "chunks of a PNG"),
    "chunks behind the pixels": (png(40, 30, ROW, chunk(b"abCd", b"") * MANY), "chunks of a PNG"),
    "empty pixels": (png(40, 30, chunk(b"IDAT", b"") * MANY, ROW), "chunks of a PNG"),
    "comments of a JPEG": (with_segments(segment(0xFE) * MANY), "segments of a JPEG"),
    "tables of a JPEG": (with_segments(segment(0xC4) * MANY), "segments of a JPEG"),
    "EXIF in parts": (with_segments(segment(0xE1, b"Exif\0\0x") * MANY), "segments of a JPEG"),
    "a comment of bytes": (with_extensions(b"!\xfe" + b"\1x" * MANY + b"\0"), "blocks of a GIF"),
    "empty comments": (with_extensions(b"!\xfe\0" * MANY), "blocks of a GIF"),
    "nothing": (with_extensions(b"\0" * MANY), "blocks of a GIF"),
}


@pytest.mark.parametrize("name", OF_BLOCKS)
def test_a_file_of_tiny_blocks_is_refused_by_their_number(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, called = OF_BLOCKS[name]

    def unread(*arguments: object, **named: object) -> None:
        raise AssertionError("Pillow has no part in it")

    with monkeypatch.context() as patched:
        patched.setattr(Image, "open", unread)
        detail = refusal(data, pixels=100_000).faults[0].detail
    assert f"more than {LEAST_BLOCKS:,} {called}" in detail
    pixels_of(data)  # more are allowed where more pixels are


@pytest.mark.parametrize("bits", [4, 8])
def test_a_bmp_in_run_lengths_is_refused(bits: int) -> None:
    assert "in run-length encoding" in str(refusal(run_length_bmp(bits, b"\1\5" * 1200)))
    old = struct.pack("<IHHHH", 12, 1, 1, 1, 24) + b"\0\0\0\0" + b"\1\0\0\0"
    assert prepare(b"BM" + struct.pack("<IHHI", 38, 0, 0, 26) + old, 9).blocks == 0


BOMBS: dict[str, bytes] = {
    "a profile": chunk(b"iCCP", b"p\0\0" + BOMB),
    "a text": chunk(b"zTXt", b"t\0\0" + BOMB),
    "a text without a name": chunk(b"zTXt", b"\0\0" + BOMB),
    "an international text": chunk(b"iTXt", b"k\0\1\0\0\0" + BOMB),
}


@pytest.mark.parametrize("name", BOMBS)
def test_metadata_of_a_png_is_not_inflated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inflated: list[int] = []

    def inflate(data: bytes) -> bytes:
        inflated.append(len(data))
        return b""

    monkeypatch.setattr(PngImagePlugin, "_safe_zlib_decompress", inflate)
    bombed = pixels_of(png(40, 30, BOMBS[name] * 3, ROW))
    assert (bombed == pixels_of(png(40, 30, ROW))).all()
    assert not inflated


def test_exif_in_many_parts_is_put_together_once() -> None:
    parts = [b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0", *[b"x"] * 500, b""]
    parts[1:2] = [b"\6\0\0"]
    data = with_segments(*[segment(0xE1, b"Exif\0\0" + part) for part in parts])
    file = prepare(data, LEAST_BLOCKS)
    assert file.exif == b"Exif\0\0" + b"".join(parts)
    assert b"Exif" not in file.data
    assert orientation(file.exif) == 6


def apng() -> bytes:
    file = BytesIO()
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    return file.getvalue()


def mpo() -> bytes:
    file = BytesIO()
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    frames[0].save(file, "MPO", save_all=True, append_images=frames[1:])
    return file.getvalue()


def described_png() -> bytes:
    described = PngImagePlugin.PngInfo()
    described.add_text("Title", "a picture")
    described.add_itxt("XML:com.adobe.xmp", "<x/>")
    return saved("PNG", pnginfo=described, dpi=(72, 72), icc_profile=b"profile")


def transparent_png() -> bytes:
    return saved("PNG", "P", transparency=b"\x20\xff\x80")


def transparent_gif() -> bytes:
    return saved("GIF", "P", transparency=3, comment=b"of a camera" * 40)


ORDINARY: dict[str, Callable[[], bytes]] = {
    **{name: lambda data=data: data for name, data in FILES.items()},  # type: ignore[misc]
    "a JPEG of four colours": lambda: saved("JPEG", "CMYK"),
    "a grey JPEG": lambda: saved("JPEG", "L", comment=b"grey"),
    "a progressive JPEG": lambda: saved("JPEG", progressive=True, icc_profile=b"p" * 150_000),
    "a JPEG of restarts": lambda: saved("JPEG", restart_marker_blocks=1),
    "a JPEG of RGB": lambda: saved("JPEG", keep_rgb=True),
    "a JPEG with fill bytes": lambda: with_segments(b"\xff" * 9, segment(0xE5, b"\xff\xd9")),
    "an animated PNG": apng,
    "several pictures": mpo,
    "a described PNG": described_png,
    "a transparent PNG": transparent_png,
    "a PNG of one bit": lambda: saved("PNG", "1"),
    "a transparent GIF": transparent_gif,
    "a GIF of XMP": lambda: with_extensions(b"!\xff\x0bXMP DataXMP\5abcde\1,\0"),
    "a plain BMP": lambda: saved("BMP"),
    "a BMP of colours": lambda: saved("BMP", "P"),
}


@pytest.mark.filterwarnings("ignore:Palette images")  # pytest restores what the product ignores
@pytest.mark.parametrize("name", ORDINARY)
def test_the_pixels_are_those_of_the_whole_file(name: str) -> None:
    data = ORDINARY[name]()
    whole = ImageOps.exif_transpose(Image.open(BytesIO(data))).convert("RGB")
    whole = whole.resize((40, 30), Image.Resampling.BILINEAR)
    assert (pixels_of(data) == np.asarray(whole)).all()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_the_orientation_is_what_pillow_reads(format: str, endian: str) -> None:
    for turn in range(10):
        exif = Image.Exif()
        exif.endian = endian
        exif[0x010F] = "a maker of cameras"
        exif[0x0112] = turn
        exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
        data = saved(format, exif=exif.tobytes())
        opened = Image.open(BytesIO(data))
        assert opened.getexif().get(0x0112) == turn
        assert orientation(prepare(data, 99).exif or opened.info["exif"]) == turn


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff\0\0",
        b"MM\0*\0\0\0\x08\xff\xff" + b"\0" * 99,
        b"MM\0*\0\0\0\x09\0",
        b"II*\0\x08\0\0\0\1\0\x12\1\5\0\1\0\0\0\0\0\0\0",
        b"II*\0\x08\0\0\0\1\0\x12\1\3\0\2\0\0\0\6\0\6\0",
    ],
)
def test_exif_that_says_nothing_is_no_orientation(exif: bytes) -> None:
    assert orientation(exif) is None


def test_blocks_of_all_images_of_a_request_are_bounded_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = png(40, 30, chunk(b"IDAT", b"") * 900, ROW)
    encoder = encoder_of(PHOTO, PIXELS, 256_000)
    encoder.check_together([Sample(image=data)] * 4)
    with pytest.raises(ImagesTooLarge):
        encoder.check_together([Sample(image=data)] * 5)
    opened: list[int] = []
    prepared = images.prepare

    def counted(data: bytes, most: int) -> ImageFile:
        opened.append(len(data))
        return prepared(data, most)

    monkeypatch.setattr(images, "prepare", counted)
    with pytest.raises(ImagesTooLarge):
        encoder.check_together([Sample(image=data)] * 1000)
    assert len(opened) == 5, "no more are counted than it takes"
    monkeypatch.undo()
    encoder.check_together([Sample(image=picture(size=(40, 30)))] * 100)
