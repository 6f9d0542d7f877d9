"""The step of a classifier of images: what its image processor does, as transformers loads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...model.errors import BundleError, first_line, listed
from ...model.signature import Tensors
from ...model.steps.declaration import Filter, ImageStep, Resize, Sample, Size

_FILTERS: Mapping[int, Filter] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
    5: "hamming",
}
"""By Pillow's numbers."""
_CARRIED = {
    *("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"),
    "do_reduce_labels",  # of the labels, in training
}
PIXELS = "pixel_values"
_WARPED = 384
"""The side from which on ConvNeXt's processor resizes without keeping the proportions."""


def open_processor(path: Path) -> Any:
    """Return the image processor in the directory ``path``. Raises `BundleError`."""
    from transformers import AutoImageProcessor

    has_backends = int(version("transformers").partition(".")[0]) >= 5
    with_pillow: dict[str, Any] = {"backend": "pil"} if has_backends else {"use_fast": False}
    try:
        return AutoImageProcessor.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False, **with_pillow
        )
    except Exception as error:  # the library raises what it likes
        raise BundleError(f"{path} has no image processor: {first_line(error)}.") from error


def image_step(processor: Any, path: Path) -> ImageStep:
    """Return the step that does what ``processor`` does. Raises `BundleError`."""
    said: dict[str, Any] = processor.to_dict()
    place = path / "preprocessor_config.json"
    others = [key for key, on in said.items() if key.startswith("do_") and on is True]
    strange = [key for key in others if key not in _CARRIED]
    if said.get("rescale_offset"):
        strange.append("rescale_offset")
    if strange:
        raise BundleError(f"{place}: {listed(strange)} can't be carried over to a step.")
    resize, crop = _sizes(said, place)
    resample = int(said.get("resample") or 0) if said.get("resample") is not None else 2
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    if said.get("do_normalize"):
        mean, std = _channels(said["image_mean"]), _channels(said["image_std"])
    if said.get("include_top"):  # EfficientNet's divides once more
        std = tuple(value * again for value, again in zip(std, std, strict=True))
    return ImageStep(
        PIXELS,
        resize=resize,
        filter=_FILTERS[resample],
        crop=crop,
        crop_rounding="down",
        scale=float(said["rescale_factor"]) if said.get("do_rescale") else 1.0,
        mean=mean,
        std=std,
    )


def _sizes(said: Mapping[str, Any], place: Path) -> tuple[Resize | None, Size | None]:
    """Return the size that an image gets, and the part of it that is kept."""
    resize, crop = None, None
    if said.get("do_resize"):
        size = {key: value for key, value in dict(said["size"]).items() if value is not None}
        if size.keys() == {"height", "width"}:
            resize = Resize(width=size["width"], height=size["height"])
        elif size.keys() == {"shortest_edge"} and "crop_pct" in said:
            return _of_convnext(size["shortest_edge"], said["crop_pct"])
        elif size.keys() == {"shortest_edge"}:
            resize = Resize(shorter=size["shortest_edge"])
        else:
            raise BundleError(f"{place}: size with {listed(size)} can't be carried over to a step.")
    if said.get("do_center_crop"):
        crop = Size(said["crop_size"]["width"], said["crop_size"]["height"])
    if crop is None and (resize is None or resize.exact is None):
        raise BundleError(f"{place} doesn't say which size an image gets: the images would differ.")
    return resize, crop


def _of_convnext(side: int, share: float | None) -> tuple[Resize, Size | None]:
    if side >= _WARPED:
        return Resize(width=side, height=side), None
    return Resize(shorter=int(side / (share or 1.0))), Size(side, side)


def _channels(values: Any) -> tuple[float, ...]:
    return tuple(map(float, values)) if isinstance(values, (list, tuple)) else (float(values),) * 3


def pixels_of(processor: Any, samples: Sequence[Sample]) -> Tensors:
    """Return the tensor that transformers itself makes of ``samples``."""
    from transformers.image_utils import load_image

    images = [load_image(Image.open(BytesIO(sample.image or b""))) for sample in samples]
    rows = [processor(images=image, return_tensors="np")[PIXELS] for image in images]
    return {PIXELS: np.concatenate([np.asarray(row) for row in rows])}
