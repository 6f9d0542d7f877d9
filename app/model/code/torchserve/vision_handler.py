"""The class of TorchServe's handlers of images (``ts.torch_handler.vision_handler``)."""

from __future__ import annotations

import base64
import importlib
import io
from typing import Any

import torch

from .base_handler import BaseHandler


class VisionHandler(BaseHandler):
    """Decodes the image in each row, and makes a tensor of it by ``image_processing``, which the
    handler has.
    """

    image_processing: Any

    def preprocess(self, data: Any) -> Any:
        pillow: Any = importlib.import_module("PIL.Image")  # what a handler takes, not the service
        images = []
        for row in data:
            image = row.get("data") or row.get("body")
            if isinstance(image, str):
                image = base64.b64decode(image)
            if isinstance(image, bytes | bytearray):
                image = self.image_processing(pillow.open(io.BytesIO(image)))
            else:
                image = torch.FloatTensor(image)
            images.append(image)
        return torch.stack(images).to(self.device)
