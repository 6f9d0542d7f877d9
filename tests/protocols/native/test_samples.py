"""Bodies that aren't opened get the answers that their whole documents would."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from marshmallow import ValidationError
from msgspec import Raw

from app.model.encoder import FeatureEncoder
from app.model.errors import MAX_FAULTS, BatchTooLarge, Fault, FeatureMismatch, InvalidFeatures
from app.model.features import Feature
from app.model.signature import Tensors
from app.protocols import raw_json
from app.protocols.native.samples import SampleReader
from app.protocols.native.schemas import RequestBody, make_request_bodies
from app.protocols.raw_json import NotJson
from tests.protocols.native.test_fast_decoder import bodies

MAX_ROWS = 3
NARROW = [Feature("a"), Feature("é b", nullable=True), Feature("c")]
# Names that JSON escapes, which have no typed decoder of the whole body.
ESCAPED = [*NARROW[:2], Feature("c"), Feature('"'), Feature("\\\n", nullable=True)]
ENCODERS = {"narrow": FeatureEncoder(NARROW), "escaped": FeatureEncoder(ESCAPED)}
BODIES = {kind: make_request_bodies(encoder, MAX_ROWS) for kind, encoder in ENCODERS.items()}


def found(kind: RequestBody, body: bytes) -> Any:
    """What becomes of a body: rows, faults, or the name of the refusal."""
    try:
        return kind.load(body)
    except ValidationError as error:
        return error.messages
    except (NotJson, BatchTooLarge) as error:
        return type(error).__name__


def is_rows(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(each, np.ndarray) for each in found.values())


def expected(encoder: FeatureEncoder, name: str, body: bytes) -> Any:
    """The same, from a document that is parsed whole and by the encoder alone."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return None if "infinity" in error.msg else "NotJson"
    if not isinstance(document, dict):
        return {"_schema": ["must be an object"]}
    messages: dict[str, Any] = {key: ["is unknown"] for key in document if key != name}
    rows: Tensors | None = None
    content = document.get(name, messages)
    try:
        if content is messages:
            messages[name] = ["is missing"]
        elif content is None:
            messages[name] = ["must not be null"]
        elif name == "features":
            rows = encoder.encode(content)
        elif not isinstance(content, list):
            messages[name] = ["must be an array of samples"]
        elif len(content) > MAX_ROWS:
            return "BatchTooLarge"
        else:
            rows = encoder.encode_batch(content)
    except InvalidFeatures as error:
        messages[name] = list(error.faults)
    return messages or rows


@settings(max_examples=1500, deadline=None)
@given(bodies(), st.sampled_from(["narrow", "escaped"]))
@example(b'{"features":{"a":"x","a":1,"\xc3\xa9 b":null,"c":3}}', "narrow")
@example(b'{"samples":[{"a":[[1]],"a":1,"\xc3\xa9 b":null,"c":3}]}', "narrow")
@example(b'{"features":3,"features":{"a":1,"\xc3\xa9 b":2,"c":3}}', "narrow")
@example(b'{"features":{"a":"\\ud800","\xc3\xa9 b":2,"c":3}}', "narrow")
@example(b'{"features":{"a":"\xff","\xc3\xa9 b":2,"c":3}}', "narrow")
@example(b'{"features":{"a":1,"\xc3\xa9 b":2,"c":3,"\\"":4,"\\\\\\n":null}}', "escaped")
@example(b'{"features":{"a":1,"\xc3\xa9 b":2,"c":null,"\\"":4,"\\\\\\n":null}}', "escaped")
@example(b'{"samples":[' + b"{}," * 3 + b"{}]}", "escaped")
@example(b'\xef\xbb\xbf{"samples":[]}', "narrow")
def test_what_is_found_is_what_the_whole_document_has(body: bytes, model: str) -> None:
    for kind, name in ((BODIES[model].predict, "features"), (BODIES[model].batch, "samples")):
        wanted, got = expected(ENCODERS[model], name, body), found(kind, body)
        if wanted is None:
            continue  # a number that orjson doesn't know how to hold
        if is_rows(wanted):
            assert is_rows(got), got
            np.testing.assert_array_equal(got["features"], wanted["features"])
        else:
            assert got == wanted


