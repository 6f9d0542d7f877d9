"""TorchServe's ``text_classifier`` as a step: its words and its vocabulary are data.

What it does was read in TorchServe 0.12.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson

from ...model.code.torchserve.vocabulary import FILE_NAME, Vocabulary, read_vocabulary
from ...model.errors import BundleError
from ...model.steps.declaration import WordsStep
from ..description import ModelDescription
from ..given_names import naming_as_given
from ..step_tables import VOCABULARY
from .bags import open_bag_network
from .classifier import ClassifierArchive
from .container import Unpacked
from .own_handlers import TEXT_CLASSIFIER
from .torchserve import TorchServeModel

_NGRAMS = 2
_MOST_IDS = 65_536
"""More than the longest text has that a service takes by default: TorchServe has no limit."""


def pack_text_classifier(
    model: TorchServeModel, unpacked: Unpacked, path: Path, out: Path, samples: Path | None
) -> list[str]:
    """Write the bundle ``out`` of the archive ``path``: a graph and a step, without code.

    Returns what was assumed and measured, a sentence each. Raises `BundleError`.
    """
    archive = ClassifierArchive(TEXT_CLASSIFIER, model, unpacked, path)
    file = unpacked.directory.with_name(VOCABULARY)
    with naming_as_given(path, unpacked.directory, inside=f"{path}: "):
        vocabulary = _vocabulary(model, unpacked)
        highest = max(vocabulary.ids.values())
        source = open_bag_network(model, unpacked, highest)
        file.write_bytes(orjson.dumps(vocabulary.ids))
        step = WordsStep(VOCABULARY, source.inputs[0].name, _MOST_IDS, _NGRAMS, vocabulary.unknown)
        description = ModelDescription(steps=(step,), files={VOCABULARY: file})
        example = np.array([[highest]], np.int64)
        made = archive.pack(source, example, description, out, samples)
    return [
        "TorchServe's text_classifier becomes a step: the bundle has no code. Its vocabulary has "
        f"{len(vocabulary):,} words and pairs of words; {_about_others(vocabulary)}",
        *made,
    ]


def _vocabulary(model: TorchServeModel, unpacked: Unpacked) -> Vocabulary:
    name = model.vocabulary_file or FILE_NAME
    if name not in unpacked.files:
        raise BundleError(f"it has no vocabulary, {name}, which text_classifier needs.")
    return read_vocabulary(unpacked.directory / name)


def _about_others(vocabulary: Vocabulary) -> str:
    """Return what becomes of a word that the vocabulary doesn't have, in words."""
    if vocabulary.unknown is None:
        return "a text with any other is refused, where TorchServe fails."
    return f"any other gets the id {vocabulary.unknown}, as there."
