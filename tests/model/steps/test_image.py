"""Images become what torchvision makes of them; every other file is refused, at a bounded cost."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import convert
from PIL import Image

from app.model.errors import BundleError, InvalidSamples, RowsTooLarge, SamplesTooLarge
from app.model.signature import TensorSpec
from app.model.steps import encoder as encoders
from app.model.steps.declaration import ImageStep, Resize, Sample
from app.model.steps.encoder import StepEncoder
from app.model.steps.limits import SampleLimits
from tests.conftest import ROOT
from tests.step_models import DATA, PHOTO, PIXELS, picture

with np.load(DATA / "torchvision.npz") as archive:
    EXPECTED = dict(archive)
CASES: dict[str, dict[str, Any]] = {
    name.removeprefix("case "): json.loads(array.item())
    for name, array in EXPECTED.items()
    if name.startswith("case ")
}
FILES = {
    name.removeprefix("file "): array.tobytes()
    for name, array in EXPECTED.items()
    if name.startswith("file ")
}
WIDE = FILES["wide.jpg"]


def encoder_of(step: ImageStep, spec: TensorSpec, pixels: int = 1_000_000) -> StepEncoder:
    return StepEncoder((step,), (spec,), lambda name: b"", SampleLimits(image_pixels=pixels))


def refusal(data: bytes, *, pixels: int = 1_000_000) -> InvalidSamples:
    with pytest.raises(InvalidSamples) as refused:
        encoder_of(PHOTO, PIXELS, pixels).encode([Sample(image=data)])
    assert [fault.path for fault in refused.value.faults] == [(0, "image")]
    return refused.value


@pytest.mark.parametrize("name", CASES)
def test_an_image_becomes_what_torchvision_makes_of_it(name: str) -> None:
    case = dict(CASES[name])
    data, datatype = FILES[case.pop("file")], case.pop("as", "FP32")
    step = convert({"kind": "image", "input": "x"} | case, ImageStep)
    wanted = EXPECTED[f"made {name}"]
    spec = TensorSpec("x", datatype, (-1, *wanted.shape))
    found = encoder_of(step, spec).encode([Sample(image=data)])["x"][0]
    assert found.shape == wanted.shape
    if datatype == "UINT8":
        assert found.dtype == np.uint8
        assert (found == wanted).all()
    elif datatype == "FP16":
        assert found.dtype == np.float16
        assert (found == wanted.astype(np.float16)).mean() > 0.99
        assert np.abs(found.astype(np.float64) - wanted).max() <= 2e-3
    else:
        assert found.dtype == np.float32
        assert np.abs(found.astype(np.float64) - wanted).max() <= 1e-6 * max(
            1, np.abs(wanted).max()
        )


def test_the_values_of_a_usual_step_are_torchvisions_to_1e_6() -> None:
    usual = [n for n, case in CASES.items() if case.get("std") == [0.229, 0.224, 0.225]]
    assert len(usual) > 12
    for name in usual:
        case = dict(CASES[name])
        data, datatype = FILES[case.pop("file")], case.pop("as", "FP32")
        wanted = EXPECTED[f"made {name}"]
        if datatype == "FP32":
            step = convert({"kind": "image", "input": "x"} | case, ImageStep)
            encoder = encoder_of(step, TensorSpec("x", "FP32", (-1, *wanted.shape)))
            found = encoder.encode([Sample(image=data)])["x"][0]
            assert np.abs(found.astype(np.float64) - wanted).max() <= 1e-6


@pytest.mark.parametrize("shape", [(-1, 20, 20), (-1, 1, 20, 20), (-1, 1, -1, -1)])
def test_a_grey_image_may_have_no_dimension_of_channels(shape: tuple[int, ...]) -> None:
    step = ImageStep("x", "L", resize=Resize(width=20, height=20), mean=(128.0,), std=(2.0,))
    found = encoder_of(step, TensorSpec("x", "FP32", shape)).encode([Sample(image=WIDE)])["x"]
    grey = Image.open(BytesIO(WIDE)).convert("L").resize((20, 20), Image.Resampling.BILINEAR)
    wanted = (np.asarray(grey, dtype=np.float32) - 128) / 2
    assert found.shape == ((1, 20, 20) if len(shape) == 3 else (1, 1, 20, 20))
    assert (found.reshape(20, 20) == wanted).all()


def test_several_images_are_rows_in_their_order() -> None:
    encoder = encoder_of(PHOTO, PIXELS)
    samples = [Sample(image=FILES[name]) for name in ("wide.jpg", "tall.png", "two frames.gif")]
    together = encoder.encode(samples)["pixels"]
    assert together.shape == (3, 3, 16, 16)
    for row, sample in zip(together, samples, strict=True):
        assert (row == encoder.encode([sample])["pixels"][0]).all()


def test_no_images_are_no_rows() -> None:
    assert encoder_of(PHOTO, PIXELS).encode([])["pixels"].shape == (0, 3, 16, 16)


def test_an_image_of_another_size_than_the_input_is_refused() -> None:
    encoder = encoder_of(ImageStep("x"), TensorSpec("x", "FP32", (-1, 3, 30, 40)))
    assert encoder.encode([Sample(image=picture(size=(40, 30)))])["x"].shape == (1, 3, 30, 40)
    with pytest.raises(InvalidSamples, match="is 30 x 40 pixels once it is read, and the model"):
        encoder.encode([Sample(image=picture(size=(30, 40)))])


def test_each_fault_names_its_sample() -> None:
    samples = [Sample(image=WIDE), Sample(image=b"GIF89a"), Sample(), Sample(image=WIDE[:-40])]
    with pytest.raises(InvalidSamples) as refused:
        encoder_of(PHOTO, PIXELS).encode([samples[0], samples[1], samples[3]])
    assert [fault.path for fault in refused.value.faults] == [(1, "image"), (2, "image")]
    assert "(1 more in errors)" in str(refused.value)
    assert not isinstance(refused.value, SamplesTooLarge)
    with pytest.raises(InvalidSamples, match="The image is missing"):
        encoder_of(PHOTO, PIXELS).encode(samples)
    with pytest.raises(InvalidSamples, match="The text is not taken: this model takes images"):
        encoder_of(PHOTO, PIXELS).encode([Sample(image=WIDE, text="a")])
    with pytest.raises(InvalidSamples) as refused:
        encoder_of(PHOTO, PIXELS).encode([Sample(image=b"")] * 1000)
    assert len(refused.value.faults) == 100


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def gif(width: int, height: int) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0" * 6
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0)
    return screen + frame + b"\x02\x02\x44\x01\x00;"


def bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def webp(width: int, height: int) -> bytes:
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0" * 4 + sizes
    return b"RIFF" + struct.pack("<I", len(body)) + body


def zeros(mebibytes: int) -> bytes:
    """Compress so many MiB of zeros by compressing two: the second's blocks are repeated."""
    compressor = zlib.compressobj(9)
    first, again = (
        compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
    )
    checksum = struct.pack(">HH", (mebibytes << 20) % 65_521, 1)
    return first + again * (mebibytes - 1) + b"\x03\0" + checksum