@pytest.mark.parametrize("width", [1, 6, 64, 65, 300])
@pytest.mark.parametrize("nullable", [True, False])
def test_a_model_of_any_width_finds_the_one_fault_among_many_rows(
    width: int, nullable: bool
) -> None:
    encoder = FeatureEncoder([Feature(f"f{i}", nullable=nullable) for i in range(width)])
    rows: list[dict[str, Any]] = [
        {f"f{i}": i / 3 + row for i in range(width)} for row in range(250)
    ]
    if nullable:
        rows[3]["f0"] = None
    kind = make_request_bodies(encoder, 1000).batch
    matrix = kind.load(json.dumps({"samples": rows}).encode())["features"]
    np.testing.assert_array_equal(matrix, encoder.encode_batch(rows)["features"])
    assert matrix.flags.writeable
    for wrong in ("x", [], {}, True, 1e39, 10**400, "1e999"):
        rows[222]["f0"] = wrong
        body = json.dumps({"samples": rows}).replace('"1e999"', "1e999").encode()
        with pytest.raises(ValidationError) as refusal:
            kind.load(body)
        (fault,) = refusal.value.messages["samples"]
        assert fault.path == (222, "f0")
    if not nullable:
        rows[222]["f0"] = None
        with pytest.raises(ValidationError, match="null is not accepted"):
            kind.load(json.dumps({"samples": rows}).encode())


READER = SampleReader(ENCODERS["narrow"])
GOOD = '{"a":1,"é b":2,"c":3}'


def faults_of(samples: str, max_rows: int = 10_000) -> list[Fault]:
    with pytest.raises(InvalidFeatures) as refusal:
        READER.rows(Raw(samples.encode()), max_rows)
    return list(refusal.value.faults)


def test_faults_are_told_in_the_order_of_rows_and_no_more_than_may_be() -> None:
    faults = faults_of(f"[{','.join([GOOD, '7', GOOD, '{}'] * 500)}]")
    assert len(faults) == MAX_FAULTS
    assert [fault.path[0] for fault in faults[:4]] == [1, 3, 3, 3]
    assert [fault.path[0] for fault in faults] == sorted(fault.path[0] for fault in faults)


def test_an_object_of_far_too_many_names_is_not_opened() -> None:
    many = "{" + ",".join(f'"{i}":0' for i in range(60_000)) + "}"
    with pytest.raises(InvalidFeatures) as refusal:
        READER.row(Raw(many.encode()))
    (fault,) = refusal.value.faults
    assert "has 59,999 commas" in fault.detail
    assert "3 features" in fault.detail
    rows = faults_of(f"[{GOOD},{many},{{}}]")
    assert [fault.path[0] for fault in rows] == [1, 2, 2, 2]
    body = f'{{"features":{GOOD},{many[1:]}'.encode()
    with pytest.raises(ValidationError, match="60,000 commas outside 'features'"):
        BODIES["narrow"].predict.load(body)


def test_a_string_of_many_commas_is_no_object_of_many_names() -> None:
    features = f'{{"features":{{"a":"{"," * 60_000}","é b":2,"c":3}}}}'
    assert found(BODIES["narrow"].predict, features.encode())["features"]
    assert READER.row(Raw(GOOD.encode()))["features"].tolist() == [[1, 2, 3]]


def test_a_large_array_with_an_element_that_is_no_object_names_that() -> None:
    (fault,) = faults_of("[" + "{}," * 120_000 + "[3],{}]")
    assert fault.path == (120_000,)
    assert "must be an object" in fault.detail
    with pytest.raises(BatchTooLarge, match="120,001 rows"):
        READER.rows(Raw(b"[" + b"{}," * 120_000 + b"{}]"), 10_000)
    with pytest.raises(BatchTooLarge, match="10,001 rows"):
        READER.rows(Raw(b"[" + b"3," * 10_000 + b"{}]"), 10_000)


