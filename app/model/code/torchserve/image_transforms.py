"""What TorchServe's classifier of images does to a picture, where torchvision isn't installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

SHORTER, SIDE = 256, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageProcessing:
    """Returns the tensor, (3, 224, 224), of a picture of Pillow in RGB: its shorter side resized to
    256, its centre, and each channel normalised as for ImageNet.

    It equals torchvision's ``Resize``, ``CenterCrop``, ``ToTensor`` and ``Normalize``.
    """

    def __call__(self, image: Any) -> torch.Tensor:
        from ...steps.image import margin, with_shorter_side  # it imports Pillow

        width, height = image.size
        size = with_shorter_side(width, height, SHORTER)
        image = image.resize((size.width, size.height), 2)  # bilinear
        left, top = (margin(side, SIDE, "even") for side in image.size)
        pixels = np.array(image.crop((left, top, left + SIDE, top + SIDE)))
        if pixels.shape != (SIDE, SIDE, 3) or pixels.dtype != np.uint8:
            raise ValueError(f"the image must be RGB, and is {image.mode}")
        values = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float().div_(255)
        mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
        return values.sub_(mean).div_(std)