BOMB = zeros(300)
TOO_LARGE = {
    "a vast PNG": png(100_000, 100_000, chunk(b"IDAT", b"")),
    "a PNG of half a million sides": png(500_000, 1, chunk(b"IDAT", b"")),
    "a PNG above the limit": png(1001, 1000, chunk(b"IDAT", b"")),
    "a PNG beyond what Pillow opens": png(2**31 - 1, 2**31 - 1, chunk(b"IDAT", b"")),
    "a GIF of a vast canvas": gif(65_535, 65_535),
    "a vast BMP": bmp(60_000, 60_000),
    "a vast BMP upside down": bmp(60_000, -60_000),
    "a vast WebP": webp(16_384, 16_384),
}
BROKEN = {
    "nothing": b"",
    "a word": b"hello",
    "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
    "a TIFF": b"II*\0\x08\0\0\0\0\0\0\0",
    "an icon": b"\0\0\x01\0\x01\0\x01\x01\0\0\x01\0\x18\x000\0\0\0\x16\0\0\0",
    "a PDF": b"%PDF-1.7\n",
    "a truncated JPEG": WIDE[: len(WIDE) // 2],
    "a JPEG of its first bytes": WIDE[:20],
    "a truncated PNG": FILES["tall.png"][:300],
    "a PNG without pixels": png(8, 8),
    "a PNG of no width": png(0, 8, chunk(b"IDAT", zlib.compress(b"\0" * 8))),
    "a PNG of a profile that is a bomb": png(8, 8, chunk(b"iCCP", b"p\0\0" + BOMB)),
    "a PNG of a text that is a bomb": png(8, 8, chunk(b"zTXt", b"t\0\0" + BOMB)),
    "a PNG of many texts": png(8, 8, *[chunk(b"tEXt", b"t\0" + b"x" * 500_000)] * 140),
    "a PNG of too little data": png(900, 900, chunk(b"IDAT", zlib.compress(b"\0" * 99))),
    "a WebP without chunks": webp(9, 9),
    "a WebP cut short": FILES["lossy.webp"][:-60],
    "a WebP of another chunk": FILES["lossy.webp"].replace(b"VP8 ", b"VP8L"),
    "a GIF without a frame": b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0, 0, 0) + b";",
    "a BMP without data": bmp(9, 9),
    "a BMP of no width": bmp(0, 9),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_an_image_that_is_too_large_is_refused_by_its_header(name: str) -> None:
    error = refusal(TOO_LARGE[name])
    assert isinstance(error, SamplesTooLarge)
    assert "pixels" in str(error)
    assert "limit" in str(error)


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_whole_image_is_refused_with_a_sentence(name: str) -> None:
    error = refusal(BROKEN[name])
    assert not isinstance(error, SamplesTooLarge)
    assert str(error).startswith("The image ")
    assert str(error).endswith(".")
    assert "0x" not in str(error)


def test_an_image_that_resizing_makes_too_large_is_refused() -> None:
    narrow = picture(size=(2, 60_000))
    error = refusal(narrow)
    assert isinstance(error, SamplesTooLarge)
    assert "resized is 20 x 600,000 pixels" in str(error)


def test_the_limit_of_pixels_is_one_of_its_own_and_is_named() -> None:
    assert "40 x 30 pixels, which exceeds the limit of 1,199 pixels (limits.max_image_pixels)" in (
        str(refusal(picture(size=(40, 30)), pixels=1199))
    )
    encoder_of(PHOTO, PIXELS, 1200).encode([Sample(image=picture(size=(40, 30)))])


def test_images_that_would_become_too_many_bytes_are_refused_before_they_are_read() -> None:
    step = ImageStep("x", resize=Resize(width=1000, height=1000))
    encoder = encoder_of(step, TensorSpec("x", "FP32", (-1, 3, 1000, 1000)))
    with pytest.raises(RowsTooLarge, match="Send at most 22 in one request"):
        encoder.encode([Sample(image=b"")] * 23)


def with_exif(exif: bytes) -> bytes:
    file = BytesIO()
    Image.open(BytesIO(WIDE)).save(file, "JPEG", exif=exif, quality=90)
    return file.getvalue()


ODD_EXIF = [
    b"Exif\0\0",
    b"Exif\0\0MM\0*\xff\xff\xff\xff",
    b"\0" * 99,
    b"Exif\0\0II*\0\x08\0\0\0\x09",
]
"""What Pillow warns of, or raises something for."""


@pytest.mark.filterwarnings("ignore:.*EXIF")  # pytest restores what the product ignores
@pytest.mark.parametrize("exif", ODD_EXIF)
def test_an_orientation_that_cannot_be_read_says_nothing(exif: bytes) -> None:
    encoder = encoder_of(PHOTO, PIXELS)
    plain, odd = (encoder.encode([Sample(image=with_exif(each))]) for each in (b"", exif))
    assert (plain["pixels"] == odd["pixels"]).all()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
@example(b"\xff\xd8\xff")
@example(b"RIFF\0\0\0\0WEBPVP8 ")
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    _read_or_refused(data)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12),
    st.floats(0, 1),
)
def test_an_altered_file_is_read_or_refused(
    name: str, edits: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(FILES[name])
    for place, value in edits:
        data[int(place * (len(data) - 1))] = value
    _read_or_refused(bytes(data))
    _read_or_refused(bytes(data[: int(kept * len(data))]))


def _read_or_refused(data: bytes) -> None:
    encoder = encoder_of(PHOTO, PIXELS)
    try:
        rows = encoder.encode([Sample(image=data)])
    except InvalidSamples as error:
        assert str(error).startswith("The image ")
    else:
        assert np.isfinite(rows["pixels"]).all()


_IN_LITTLE_MEMORY = """
import resource, sys
from tests.model.steps import test_image as t
encoder = t.encoder_of(t.PHOTO, t.PIXELS)
encoder.encode([t.Sample(image=t.WIDE)])
files = {**t.TOO_LARGE, **t.BROKEN}
for exif in t.ODD_EXIF:
    encoder.encode([t.Sample(image=t.with_exif(exif))])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, data in files.items():
    try:
        encoder.encode([t.Sample(image=data)])
    except t.InvalidSamples:
        continue
    sys.exit(name)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_hostile_files_take_little_memory_and_no_warning_of_pillow_is_shown() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _IN_LITTLE_MEMORY],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 150 << 10  # KiB; the largest of them claims 18 exabytes
    assert not done.stderr


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "find_spec", lambda name: None)
    with pytest.raises(BundleError, match=r"takes images, and Pillow isn't installed: pip install"):
        encoder_of(PHOTO, PIXELS)


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded() -> None:
    file = BytesIO()
    Image.new("L", (1000, 1000), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert "more than 50 scans" in refusal(data[:-2] + scan * 10_000 + data[-2:]).faults[0].detail
    reader = encoder_of(PHOTO, PIXELS)
    wanted = reader.encode([Sample(image=data)])["pixels"]
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 400) + b"\xff\xda" * 200
    for harmless in (data + scan * 100, data[:2] + comment + data[2:]):  # as of a motion photo
        assert (reader.encode([Sample(image=harmless)])["pixels"] == wanted).all()
