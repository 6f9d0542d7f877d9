"""The step of a classifier of texts: its tokenizer, as transformers loads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...model.errors import BundleError, first_line, listed
from ...model.signature import Tensors
from ...model.steps.declaration import Sample, TextStep
from ..step_tables import TOKENIZER

_FILLED = ("input_ids", "attention_mask", "token_type_ids")
_LONGEST = 65_536
"""The longest text that a step may have, in tokens."""
_TRIED_LENGTH = 1024
"""The longest text that is tried on the original: what attention takes grows with its square."""


def open_tokenizer(path: Path) -> Any:
    """Return the tokenizer in the directory ``path``. Raises `BundleError`."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the library raises what it likes
        raise BundleError(f"{path} has no tokenizer: {first_line(error)}.") from error
    if not getattr(tokenizer, "is_fast", False):
        raise BundleError(
            f"{path} has no {TOKENIZER}, and its tokenizer, {type(tokenizer).__name__}, is one in "
            "Python, which isn't carried over."
        )
    if tokenizer.pad_token_id is None:
        raise BundleError(
            f"{path}: the tokenizer has no pad_token, so that texts of different lengths can't be "
            "answered together. Set it (tokenizer.pad_token) as in training, save it, and pack it."
        )
    return tokenizer


def text_step(
    tokenizer: Any, model: torch.nn.Module, accepted: Sequence[str], path: Path
) -> tuple[TextStep, tuple[str, ...]]:
    """Return the step that does what ``tokenizer`` does for ``model``, which takes the arguments
    ``accepted``, and notes. Raises `BundleError`.
    """
    made = list(tokenizer("a"))
    strange = [name for name in made if name not in _FILLED and name in accepted]
    if strange:
        raise BundleError(f"{path}: the tokenizer makes {listed(strange)}, which no step does.")
    length = _longest(tokenizer, model, path)
    notes = [f"Longer texts are cut to {length} tokens."]
    left = [name for name in made if name not in accepted]
    if left:
        notes.append(f"The model takes no {listed(left)}, which its tokenizer makes.")

    def name_of(tensor: str) -> str | None:
        return tensor if tensor in made and tensor in accepted else None

    step = TextStep(
        TOKENIZER,
        length,
        "input_ids",
        attention_mask=name_of("attention_mask"),
        token_type_ids=name_of("token_type_ids"),
        pad_id=tokenizer.pad_token_id,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
    )
    return step, tuple(notes)


def _longest(tokenizer: Any, model: torch.nn.Module, path: Path) -> int:
    """Return how many tokens a text has at most: what the tokenizer and the positions allow."""
    config: Any = model.config
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # Those of RoBERTa and its kin begin behind the position of the padding.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - first)
    known = [limit for limit in limits if isinstance(limit, int) and 0 < limit <= _LONGEST]
    if not known:
        raise BundleError(
            f"{path} doesn't say how long a text may be: set model_max_length in "
            "tokenizer_config.json."
        )
    length = min(known)
    if length <= _TRIED_LENGTH:
        ids = torch.full((1, length), int(tokenizer.convert_tokens_to_ids(_word(tokenizer))))
        try:
            with torch.inference_mode():
                model(input_ids=ids, attention_mask=torch.ones_like(ids))
        except Exception as error:
            raise BundleError(
                f"{path}: the model can't be run on {length} tokens, as many as it should take "
                f"({first_line(error)}). Set model_max_length in tokenizer_config.json."
            ) from error
    return length


def _word(tokenizer: Any) -> str:
    """Return a token that isn't special."""
    special = set(tokenizer.all_special_tokens)
    return next(str(word) for word in tokenizer.get_vocab() if word not in special)


def tokens_of(tokenizer: Any, step: TextStep, samples: Sequence[Sample]) -> Tensors:
    """Return the tensors that transformers itself makes of ``samples``."""
    rows = [
        tokenizer(
            sample.text or "",
            sample.pair,
            truncation=True,
            max_length=step.max_length,
            padding=False,
        )
        for sample in samples
    ]
    padded = tokenizer.pad(rows, padding="longest", return_tensors="np")
    return {name: np.asarray(padded[name]) for name in step.inputs}
