"""TorchServe's classifier of images, for handlers that extend it
(``ts.torch_handler.image_classifier``). It takes torchvision's transforms where that is installed,
as there, and what equals them elsewhere.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from torch import topk
from torch.nn.functional import softmax

from .image_transforms import MEAN, SHORTER, SIDE, STD, ImageProcessing
from .util import map_class_to_label
from .vision_handler import VisionHandler


def _image_processing() -> Callable[[Any], Any]:
    try:
        transforms: Any = importlib.import_module("torchvision.transforms")
    except ModuleNotFoundError:
        return ImageProcessing()
    composed: Callable[[Any], Any] = transforms.Compose(
        [
            transforms.Resize(SHORTER),
            transforms.CenterCrop(SIDE),
            transforms.ToTensor(),
            transforms.Normalize(mean=MEAN, std=STD),
        ]
    )
    return composed


class ImageClassifier(VisionHandler):
    """Answers the most probable classes of an image by their names."""

    topk = 5
    image_processing = _image_processing()

    def set_max_result_classes(self, topk: int) -> None:
        self.topk = topk

    def get_max_result_classes(self) -> int:
        return self.topk

    def postprocess(self, data: Any) -> Any:
        probabilities, classes = topk(softmax(data, dim=1), self.topk, dim=1)
        return map_class_to_label(probabilities.tolist(), self.mapping, classes.tolist())
