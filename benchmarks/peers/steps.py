"""What LitServe and BentoML are given to serve: Pillow or tokenizers, then ONNX Runtime.

The environment says which: ``CASE``, ``NETWORK`` (a file), ``LABELS`` (a file of JSON), ``TOP``,
and for sentences ``TOKENIZER`` (a file).
"""

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported
import onnxruntime

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def digits():
    def tensors(image):
        image = image.convert("L").resize((8, 8))
        return {"pixels": np.asarray(image, np.float32)[None, None] / 255 * 2 - 1}

    return tensors


def photos():
    def tensors(image):
        image = image.convert("RGB")
        shorter = min(image.size)
        width, height = (256 * side // shorter for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, upper = round((width - 224) / 2), round((height - 224) / 2)
        image = image.crop((left, upper, left + 224, upper + 224))
        pixels = (np.asarray(image, np.float32) / 255 - MEAN) / STD
        return {"pixels": np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]}

    return tensors


def sentences():
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(os.environ["TOKENIZER"])
    tokenizer.enable_truncation(32)

    def tensors(text):
        encoded = tokenizer.encode(text)
        return {
            "input_ids": np.array([encoded.ids]),
            "attention_mask": np.array([encoded.attention_mask]),
        }

    return tensors


class Classifier:
    """A network, with the steps before and behind it."""

    def __init__(self):
        steps = {"digits": digits, "photos": photos, "sentences": sentences}
        self.tensors = steps[os.environ["CASE"]]()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a worker for each core
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            os.environ["NETWORK"], options, providers=["CPUExecutionProvider"]
        )
        self.labels = json.loads(Path(os.environ["LABELS"]).read_text(encoding="utf-8"))
        self.top = int(os.environ["TOP"])

    def answer(self, given):
        """Return the most probable labels of an image of Pillow's, or of a text."""
        [probabilities] = self.session.run(None, self.tensors(given))[0]
        best = np.argsort(-probabilities)[: self.top]
        return {self.labels[i]: float(probabilities[i]) for i in best}