def test_names_that_stand_twice_are_taken_in_as_many_rows_as_can_be_looked_at() -> None:
    twice = '{"a":"x","a":1,"é b":2,"c":3}'
    matrix = READER.rows(Raw(f"[{','.join([GOOD, *[twice] * 300])}]".encode()), 10_000)
    assert matrix["features"].tolist() == [[1, 2, 3]] * 301
    (fault,) = faults_of(f"[{','.join([GOOD, *[twice] * 301])}]")
    assert fault.path == (301,)
    assert "twice" in fault.detail


def test_a_document_that_is_nested_too_deeply_is_refused_wherever_that_is_noticed() -> None:
    for depth in range(300, 1300, 7):
        nest = "[" * depth + "]" * depth
        for body in (nest, f'{{"features":{nest}}}', f'{{"features":{{"a":{nest}}}}}'):
            assert found(BODIES["narrow"].predict, body.encode()) is not None


def test_only_kinds_and_magnitudes_are_read_of_values() -> None:
    texts = ["{}", '{"a":[]}', "[]", "[{}]", '""', '"\\u0041"', "true", "false", "null", "-0.0"]
    read = [raw_json.outline(Raw(text.encode())) for text in texts]
    assert read == [{}, {}, [], [], "", "", True, False, None, 0.0]
    assert raw_json.outline(Raw(b"-1e999")) == raw_json.outline(Raw(b"9" * 5000)) == float("inf")


@pytest.mark.parametrize(
    ("name", "sent", "said"),
    [
        ("café", unicodedata.normalize("NFD", "café"), "U+00E9 where this has U+0065 U+0301, anot"),
        (unicodedata.normalize("NFD", "Ångström"), "Ångström", "where this has U+00C5"),
        ("größe", "ＧＲößE".lower(), "where this has"),
        ("age", "age\u200b", "nothing where this has U+200B"),
        ("net income", "net\u00a0income", "U+0020 where this has U+00A0"),
        ("age", "аge", "U+0061 where this has U+0430"),
        ("µ", "μ", "U+00B5 where this has U+03BC"),
    ],
)
def test_a_name_that_only_looks_right_is_told_by_what_differs(
    name: str, sent: str, said: str
) -> None:
    with pytest.raises(FeatureMismatch) as refusal:
        FeatureEncoder([Feature(name), Feature("b")]).encode({sent: 1, "b": 2})
    missing, unknown = refusal.value.faults
    assert missing.path == (name,)
    assert f"did you mean {name!r} (which has " in unknown.detail
    assert said in unknown.detail


def test_two_names_that_look_the_same_and_were_both_sent_are_told_apart() -> None:
    with pytest.raises(FeatureMismatch) as refusal:
        FeatureEncoder([Feature("café")]).encode({"café": 1, "cafe\u0301": 1})
    (unknown,) = refusal.value.faults
    assert "sent together with 'café' (which has U+00E9 where this has U+0065" in unknown.detail


def test_a_sentence_does_not_tell_of_two_names_that_look_the_same() -> None:
    with pytest.raises(FeatureMismatch) as refusal:
        FeatureEncoder([Feature("café")]).encode({"cafe\u0301": 1})
    assert str(refusal.value) == r"Feature mismatch. Missing: ['caf\xe9'], Extra: ['cafe\u0301']."
    with pytest.raises(FeatureMismatch, match="'café'"):
        FeatureEncoder([Feature("café")]).encode({"b": 1})


def test_all_guesses_of_an_input_together_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    monkeypatch.setattr(
        "app.documents.suggestions.difflib.get_close_matches",
        lambda name, names, **_: compared.append(len(names)) or [],
    )
    encoder = FeatureEncoder([Feature(f"feature {i}") for i in range(30)])
    rows = [{f"feature {i}": 1 for i in range(29)} | {"feature": 1} for _ in range(500)]
    with pytest.raises(FeatureMismatch):
        encoder.encode_batch(rows)
    assert 0 < len(compared) <= 10
    compared.clear()
    with pytest.raises(FeatureMismatch):
        encoder.encode_batch([{f"Feature {i}": 1 for i in range(30)}] * 50)
    assert 0 < sum(compared) <= 100
