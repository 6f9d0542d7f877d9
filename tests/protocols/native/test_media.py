"""Bodies with images and texts, in each of their forms."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from app.model.errors import MAX_FAULTS, BatchTooLarge, Fault
from app.model.steps.declaration import Sample
from app.protocols.native.forms import FORM, MAX_PARTS, MalformedBody, Part, read_form
from app.protocols.native.media import Content, MediaBody
from app.protocols.native.media_types import MediaTypes, parse_header
from app.protocols.raw_json import NotJson

IMAGES, TEXTS, BOTH = ["image"], ["text"], ["image", "text"]
PNG = bytes(range(256))
IN_BASE64 = base64.b64encode(PNG).decode()


def in_json(value: Any) -> Content:
    return Content(
        "application/json", value if isinstance(value, bytes) else json.dumps(value).encode()
    )


def form(*parts: tuple[str, bytes], boundary: str = "b") -> bytes:
    sent = b"".join(
        b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        % (boundary.encode(), name.encode(), content)
        for name, content in parts
    )
    return sent + b"--%b--\r\n" % boundary.encode()


def in_form(*parts: tuple[str, bytes], **content_types: str) -> Content:
    fields: dict[str, list[Part]] = {}
    for name, content in parts:
        fields.setdefault(name, []).append(Part(content, content_types.get(name, "")))
    return Content(FORM, b"", fields=fields)


def faults(body: MediaBody, content: Content) -> list[tuple[tuple[str | int, ...], str]]:
    with pytest.raises(ValidationError) as raised:
        body.samples(content)
    return [*flat(raised.value.messages)]


def flat(messages: Any, path: tuple[str | int, ...] = ()) -> Iterator[Any]:
    if isinstance(messages, dict):
        for key, inner in messages.items():
            yield from flat(inner, path if key == "_schema" else (*path, key))
    else:
        for message in messages:
            fault = message if isinstance(message, Fault) else Fault((), message)
            yield (*path, *fault.path), fault.detail


@pytest.mark.parametrize(
    ("members", "content", "sample"),
    [
        (IMAGES, Content("image/png", PNG), Sample(image=PNG)),
        (IMAGES, Content("application/octet-stream", PNG), Sample(image=PNG)),
        (IMAGES, in_json({"image": IN_BASE64}), Sample(image=PNG)),
        (IMAGES, in_json({"image": f"data:image/png;base64,{IN_BASE64}"}), Sample(image=PNG)),
        (IMAGES, in_form(("data", PNG)), Sample(image=PNG)),
        (IMAGES, in_form(("body", PNG)), Sample(image=PNG)),
        (IMAGES, in_form(("image", PNG)), Sample(image=PNG)),
        (TEXTS, Content("text/plain", "é".encode()), Sample(text="é")),
        (TEXTS, Content("text/plain", b"\xef\xbb\xbfa"), Sample(text="a")),
        (TEXTS, Content("text/plain", "é".encode("latin-1"), "ISO-8859-1"), Sample(text="é")),
        (TEXTS, Content("text/plain", b"\x80", "windows-1252"), Sample(text="€")),
        (TEXTS, in_json({"text": "a\x00, b"}), Sample(text="a\x00, b")),
        (TEXTS, in_json({"text": "a", "pair": "b"}), Sample(text="a", pair="b")),
        (TEXTS, in_form(("text", b"a"), ("pair", b"b")), Sample(text="a", pair="b")),
        (TEXTS, in_form(("data", b"\xe9"), data="text/plain; charset=latin1"), Sample(text="é")),
        (BOTH, in_json({"image": IN_BASE64, "text": "a"}), Sample(image=PNG, text="a")),
        (BOTH, in_form(("text", b"a"), ("image", PNG)), Sample(image=PNG, text="a")),
    ],
)
def test_a_sample_is_read_in_each_form(
    members: Sequence[str], content: Content, sample: Sample
) -> None:
    body = MediaBody(members)
    assert content.media_type in body.media_types
    assert body.samples(content) == [sample]


def test_a_batch_keeps_its_order_in_json_and_in_a_form() -> None:
    body = MediaBody(TEXTS, 3)
    wanted = [Sample(text="a", pair="x"), Sample(text="b", pair="y")]
    rows = [{"text": "a", "pair": "x"}, {"pair": "y", "text": "b"}]
    assert body.samples(in_json({"samples": rows})) == wanted
    parts = [("data", b"a"), ("pair", b"x"), ("data", b"b"), ("pair", b"y")]
    assert body.samples(in_form(*parts)) == wanted
    assert body.samples(in_json({"samples": []})) == []
    both = in_form(("image", b"1"), ("image", b"2"), ("text", b"a"), ("text", b"b"))
    found = MediaBody(BOTH, 3).samples(both)
    assert found == [Sample(image=b"1", text="a"), Sample(image=b"2", text="b")]


def test_more_samples_than_a_batch_has_are_refused() -> None:
    for content in (in_json({"samples": [{}] * 4}), in_form(*[("data", b"a")] * 4)):
        with pytest.raises(BatchTooLarge, match="batch of 4 rows"):
            MediaBody(IMAGES, 3).samples(content)


@pytest.mark.parametrize(
    ("members", "value", "path", "detail"),
    [
        (IMAGES, [], (), "must be an object"),
        (IMAGES, {}, ("image",), "is missing"),
        (IMAGES, {"image": None}, ("image",), "must not be null"),
        (IMAGES, {"image": 1}, ("image",), "must be a string: the image in base64"),
        (IMAGES, {"image": "abcde"}, ("image",), "is not base64: "),
        (IMAGES, {"image": "a\nb="}, ("image",), "is not base64: only base64 data is allowed"),
        (IMAGES, {"image": "\u00e9"}, ("image",), "is not base64: "),
        (IMAGES, {"image": "data:image/png,x"}, ("image",), "is a data URL without ;base64,"),
        (IMAGES, {"image": "", "x": 1}, ("x",), "is unknown; this model takes image"),
        (TEXTS, {"text": ["a"]}, ("text",), "must be a string"),
        (TEXTS, {"text": "a", "pair": 1}, ("pair",), "must be a string"),
    ],
)  # fmt: skip
def test_a_fault_in_json_is_told_with_its_place(
    members: Sequence[str], value: Any, path: tuple[str, ...], detail: str
) -> None:
    ((found_path, found),) = faults(MediaBody(members), in_json(value))
    assert found_path == path
    assert found.startswith(detail)
    ((found_path, _),) = faults(MediaBody(members, 2), in_json({"samples": [value]}))
    assert found_path == ("samples", 0, *path)


@pytest.mark.parametrize(
    ("value", "path", "detail"),
    [
        ([], (), "must be an object"),
        ({}, ("samples",), "is missing"),
        ({"samples": None}, ("samples",), "must not be null"),
        ({"samples": {}}, ("samples",), "must be an array of samples"),
        ({"samples": [], "text": "a"}, ("text",), "is unknown"),
    ],
)
def test_a_fault_around_the_samples_is_told_with_its_place(
    value: Any, path: tuple[str, ...], detail: str
) -> None:
    assert faults(MediaBody(TEXTS, 2), in_json(value)) == [(path, detail)]


def test_the_faults_of_all_samples_are_told_up_to_a_hundred() -> None:
    found = faults(MediaBody(IMAGES, 10_000), in_json({"samples": [{"image": "YQ=="}, {}, 1]}))
    assert [path for path, _ in found] == [("samples", 1, "image"), ("samples", 2)]
    assert len(faults(MediaBody(IMAGES, 10_000), in_json({"samples": [{}] * 500}))) == MAX_FAULTS


@pytest.mark.parametrize(
    ("members", "many", "parts", "path", "detail"),
    [
        (IMAGES, None, [("photo", b"")], ("photo",),
         "is not a field of this form; it has data, body and image"),
        (BOTH, None, [("data", b"")], ("data",),
         "is not a field of this form; it has image, text and pair"),
        (IMAGES, None, [], ("data",), "is missing; a field of the form must have the sample"),
        (IMAGES, 5, [], ("data",), "is missing; a field of the form must have the sample"),
        (IMAGES, None, [("data", b""), ("data", b"")], ("data",),
         "occurs 2 times; send several samples"),
        (IMAGES, 5, [("data", b""), ("body", b"")], ("body",),
         "is beside data; call all fields alike"),
        (TEXTS, 5, [("text", b"a"), ("text", b"a"), ("pair", b"b")], ("pair",),
         "occurs 1 times, and text 2 times"),
        (BOTH, None, [("image", b"")], ("text",), "occurs 0 times, and image 1 times"),
    ],
)  # fmt: skip
def test_a_fault_in_a_form_is_told_with_its_field(
    members: Sequence[str], many: int | None, parts: Any, path: tuple[str, ...], detail: str
) -> None:
    ((found_path, found),) = faults(MediaBody(members, many), in_form(*parts))
    assert found_path == path
    assert found.startswith(detail)


def test_what_is_no_text_is_told_with_the_byte() -> None:
    with pytest.raises(MalformedBody, match="The text is not in UTF-8: byte 1 is wrong"):
        MediaBody(TEXTS).samples(Content("text/plain", b"a\xff"))
    with pytest.raises(MalformedBody, match="The field text 1 is not in UTF-8: byte 0 is wrong"):
        MediaBody(TEXTS, 2).samples(in_form(("text", b"a"), ("text", b"\xff")))
    with pytest.raises(MalformedBody, match="charset 'utf-7', which is not supported; send UTF-8"):
        MediaBody(TEXTS).samples(Content("text/plain", b"a", "utf-7"))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"text": "\\ud800"}', b"[" * 100_000, b'{"text":' * 100_000, b'{"text": "\xff"}'],
)
def test_what_is_no_json_is_told(body: bytes) -> None:
    with pytest.raises(NotJson):
        MediaBody(TEXTS).samples(in_json(body))


def test_many_members_beside_those_that_are_known_are_not_decoded() -> None:
    body = b"{%b}" % b",".join(b'"%d":0' % i for i in range(60_000))
    ((_, detail),) = faults(MediaBody(IMAGES), in_json(body))
    assert "59,999 commas outside 'image'; no other" in detail
    of_the_text = json.dumps({"text": "," * 60_000})
    assert len(MediaBody(TEXTS).samples(in_json(of_the_text.encode()))) == 1


def test_eight_mebibytes_of_empty_objects_are_counted_and_not_read() -> None:
    body = b'{"samples":[%b]}' % b",".join([b"{}"] * 2_700_000)
    with pytest.raises(BatchTooLarge, match="2,700,000 rows"):
        MediaBody(IMAGES, 10_000).samples(in_json(body))


# Forms.


def test_a_form_is_read_as_its_bytes() -> None:
    body = (
        b'preamble\r\n--b \t\r\nContent-Disposition: form-data; name="data";'
        b' filename="\xc3\xa9"\r\n'
        b"content-type: image/png\r\n\r\n\r\n-b--b\n--b\r\n--\x00\r\n--b\r\n"
        b"Content-Disposition: form-data; name=x\r\n\r\n\r\n--b--epilogue"
    )
    assert read_form(body, "b") == {
        "data": [Part(b"\r\n-b--b\n--b\r\n--\x00", "image/png")],
        "x": [Part(b"")],
    }


@given(
    st.lists(
        st.tuples(st.sampled_from(["data", "body", 'a"b', "é"]), st.binary(max_size=20)),
        min_size=1,
        max_size=5,
    )
)
def test_any_content_comes_out_of_a_form_as_it_went_in(parts: list[tuple[str, bytes]]) -> None:
    boundary = "----boundary9c1"
    escaped = [(name.replace('"', '\\"'), content) for name, content in parts]
    found = read_form(form(*escaped, boundary=boundary), boundary)
    wanted: dict[str, list[Part]] = {}
    for name, content in parts:
        wanted.setdefault(name, []).append(Part(content))
    assert found == wanted


DISPOSITION = b"Content-Disposition: form-data; name=a"
MANY_PARAMETERS = "".join(f"; x{number}=1" for number in range(1000))


@given(st.binary(max_size=200), st.sampled_from(["b", "", "é", "\x00", "x" * 300]))
def test_any_bytes_are_a_form_or_refused(body: bytes, boundary: str) -> None:
    for sent in (body, b"--b\r\n" + body, b"--b\r\n" + body + b"\r\n--b--"):
        try:
            read_form(sent, boundary)
        except MalformedBody as error:
            assert str(error).endswith(".")


@pytest.mark.parametrize(
    ("body", "boundary", "message"),
    [
        (b"", "", "has no boundary"),
        (b"", "b" * 201, "over 200 characters"),
        (b"", "b", "no part with the boundary"),
        (b"--c--", "b", "no part with the boundary"),
        (b"--b\r\n", "b", "has no blank line"),
        (b"--bx\r\n", "b", "doesn't begin with a line break"),
        (form(("data", b"a"))[:-8], "b", "Part 1 of the form has no end"),
        (b"--b\r\nX: 1\r\n\r\na\r\n--b--", "b", "has no name"),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\na\r\n--b--", "b", "has no name"),
        (b"--b\r\n%b\r\n\r\na\r\n--b--" % (b"x" * 9000), "b", "within 8,192 bytes"),
        (form(*[("data", b"")] * (MAX_PARTS + 2)), "b", "over 20,000 parts"),
        (b"--b\r\n%b\r\n\r\na\r\n--b--" % (b"a\r\n" * 17), "b", "has over 16 headers"),
        (
            b"--b\r\nContent-Disposition: form-data; name=a%b\r\n\r\na\r\n"
            % (b";a=1" * 1000)
            * 1050
            + b"--b--",
            "b",
            "headers of the form's parts have over 4,194,304 bytes",
        ),
        (
            b"--b\r\nContent-Disposition: form-data; name=a\r\n"
            b"Content-Transfer-Encoding: base64\r\n\r\nYQ==\r\n--b--",
            "b",
            "Content-Transfer-Encoding 'base64', which is not supported",
        ),
    ],
)
def test_a_malformed_form_is_refused_with_its_reason(
    body: bytes, boundary: str, message: str
) -> None:
    with pytest.raises(MalformedBody, match=message):
        read_form(body, boundary)


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        ("Text/Plain", ("text/plain", {})),
        ("text/plain;charset=utf-8", ("text/plain", {"charset": "utf-8"})),
        ('text/plain ; Charset="a;\\"b" ; x=1', ("text/plain", {"charset": 'a;"b', "x": "1"})),
        ("a/b; x; y=1", ("a/b", {})),
        ('a/b; x="', ("a/b", {"x": ""})),
        ("a/b" + MANY_PARAMETERS, ("a/b", {f"x{number}": "1" for number in range(32)})),
        ("", ("", {})),
        (";", ("", {})),
    ],
)
def test_a_header_is_split_into_its_parameters(value: str, parsed: tuple[str, Any]) -> None:
    assert parse_header(value) == parsed


def test_media_types_know_patterns_and_suffixes() -> None:
    types = MediaTypes(("image/*", "application/json"))
    assert all(each in types for each in ("image/png", "application/ld+json", "application/json"))
    assert all(each not in types for each in ("", "image", "text/plain", "image+json"))
    assert str(types) == "image/* or application/json"
