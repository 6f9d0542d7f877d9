"""TorchServe's classifier of texts, for handlers that extend it
(``ts.torch_handler.text_classifier``).
"""

from __future__ import annotations

from typing import Any

import torch

from .text_handler import TextHandler
from .text_utils import ngrams_iterator
from .util import map_class_to_label


class TextClassifier(TextHandler):
    """Answers the probabilities of the classes of one text by their names."""

    ngrams = 2

    def preprocess(self, data: Any) -> Any:
        text = data[0].get("data") or data[0].get("body")
        if isinstance(text, bytes | bytearray):
            text = text.decode("utf-8")
        text = self._remove_html_tags(text).lower()
        text = self._remove_accented_characters(self._expand_contractions(text))
        tokens = self._tokenize(self._remove_punctuation(text))
        ids = [self.source_vocab[token] for token in ngrams_iterator(tokens, self.ngrams)]
        return torch.as_tensor(ids, device=self.device), tokens

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        text, _ = data
        return super().inference(text, torch.as_tensor([0], device=self.device))

    def postprocess(self, data: Any) -> Any:
        return map_class_to_label(torch.softmax(data, dim=1).tolist(), self.mapping)
