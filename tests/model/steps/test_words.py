"""Words become the ids that TorchServe's ``text_classifier`` makes of them; what can't is refused.

What is expected was made by that handler, of TorchServe 0.12, with a vocabulary of torchtext.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model.code.torchserve.text_utils import get_tokenizer, ngrams_iterator
from app.model.code.torchserve.vocabulary import read_vocabulary
from app.model.errors import BundleError, InvalidSamples, SamplesTooLarge
from app.model.signature import TensorSpec
from app.model.steps.checks import faults_of_steps
from app.model.steps.cleaning import expand_contractions, remove_accents, remove_tags, words_of
from app.model.steps.declaration import Sample, TextStep, WordsStep
from app.model.steps.encoder import StepEncoder
from app.model.steps.limits import SampleLimits
from tests.conftest import ROOT

DATA = ROOT / "tests/packing/archives/data"
EXPECTED: list[dict[str, Any]] = json.loads((DATA / "news_answers.json").read_text())
IDS = TensorSpec("ids", "INT64", (-1, -1))
SMALL = {"the": 0, "cat": 1, "the cat": 2, "cat the": 3, "cat the cat": 4, "sat": 5}


def encoder_of(ids: Any = SMALL, characters: int = 1000, **members: Any) -> StepEncoder:
    step = WordsStep(**({"vocabulary": "v.json", "input": "ids", "max_length": 1000} | members))
    file = ids if isinstance(ids, bytes) else json.dumps(ids).encode()
    limits = SampleLimits(text_characters=characters)
    return StepEncoder((step,), (IDS,), lambda name: file, limits)


def ids_of(encoder: StepEncoder, *texts: str) -> list[list[int]]:
    rows: list[list[int]] = encoder.encode([Sample(text=text) for text in texts])["ids"].tolist()
    return rows


def refused(encoder: StepEncoder, **sample: str) -> tuple[type[Exception], str]:
    with pytest.raises(InvalidSamples) as caught:
        encoder.encode([Sample(**sample)])
    return type(caught.value), caught.value.faults[0].detail


@pytest.mark.parametrize("version", ["0.18", "0.4"])
def test_texts_become_the_ids_that_torchserve_makes(version: str) -> None:
    vocabulary = read_vocabulary(DATA / f"vocabulary_torchtext_{version}.pt")
    encoder = encoder_of(dict(vocabulary.ids), 100_000, ngrams=2, unknown=vocabulary.unknown)
    for each in EXPECTED:
        assert ids_of(encoder, each["text"]) == [each["ids"]]
    together = ids_of(encoder, *(each["text"] for each in EXPECTED))
    longest = max(len(each["ids"]) for each in EXPECTED)
    for row, each in zip(together, EXPECTED, strict=True):
        assert row == each["ids"] + [-1] * (longest - len(each["ids"]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't!", "do not"),
        ("I ain't sure 'cause", "i as not sure ecause"),
        ("can't've she'd WON'T", "cannotve she would will not"),
        ("bandit's Luther's", "bandit is luthers"),
        ("don\u2019t", "dont"),
        ("a <b>c</b> <d e<f> 1 < 2\n> 3", "a c 1 2 3"),
        ("&amp;x &#39; &#x2f; &AMP; &a b; <a&lt; b", "x amp a b a b"),
        ("Caf\u00e9 \ufb01n \u2122 \u00bd \u4e2d \u0130s", "cafe fin tm 12 is"),
        ("a\x1cb\x85c\u00a0d\u2028e\tf", "a bc de f"),
        ("U.S. e-mail @home", "us email home"),
    ],
)
def test_a_text_is_cleaned_with_the_oddities_that_a_network_was_trained_with(
    text: str, words: str
) -> None:
    assert words_of(text) == words.split()


def test_parts_of_contractions_keep_their_case() -> None:
    assert expand_contractions("I'D've Don't \u0130'd AIN'T") == "I wouldve Do not \u0130d As not"


@given(st.text())
def test_any_text_becomes_words_of_ascii(text: str) -> None:
    for word in words_of(text):
        assert word.isascii()
        assert word == word.lower()
        assert not set(word) & set("<>&'.\n ")


def test_what_is_hostile_takes_time_in_proportion_to_its_length() -> None:
    """As regular expressions and normal forms are usually written, each would take minutes."""
    many = 200_000
    assert remove_tags("<" * many) == "<" * many
    assert remove_tags("&a" * many) == "&a" * many
    assert remove_accents("a" + "\u0301" * many + "\u0323" * many) == "a"
    assert expand_contractions("'" * many) == ""


def test_ngrams_follow_the_words() -> None:
    text = "The cat, the cat"
    assert ids_of(encoder_of(), text) == [[0, 1, 0, 1]]
    assert ids_of(encoder_of(ngrams=2), text) == [[0, 1, 0, 1, 2, 3, 2]]
    assert ids_of(encoder_of(ngrams=3, unknown=9), text) == [[0, 1, 0, 1, 2, 3, 2, 9, 4]]
    assert ids_of(encoder_of(ngrams=3), "cat") == [[1]]
    assert ids_of(encoder_of(unknown=7), "a cat") == [[7, 1]]


def test_what_has_no_ids_is_refused_with_its_reason() -> None:
    encoder = encoder_of(max_length=2, characters=20)
    assert refused(encoder, text="<b> ?!") == (InvalidSamples, "has no words")
    unknown = "has 'dog', which isn't in the model's vocabulary"
    assert refused(encoder, text="the dog") == (InvalidSamples, unknown)
    assert refused(encoder, text="the", pair="cat")[1] == (
        "has a pair, and this model takes single texts"
    )
    assert refused(encoder, text="a" * 21)[0] is SamplesTooLarge
    longer = (SamplesTooLarge, "has 3 tokens, and the model takes at most 2")
    assert refused(encoder, text="the cat sat") == longer
    with pytest.raises(InvalidSamples) as caught:
        encoder.encode([Sample(text="cat"), Sample(text="dog"), Sample(text="")])
    assert [fault.path for fault in caught.value.faults] == [(1, "text"), (2, "text")]
    assert not encoder.takes_pair


def test_no_sample_is_no_row() -> None:
    assert encoder_of().encode([])["ids"].shape[0] == 0


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (b"{", "v.json is not JSON: "),
        (["the"], "v.json must be an object of ids by words."),
        ({}, "v.json must be an object of ids by words."),
        ({"the": 1.0}, "v.json: the id of 'the' must be a number from 0 to 2,147,483,647."),
        ({"the": True}, "v.json: the id of 'the' must be a number"),
        ({"the": -1}, "v.json: the id of 'the' must be a number"),
        ({"the": 2**31}, "v.json: the id of 'the' must be a number"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused(file: Any, said: str) -> None:
    with pytest.raises(BundleError) as error:
        encoder_of(file)
    assert str(error.value).startswith(said)


WORDS = WordsStep("v.json", "ids", 100)
TEXT = TextStep("tokenizer.json", 100, "ids")


@pytest.mark.parametrize(
    ("steps", "spec", "said"),
    [
        ((WORDS,), IDS, []),
        ((WORDS,), TensorSpec("ids", "INT32", (-1, -1)), []),
        ((WORDS,), TensorSpec("ids", "FP32", (-1, -1)), ["'ids' must be INT64 or INT32 for"]),
        ((WORDS,), TensorSpec("ids", "INT64", (-1, 9)), ["must take any number of words, not 9"]),
        ((WORDS,), TensorSpec("ids", "INT64", (-1,)), ["must be of shape [-1, tokens]"]),
        (
            (TEXT, WORDS),
            IDS,
            ["at most one of the kind 'text' or 'words'; 2 have it.", "fill the input 'ids' once"],
        ),
    ],
)
def test_the_step_must_fit_its_input(steps: Any, spec: TensorSpec, said: list[str]) -> None:
    faults = list(faults_of_steps(steps, (spec,)))
    assert len(faults) == len(said)
    for fault, part in zip(faults, said, strict=True):
        assert part in fault


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("You can now install TorchText using pip!", "you can now install torchtext using pip !"),
        ('it\'s (5.5); "a:b"<br />c?,', "it ' s ( 5 . 5 ) a b c ? ,"),
        ('<b"r />x', "x"),
        ("<br;/>", "<br />"),
    ],
)
def test_the_tokenizer_of_handlers_is_that_of_torchtext(text: str, tokens: str) -> None:
    assert get_tokenizer("basic_english")(text) == tokens.split()
    assert [*ngrams_iterator(["here", "we", "are"], 2)] == [
        *("here", "we", "are", "here we", "we are")
    ]
    with pytest.raises(ValueError, match="basic_english"):
        get_tokenizer("spacy")


def test_a_vocabulary_is_used_as_that_of_torchtext() -> None:
    vocabulary = read_vocabulary(DATA / "vocabulary_torchtext_0.18.pt")
    assert len(vocabulary) == 464
    assert vocabulary["no such word"] == vocabulary.get_default_index() == vocabulary["<unk>"] == 0
    assert "no such word" not in vocabulary
    assert vocabulary.lookup_tokens(vocabulary(["the bank", "the"])) == ["the bank", "the"]
    assert vocabulary.get_itos()[0] == vocabulary.lookup_token(0) == "<unk>"
    assert vocabulary.get_stoi() == dict(vocabulary.items())
    assert np.isin([*vocabulary.ids.values()], range(464)).all()
    without = read_vocabulary(Path(DATA / "vocabulary_without_default.pt"))
    with pytest.raises(KeyError):
        without["no such word"]
