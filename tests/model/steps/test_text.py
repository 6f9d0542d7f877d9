"""Texts become the tokens that transformers makes of them; what can't is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.model.errors import BundleError, InvalidSamples, RowsTooLarge, SamplesTooLarge
from app.model.signature import Array, TensorSpec
from app.model.steps import encoder as encoders
from app.model.steps import text as texts_module
from app.model.steps.declaration import Sample, TextStep
from app.model.steps.encoder import StepEncoder
from app.model.steps.limits import SampleLimits
from tests.conftest import ROOT
from tests.step_models import DATA, SENTENCE, TOKENIZER, tokenizer

EXPECTED: list[dict[str, Any]] = json.loads((DATA / "transformers.json").read_text())
NAMES = ("input_ids", "attention_mask", "token_type_ids")


def encoder_of(
    *,
    file: bytes = b"",
    names: tuple[str, ...] = NAMES,
    datatype: str = "INT64",
    characters: int = 10_000,
    **members: Any,
) -> StepEncoder:
    step = TextStep(
        **({"tokenizer": TOKENIZER, "max_length": 16} | members), **{n: n for n in names}
    )
    specs = [TensorSpec(name, datatype, (-1, -1)) for name in names]
    limits = SampleLimits(text_characters=characters)
    return StepEncoder((step,), specs, lambda name: file or tokenizer(), limits)


def samples_of(texts: list[list[str]]) -> list[Sample]:
    return [Sample(text=each[0], pair=each[1] if len(each) > 1 else None) for each in texts]


@pytest.mark.parametrize("case", EXPECTED, ids=lambda c: f"{c['name']} {len(c['texts'][0])}")
def test_texts_become_the_tokens_that_transformers_makes(case: dict[str, Any]) -> None:
    side = case.get("side", "right")
    encoder = encoder_of(
        max_length=case["max_length"],
        padding=case["padding"],
        padding_side=side,
        truncation_side=side,
    )
    found = encoder.encode(samples_of(case["texts"]))
    for name in NAMES:
        assert found[name].dtype == np.int64
        assert found[name].tolist() == case["tokens"][name], name


def test_texts_and_pairs_are_encoded_together_and_padded_to_the_longest() -> None:
    samples = samples_of([["where is my parcel"], ["hi", "you"], [""]])
    encoder = encoder_of(datatype="INT32", pad_id=9)
    together = encoder.encode(samples)
    lengths = [len(encoder.encode([sample])["input_ids"][0]) for sample in samples]
    assert together["input_ids"].shape == (3, max(lengths))
    assert together["input_ids"].dtype == np.int32
    for row, (sample, length) in enumerate(zip(samples, lengths, strict=True)):
        alone = encoder.encode([sample])
        for name in NAMES:
            assert (together[name][row, :length] == alone[name][0]).all()
        assert (together["input_ids"][row, length:] == 9).all()
        assert not together["attention_mask"][row, length:].any()


def test_only_the_tensors_that_are_named_are_filled() -> None:
    assert encoder_of(names=("input_ids",)).encode([Sample(text="hi")]).keys() == {"input_ids"}
    assert encoder_of().encode([])["input_ids"].shape == (0, 0)


def test_a_longer_text_is_refused_where_it_is_not_to_be_cut() -> None:
    encoder = encoder_of(truncation=False, max_length=8)
    encoder.encode([Sample(text="where is it")])
    with pytest.raises(
        SamplesTooLarge, match=r"The text has \d+ tokens, and the model takes at most 8"
    ):
        encoder.encode([Sample(text="where is it"), Sample(text="where is it " * 9)])


def test_a_text_of_too_many_characters_is_refused_with_its_pair() -> None:
    encoder = encoder_of(characters=20)
    encoder.encode([Sample(text="a" * 10, pair="b" * 10)])
    with pytest.raises(SamplesTooLarge) as refused:
        encoder.encode([Sample(text=""), Sample(text="a" * 10, pair="b" * 11)])
    assert "21 characters, which exceeds the limit of 20 (limits.max_text_characters)" in str(
        refused.value
    )
    assert [fault.path for fault in refused.value.faults] == [(1, "text")]


def test_half_of_a_surrogate_pair_is_refused() -> None:
    for sample in (Sample(text="a\ud83d"), Sample(text="", pair="\udc00")):
        with pytest.raises(InvalidSamples, match="half of a surrogate pair") as refused:
            encoder_of().encode([sample])
        assert not isinstance(refused.value, SamplesTooLarge)


def test_a_pair_is_not_taken_where_there_is_no_text() -> None:
    with pytest.raises(InvalidSamples, match="The text is missing"):
        encoder_of().encode([Sample(pair="a")])


def test_texts_that_would_become_too_many_tokens_are_refused() -> None:
    encoder = encoder_of(max_length=65_536, padding="max_length")
    with pytest.raises(RowsTooLarge, match="Send at most 170 in one request"):
        encoder.encode([Sample(text="a")] * 171)


@pytest.mark.parametrize(
    "text",
    [" " * 200_000, "a" * 200_000, "é" * 100_000, "\u0301" * 100_000, "\0" * 99, "[MASK]" * 20_000],
    ids=["spaces", "one word", "accents", "marks", "nulls", "special tokens"],
)
def test_a_hostile_text_becomes_tokens(text: str) -> None:
    found = encoder_of(characters=200_000).encode([Sample(text=text)])
    assert found["input_ids"].shape[1] <= 16


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.text(), st.none() | st.text()), min_size=1, max_size=4))
def test_any_texts_become_tokens(texts: list[tuple[str, str | None]]) -> None:
    found = encoder_of().encode([Sample(text=text, pair=pair) for text, pair in texts])
    assert found["input_ids"].shape[0] == len(texts)
    assert (found["input_ids"] < 131).all()


def without_words(data: bytes) -> bytes:
    document = json.loads(data)
    document["model"]["vocab"] = {}
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (b"{}", "is no tokenizer of the library tokenizers"),
        (b"hello", "is no tokenizer of the library tokenizers"),
        (b"\xff\xfe", "is no tokenizer of the library tokenizers"),
        (b"[" * 100_000, "is no tokenizer of the library tokenizers"),
        (tokenizer()[:2000], "is no tokenizer of the library tokenizers"),
    ],
)
def test_another_file_than_a_tokenizer_is_refused(file: bytes, said: str) -> None:
    with pytest.raises(BundleError, match=said):
        encoder_of(file=file)


def test_a_tokenizer_that_fails_on_a_text_refuses_that_text() -> None:
    encoder = encoder_of(file=without_words(tokenizer()))
    with pytest.raises(InvalidSamples, match="The text can't be made into tokens") as refused:
        encoder.encode([Sample(text=""), Sample(text="hello")])
    assert [fault.path for fault in refused.value.faults] == [(1, "text")]


def test_a_tokenizer_is_read_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts_module, "LARGEST_TOKENIZER", 1000)
    with pytest.raises(BundleError, match="has 4,560 bytes, and at most 1,000 are read"):
        encoder_of()


def test_a_length_that_holds_no_text_is_refused() -> None:
    with pytest.raises(BundleError, match="adds 2 tokens to a text or a pair, and max_length 2"):
        encoder_of(max_length=2)


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "find_spec", lambda name: None)
    with pytest.raises(
        BundleError, match="takes texts, and tokenizers isn't installed: pip install"
    ):
        encoder_of()


_IN_THREADS = """
import os, threading
from concurrent.futures import ThreadPoolExecutor
from app.model.steps.declaration import Sample
from tests.model.steps.test_text import encoder_of
encoder = encoder_of(characters=1_000_000)
before = threading.active_count(), len(os.listdir("/proc/self/task"))
encoder.encode([Sample(text="order parcel " * 500)] * 64)
after = threading.active_count(), len(os.listdir("/proc/self/task"))
assert before == after, (before, after)
if os.fork() == 0:
    encoder.encode([Sample(text="order")])
    os._exit(0)
assert os.wait()[1] == 0
with ThreadPoolExecutor(4) as pool:
    texts = [Sample(text=f"order {n} parcel") for n in range(40)]
    alone = list(pool.map(lambda text: encoder.encode([text])["input_ids"].tolist(), texts))
assert alone == [encoder.encode([text])["input_ids"].tolist() for text in texts]
"""


def test_the_library_starts_no_threads_of_its_own_and_may_be_used_by_several() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run(
        [sys.executable, "-c", _IN_THREADS],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_rows_have_keys_of_few_bytes_that_only_they_have() -> None:
    encoder = encoder_of()
    keys = [
        encoder.key(encoder.encode([Sample(text=text, pair=pair)]))
        for text, pair in (("a", None), ("b", None), ("a", "b"), ("ab", None), ("", None))
    ]
    assert len(set(keys)) == len(keys)
    assert len(str(keys[0])) < 200
    again: dict[str, Array] = dict(encoder.encode([Sample(text="a")]))
    assert encoder.key(again) == keys[0]
    assert SENTENCE.inputs == ("input_ids", "attention_mask")
