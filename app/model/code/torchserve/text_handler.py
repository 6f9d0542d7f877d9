"""The class of TorchServe's handlers of texts (``ts.torch_handler.text_handler``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...steps.cleaning import (
    expand_contractions,
    remove_accents,
    remove_punctuation,
    remove_tags,
)
from .base_handler import BaseHandler
from .text_utils import get_tokenizer
from .vocabulary import FILE_NAME, read_vocabulary


class TextHandler(BaseHandler):
    """Has the vocabulary of an archive, and what cleans a text. Nothing explains answers."""

    def __init__(self) -> None:
        super().__init__()
        self.source_vocab: Any = None
        self.tokenizer = get_tokenizer("basic_english")
        self.input_text: Any = None
        self.lig: Any = None

    def initialize(self, context: Any) -> None:
        """Load the model and the vocabulary of an archive."""
        super().initialize(context)
        name = self.manifest["model"].get("sourceVocab")
        directory = Path(context.system_properties["model_dir"])
        path = directory / name if name else Path(self.get_source_vocab_path(context))
        self.source_vocab = read_vocabulary(path)

    def get_source_vocab_path(self, ctx: Any) -> str:
        """Return the path of the vocabulary."""
        path = Path(ctx.system_properties["model_dir"]) / FILE_NAME
        if not path.is_file():
            raise FileNotFoundError(f"Missing the vocabulary, {FILE_NAME}")
        return str(path)

    def _expand_contractions(self, text: str) -> str:
        return expand_contractions(text)

    def _remove_accented_characters(self, text: str) -> str:
        return remove_accents(text)

    def _remove_html_tags(self, text: str) -> str:
        return remove_tags(text)

    def _remove_punctuation(self, text: str) -> str:
        return remove_punctuation(text)

    def _remove_puncutation(self, text: str) -> str:  # as it was once spelled there
        return self._remove_punctuation(text)

    def _tokenize(self, text: str) -> list[str]:
        return self.tokenizer(text)

    def get_word_token(self, input_tokens: Sequence[str]) -> list[str]:
        """Return tokens without the mark of a space that some tokenizers put before a word."""
        return [token.replace("\u0120", "") for token in input_tokens]
