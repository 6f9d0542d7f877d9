"""Many samples become rows in parts, whose number and cost are bounded."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.http import content
from app.http.content import encoded_in_parts
from app.model.errors import ImagesTooLarge, InvalidSamples, RunTooLong
from app.model.model import Model
from app.model.signature import row_count
from app.model.steps.declaration import Sample
from app.model.steps.limits import IMAGES_OF_REQUEST, SampleLimits
from app.registry.loading import ModelSource, load_model
from tests import step_models

LONG = 60.0


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return step_models.images(tmp_path_factory.mktemp("parts") / "photos" / "1")


@pytest.fixture(scope="module")
def model(photos: Path) -> Model:
    return load_model(ModelSource(photos))


def sizes(model: Model, samples: list[Sample]) -> list[int]:
    return [row_count(rows) for rows in encoded_in_parts(model, samples, LONG)]


def test_images_come_in_parts_of_so_many_bytes(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = 3 * 16 * 16 * 4
    monkeypatch.setattr(content, "PART_BYTES", 5 * row + row // 2)
    one = Sample(image=step_models.picture())
    assert sizes(model, [one] * 12) == [5, 5, 2]
    assert sizes(model, [one] * 5) == [5]
    assert sizes(model, []) == [0]
    monkeypatch.setattr(content, "PART_BYTES", 1)
    assert sizes(model, [one] * 2) == [1, 1]


def test_texts_come_in_parts_by_the_longest_that_is_taken(tmp_path: Path) -> None:
    model = load_model(ModelSource(step_models.texts(tmp_path / "topics" / "1")))
    # 32 tokens of 3 KiB each: 170 of them in 16 MiB, however short the first is.
    samples = [Sample(text="a")] + [Sample(text="where is my parcel " * 9)] * 399
    assert sizes(model, samples) == [170, 170, 60]


def test_a_fault_in_a_later_part_has_the_index_of_its_sample(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "PART_BYTES", 2 * 3 * 16 * 16 * 4)
    samples = [Sample(image=step_models.picture())] * 4 + [Sample(image=b"x")]
    with pytest.raises(InvalidSamples) as raised:
        sizes(model, samples)
    assert [fault.path for fault in raised.value.faults] == [(4, "image")]


def test_the_parts_of_a_request_share_the_seconds_of_one_run(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(content, "perf_counter", lambda: now[0])
    monkeypatch.setattr(content, "PART_BYTES", 1)
    parts = encoded_in_parts(model, [Sample(image=step_models.picture())] * 9, 10)
    done = 0
    with pytest.raises(RunTooLong, match="limit of one run"):
        for _ in parts:
            done += 1
            now[0] += 4
    assert done == 3


def blank(width: int, height: int, form: str = "PNG") -> bytes:
    file = BytesIO()
    Image.new("L", (width, height)).save(file, form)
    return file.getvalue()


@pytest.fixture
def few_pixels(photos: Path) -> Model:
    """A model that takes images of 100,000 pixels."""
    return load_model(ModelSource(photos, sample_limits=SampleLimits(image_pixels=100_000)))


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The images that are decoded from now on."""
    found: list[Any] = []
    load = Image.Image.load

    def counted(image: Any) -> Any:
        found.append(image)
        return load(image)

    for known in ("PngImagePlugin.PngImageFile", "ImageFile.ImageFile"):
        monkeypatch.setattr(f"PIL.{known}.load", counted, raising=False)
    return found


def test_images_that_are_too_much_together_are_refused_before_one_is_decoded(
    few_pixels: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Sample(image=blank(300, 300))  # 90,000 pixels, 400 once it is resized, and 3 chunks
    fit = IMAGES_OF_REQUEST
    assert sum(sizes(few_pixels, [one] * fit)) == fit
    loaded = decoded(monkeypatch)
    with pytest.raises(
        ImagesTooLarge, match=r"455,840 pixels together.*limit of 400,000 \(4 times"
    ):
        sizes(few_pixels, [one] * (fit + 1))
    assert not loaded


def test_small_images_that_become_large_are_counted_as_they_become(few_pixels: Model) -> None:
    thin = Sample(image=blank(1, 200))  # resized to 20 x 4,000
    assert len(thin.image or b"") < 100
    assert sizes(few_pixels, [thin] * 4) == [4]
    with pytest.raises(ImagesTooLarge):
        sizes(few_pixels, [thin] * 5)


def test_what_is_no_image_counts_nothing_and_is_told_as_such(few_pixels: Model) -> None:
    with pytest.raises(InvalidSamples, match="no image of these formats"):
        sizes(few_pixels, [Sample(image=b"x")] * 9)
