"""TorchServe's own `image_classifier`.

torchvision's file on PyPI is built for CUDA, and doesn't load beside torch's build for the CPU; the
transforms need nothing of it but that the names of two operators exist.
"""

import torch

OPERATORS = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from ts.torch_handler.image_classifier import ImageClassifier


class Photos(ImageClassifier):
    """Its class in the module of the handler, where TorchServe looks for it."""
