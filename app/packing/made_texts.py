"""Texts of words that a model knows, for models that are packed without samples."""

from __future__ import annotations

from ..model.errors import BundleError
from ..model.steps.cleaning import words_of
from ..model.steps.declaration import TextStep, WordsStep
from ..model.steps.words import read_vocabulary
from .description import ModelDescription
from .samples import spread

_EXAMPLE = "This is an example."
_MADE_WORDS = 30
_LONGEST_TRIED = 512
"""The words of the longest text that is tried: what attention takes grows with its square."""


def made_texts(description: ModelDescription) -> tuple[str, str]:
    """Return two texts for a model with a step for texts. Raises `BundleError`."""
    step = _step(description)
    assert step is not None  # only such a model gets texts
    words = _words(description, step)
    if _takes_any_word(step):
        return _EXAMPLE, " ".join(words)
    return words[0], words[-1]


def long_text(description: ModelDescription) -> str | None:
    """Return a text that is as long as one may be, as far as that is tried; None of other models,
    and of those that refuse a longer one, or words that they don't know.
    """
    step = _step(description)
    if isinstance(step, TextStep) and step.truncation:
        most = step.max_length
    elif isinstance(step, WordsStep) and _takes_any_word(step):
        most = max(1, step.max_length // step.ngrams)
    else:
        return None
    words = _words(description, step)
    return " ".join(words[index % len(words)] for index in range(min(most, _LONGEST_TRIED)))


def _step(description: ModelDescription) -> TextStep | WordsStep | None:
    return next((s for s in description.steps if isinstance(s, TextStep | WordsStep)), None)


def _takes_any_word(step: TextStep | WordsStep) -> bool:
    return isinstance(step, TextStep) or step.unknown is not None


def _words(description: ModelDescription, step: TextStep | WordsStep) -> list[str]:
    """Return some words of the vocabulary of a model, few enough for it. Raises `BundleError`."""
    if isinstance(step, TextStep):
        from tokenizers import Tokenizer  # which other models don't need

        file = description.files[step.tokenizer]
        known = sorted(filter(str.isalpha, Tokenizer.from_file(str(file)).get_vocab()))
    else:
        content = description.files[step.vocabulary].read_bytes()
        words = read_vocabulary(step.vocabulary, content)
        known = sorted(word for word in words if word.isalpha() and words_of(word) == [word])
    if not known and isinstance(step, WordsStep) and step.unknown is None:
        raise BundleError(
            f"{step.vocabulary} has no word of letters alone, of which to make an example: give "
            "samples (--samples)."
        )
    known = known or ["example"]
    most = max(1, min(_MADE_WORDS, step.max_length // 4))
    return [known[index] for index in spread(len(known), most)]
