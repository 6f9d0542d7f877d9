"""TorchServe's classifier of images, for handlers that extend it
(``ts.torch_handler.image_classifier``). It needs torchvision, as there.
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import topk
from torch.nn.functional import softmax

from .util import map_class_to_label
from .vision_handler import VisionHandler

transforms: Any = importlib.import_module("torchvision.transforms")


class ImageClassifier(VisionHandler):
    """Answers the most probable classes of an image by their names."""

    topk = 5
    image_processing = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )

    def set_max_result_classes(self, topk: int) -> None:
        self.topk = topk

    def get_max_result_classes(self) -> int:
        return self.topk

    def postprocess(self, data: Any) -> Any:
        probabilities, classes = topk(softmax(data, dim=1), self.topk, dim=1)
        return map_class_to_label(probabilities.tolist(), self.mapping, classes.tolist())
