"""Text files in UTF-8, with or without a mark; what is something else is told by its line."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.access.keys import KeysError, create_key, read_keys
from app.documents.text import NotUtf8, check_encoding, decode, find_fault, readable
from app.model.encoder import FeatureEncoder
from app.model.errors import BundleError
from app.model.features import Feature
from app.model.manifest_file import read_manifest
from app.packing.description import read_description
from app.packing.samples import read_samples
from app.registry.history import FILE_NAME as HISTORY
from app.registry.history import read_history
from app.registry.release import read_release
from app.settings import SettingsError, load_settings
from tests.conftest import BUNDLE
from training.data import DataError, read_data

FEATURES_TOML = """classes = ["a", "ü"]
description = "Größe"
[[features]]
name = "x"
"""
CHANGE = {"when": "now", "who": "ann", "action": "promote", "from": None, "to": {"stable": "1"}}


def keys_text(directory: Path) -> str:
    create_key(directory / "made.json", "shop", ["predict"])
    return (directory / "made.json").read_text().replace("{", "\n{", 1)


Reader = tuple[str, Callable[[Path], str], Callable[[Path], object], type[Exception]]
READERS: dict[str, Reader] = {
    "settings": (
        "mine.toml",
        lambda _: "# größer\n[server]\nport = 9000\n",
        lambda path: load_settings({"LANTERN_CONFIG": str(path)}).server.port,
        SettingsError,
    ),
    "features": ("features.toml", lambda _: FEATURES_TOML, read_description, BundleError),
    "release": (
        "release.toml",
        lambda _: '# größer\nstable = "1"\n',
        lambda path: read_release(path.parent),
        BundleError,
    ),
    "manifest": (
        "manifest.json",
        lambda _: (BUNDLE / "manifest.json").read_text().replace("Age of", "Größe of"),
        read_manifest,
        BundleError,
    ),
    "history": (
        HISTORY,
        lambda _: "".join(
            json.dumps(CHANGE | {"why": why}, ensure_ascii=False) + "\n" for why in "abü"
        ),
        lambda path: read_history(path.parent)[2].why,
        BundleError,
    ),
    "keys": ("keys.json", keys_text, lambda path: len(read_keys(path)), KeysError),
    "samples": (
        "samples.csv",
        lambda _: "größe,x\n1,2\n3,4\n",
        lambda path: read_samples(path, FeatureEncoder([Feature("größe"), Feature("x")])).rows,
        BundleError,
    ),
}


@pytest.fixture(params=READERS.values(), ids=READERS)
def reader(request: pytest.FixtureRequest) -> Reader:
    return request.param


def test_a_byte_order_mark_is_passed_over(reader: Reader, tmp_path: Path) -> None:
    name, text, read, _ = reader
    plain = text(tmp_path)
    file = tmp_path / name
    file.write_bytes(plain.encode())
    expected = read(file)
    file.write_bytes(b"\xef\xbb\xbf" + plain.encode())
    got = read(file)
    # A manifest holds arrays, which compare element by element.
    assert repr(got) == repr(expected)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: b"\n" + text.encode() + b"\xfc\n", "is not UTF-8 on line {last}; save it in"),
        (lambda text: text.encode("utf-16"), "is UTF-16, not UTF-8; save it in UTF-8."),
        (lambda text: text.encode("utf-16-be"), "is UTF-16, not UTF-8; save it in UTF-8."),
        (lambda text: text.encode("utf-32"), "is UTF-32, not UTF-8; save it in UTF-8."),
    ],
    ids=["a Latin byte", "UTF-16", "UTF-16 without a mark", "UTF-32"],
)
def test_another_encoding_is_refused_with_the_file_and_the_line(
    reader: Reader, spoil: Callable[[str], bytes], said: str, tmp_path: Path
) -> None:
    name, text, read, kind = reader
    plain = text(tmp_path)
    file = tmp_path / name
    file.write_bytes(spoil(plain))
    with pytest.raises(kind) as refusal:
        read(file)
    message = getattr(refusal.value, "message", str(refusal.value))
    assert f"{file} {said.format(last=plain.count(chr(10)) + 2)}" in message


def test_the_data_of_a_training_has_its_encoding_told(tmp_path: Path) -> None:
    file = tmp_path / "customers.csv"
    for content, said in (
        ("age\n35\n".encode("utf-16"), "it is UTF-16, not UTF-8; save it in UTF-8."),
        (b"age\n35\n\xfc\n", "it is not UTF-8 on line 3; save it in UTF-8."),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError, match="is not a CSV file in UTF-8: ") as refusal:
            read_data(file)
        assert said in str(refusal.value)


def test_a_pipe_is_refused_without_being_read_twice() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    assert str(find_fault(Pipe(b"\xff"))) == "is not UTF-8; save it in UTF-8."


def test_a_fault_that_a_reader_meets_late_has_the_right_line() -> None:
    content = ("ü" * 99 + "\n").encode() * 1000
    cut = content[:70_000].rindex(b"\n") + 1  # beyond the first chunk, and within a character's run
    spoilt = content[:cut] + b"\xc3\n" + content[cut:]
    with pytest.raises(NotUtf8, match=f"on line {content.count(10, 0, cut) + 1};"):
        decode(spoilt)


@pytest.mark.parametrize("head", [b"", b"a", b"\0", "ü".encode(), b"a\0b c d e f"])
def test_what_may_be_utf_8_is_left_to_its_reader(head: bytes) -> None:
    check_encoding(head)


def test_a_bundle_with_marks_serves(tmp_path: Path) -> None:
    from app.registry.service import ModelService, ModelSource

    bundle = Path(shutil.copytree(BUNDLE, tmp_path / "1"))
    for file, text in (
        (bundle / "manifest.json", (bundle / "manifest.json").read_text()),
        (tmp_path / "release.toml", 'stable = "1"\n'),
    ):
        file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    service = ModelService(ModelSource(tmp_path))
    assert service.load(), service.fault
    assert service.current().name == "campaign-response"


def test_what_the_locale_could_not_decode_is_read_as_utf_8() -> None:
    assert readable("gr\udcc3\udcb6\udcc3\udc9fer") == "größer"
    assert readable("caf\udce9") == "caf\N{REPLACEMENT CHARACTER}"
    assert readable("größer") == "größer"
