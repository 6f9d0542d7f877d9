"""TorchServe's ``image_classifier`` as steps: what it does around a network is data.

What it does was read in TorchServe 0.12.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...model.code.torchserve.image_transforms import MEAN, SHORTER, SIDE, STD
from ...model.steps.declaration import ImageStep, Resize, Size
from ..description import ModelDescription
from ..given_names import naming_as_given
from .classifier import ClassifierArchive
from .container import Unpacked
from .network import open_network
from .own_handlers import IMAGE_CLASSIFIER
from .torchserve import TorchServeModel

_SHAPE, _TOP = (3, SIDE, SIDE), 5


def pack_image_classifier(
    model: TorchServeModel, unpacked: Unpacked, path: Path, out: Path, samples: Path | None
) -> list[str]:
    """Write the bundle ``out`` of the archive ``path``: a graph and steps, without code.

    Returns what was assumed and measured, a sentence each. Raises `BundleError`.
    """
    archive = ClassifierArchive(IMAGE_CLASSIFIER, model, unpacked, path)
    with naming_as_given(path, unpacked.directory, inside=f"{path}: "):
        source = open_network(model, unpacked, _SHAPE)
        example = np.random.default_rng(0).normal(size=(1, *_SHAPE)).astype(np.float32)
        steps = (_step(source.inputs[0].name),)
        made = archive.pack(source, example, ModelDescription(steps=steps, top=_TOP), out, samples)
    return [
        "TorchServe's image_classifier becomes steps: the bundle has no code. Other than there, an "
        "image is turned as its EXIF says, and one that isn't RGB is made so.",
        *made,
    ]


def _step(name: str) -> ImageStep:
    """Return what image_classifier does to a picture: Resize, CenterCrop, ToTensor, Normalize."""
    return ImageStep(
        name,
        resize=Resize(shorter=SHORTER),
        crop=Size(SIDE, SIDE),
        scale=1 / 255,
        mean=MEAN,
        std=STD,
    )
