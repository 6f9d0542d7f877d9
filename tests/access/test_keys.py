"""Keys: made once, kept as hashes, looked up as the file is now; a bad file opens no door."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.access.keys import (
    ADMIN,
    METRICS,
    PREDICT,
    Key,
    KeyFile,
    KeysError,
    create_key,
    key_document,
    read_keys,
    revoke_key,
)
from tests.conftest import _Lines


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_is_found_by_itself_alone(path: Path) -> None:
    key, text = create_key(path, "billing", [PREDICT])
    other, _ = create_key(path, "other", [METRICS, ADMIN])
    file = KeyFile(path)
    assert file.find(text) == key
    assert text.startswith(f"lantern_{key.id}_")
    for wrong in (
        text[:-1] + ("A" if text[-1] != "A" else "B"),
        text.replace(key.id, other.id),
        text.replace(key.id, "00000000"),
        text + " ",
        text + "A",
        text.upper(),
        "",
        "é" * 60,
    ):
        assert file.find(wrong) is None, wrong


def test_nothing_in_the_file_gives_the_key_away(path: Path) -> None:
    _, text = create_key(path, "billing", [PREDICT])
    kept = path.read_text()
    assert text.rpartition("_")[2] not in kept
    assert text.split("_", 2)[2] not in kept
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_equal_secrets_would_have_different_hashes(path: Path) -> None:
    create_key(path, "one", [PREDICT])
    create_key(path, "two", [PREDICT])
    one, two = read_keys(path)
    assert one.salt != two.salt


def test_a_key_allows_its_scopes_and_an_admins_all() -> None:
    at = datetime.now(UTC)
    metrics = Key("", "", (METRICS,), b"", b"", at, None)
    admin = Key("", "", (ADMIN,), b"", b"", at, None)
    assert [metrics.allows(s) for s in (PREDICT, METRICS, ADMIN)] == [False, True, False]
    assert all(admin.allows(s) for s in (PREDICT, METRICS, ADMIN))


def test_a_key_expires(path: Path) -> None:
    now = datetime.now(UTC)
    create_key(path, "old", [PREDICT], now - timedelta(seconds=1))
    create_key(path, "new", [PREDICT], now + timedelta(hours=1))
    create_key(path, "forever", [PREDICT])
    assert [key.has_expired for key in read_keys(path)] == [True, False, False]


def test_what_is_made_and_revoked_counts_at_once(path: Path) -> None:
    file = KeyFile(path)
    assert file.current() == {}
    _, first = create_key(path, "first", [PREDICT])
    assert file.find(first)
    _, second = create_key(path, "second", [PREDICT])
    assert file.find(first)
    assert file.find(second)
    revoke_key(path, "first")
    assert file.find(first) is None
    id = read_keys(path)[0].id
    assert revoke_key(path, id).name == "second"
    assert file.find(second) is None
    path.unlink()
    assert file.current() == {}


def test_a_name_is_taken_once_and_a_key_that_is_not_there_is_not_revoked(path: Path) -> None:
    create_key(path, "billing", [PREDICT])
    before = path.read_bytes()
    with pytest.raises(KeysError, match="named 'billing' exists"):
        create_key(path, "billing", [ADMIN])
    with pytest.raises(KeysError, match="No key has the id or name 'other'"):
        revoke_key(path, "other")
    assert path.read_bytes() == before


def test_a_file_behind_swapped_links_is_noticed(tmp_path: Path) -> None:
    """As Kubernetes replaces the files of a Secret: a link to a directory is swapped."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        create_key(tmp_path / name / "keys.json", name, [PREDICT])
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "keys.json").symlink_to("..data/keys.json")
    file = KeyFile(tmp_path / "keys.json")
    assert [key.name for key in file.current().values()] == ["one"]
    (tmp_path / "..new").symlink_to("two")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert [key.name for key in file.current().values()] == ["two"]


def test_a_link_stays_a_link_when_a_key_is_made(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "keys.json").symlink_to("real/keys.json")
    create_key(tmp_path / "keys.json", "one", [PREDICT])
    create_key(tmp_path / "keys.json", "two", [PREDICT])
    assert (tmp_path / "keys.json").is_symlink()
    assert len(read_keys(tmp_path / "real" / "keys.json")) == 2


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def lose_a_hash(path: Path) -> None:
    document = json.loads(path.read_text())
    del document["keys"][0]["sha256"]
    path.write_text(json.dumps(document))


def shorten_a_hash(path: Path) -> None:
    document = json.loads(path.read_text())
    document["keys"][0]["sha256"] = ""
    path.write_text(json.dumps(document))


def invent_a_scope(path: Path) -> None:
    path.write_text(path.read_text().replace('"predict"', '"everything"'))


def expire_after_all_time(path: Path) -> None:
    document = json.loads(path.read_text())
    document["keys"][0]["expires_at"] = "9999-12-31T23:59:59-14:00"  # beyond what UTC can say
    path.write_text(json.dumps(document))


def double_an_id(path: Path) -> None:
    document = json.loads(path.read_text())
    document["keys"] *= 2
    path.write_text(json.dumps(document))


def be_a_list(path: Path) -> None:
    path.write_text("[]")


def be_deep(path: Path) -> None:
    path.write_text("[" * 100_000)


def be_large(path: Path) -> None:
    path.write_bytes(b" " * (9 << 20))


def be_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def be_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def be_a_circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    "damage",
    [
        *(empty, cut, lose_a_hash, shorten_a_hash, invent_a_scope, expire_after_all_time),
        *(double_an_id, be_a_list, be_deep, be_large, be_a_directory, be_a_pipe, be_a_circle),
    ],
    ids=lambda damage: damage.__name__,
)
def test_a_file_that_can_not_be_used_opens_no_door_and_is_told_once(
    path: Path, damage: Callable[[Path], None], told: _Lines
) -> None:
    _, text = create_key(path, "billing", [PREDICT])
    file = KeyFile(path)
    assert file.find(text)
    damage(path)
    opened = descriptors()
    for _ in range(3):
        for shown in (text, "nonsense"):
            with pytest.raises(KeysError):
                file.find(shown)
    assert descriptors() == opened
    (line,) = told.lines
    assert str(path) in line["message"]
    with pytest.raises(KeysError):
        create_key(path, "more", [PREDICT])  # and nobody writes over it


def test_keys_made_by_many_at_once_are_all_kept(path: Path) -> None:
    threads = [
        threading.Thread(target=create_key, args=(path, f"key-{i}", [PREDICT])) for i in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in read_keys(path)} == {f"key-{i}" for i in range(12)}
    assert sorted(file.name for file in path.parent.iterdir()) == ["keys.json", "keys.json.lock"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_keeps_its_owner_when_root_changes_it(path: Path) -> None:
    """The service that runs as that user has to read it."""
    create_key(path, "one", [PREDICT])
    os.chown(path, 65534, 65534)
    create_key(path, "two", [PREDICT])
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)


def test_times_are_written_with_a_z_and_read_with_an_offset_too(path: Path) -> None:
    key, _ = create_key(path, "one", [PREDICT], datetime(2031, 1, 1, tzinfo=UTC))
    (written,) = json.loads(path.read_text())["keys"]
    assert written["expires_at"] == key_document(key)["expires_at"] == "2031-01-01T00:00:00Z"
    assert written["created_at"].endswith("Z")
    assert {"salt", "sha256"} == written.keys() - key_document(key).keys()
    path.write_text(path.read_text().replace("2031-01-01T00:00:00Z", "2031-01-01T02:00:00+02:00"))
    assert read_keys(path) == [key]


@pytest.mark.parametrize("content", ["", "{", '{"keys": [', "[" * 100_000, "s3cret", '"\\q"'])
def test_a_damaged_file_is_told_without_what_stands_in_it(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(KeysError, match="it is not JSON, or only a part of it") as fault:
        read_keys(path)
    assert "Error" not in str(fault.value)
    assert "s3cret" not in str(fault.value)


def test_a_file_keeps_its_mode(path: Path) -> None:
    """A service that reads it by its group goes on reading it."""
    create_key(path, "one", [PREDICT])
    path.chmod(0o640)
    create_key(path, "two", [PREDICT])
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_place_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match=r"Set access\.keys_file to a file in a dir") as fault:
        create_key(tmp_path / "nowhere" / "keys.json", "one", [PREDICT])
    assert "nowhere/keys.json.lock can't be opened: No such file" in str(fault.value)


def test_what_a_killed_process_left_of_the_file_is_removed(path: Path) -> None:
    """It has hashes in it."""
    left, backup = path.parent / ".keys.json-abcd1234.tmp", path.parent / ".keys.json-backup"
    left.write_text("{")
    backup.write_text("{}")
    create_key(path, "one", [PREDICT])
    assert not left.exists()
    assert backup.exists()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "the document is malformed"),
        ({}, "keys is missing"),
        ({"keys": [{}]}, "keys[0].id is missing"),
        ({"keys": [{"id": "s3cret"}]}, "keys[0].id is malformed"),
        ({"keys": [{"id": "0123abcd", "name": "a", "scopes": ["s3cret"]}]}, "keys[0].scopes[0] is"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_by_its_place_alone(
    path: Path, document: object, said: str
) -> None:
    """What stands there may be a secret."""
    path.write_text(json.dumps(document))
    with pytest.raises(KeysError, match=rf"is not a file of keys: {re.escape(said)}") as fault:
        read_keys(path)
    assert "s3cret" not in str(fault.value)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("id", "0123ABCD"),
        ("id", "0123abcd\n"),
        ("name", "0123abcd"),
        ("name", "a\n"),
        ("salt", ""),
        ("salt", "!!!!"),
        ("sha256", "AAAA"),
        ("created_at", "2026-01-01T00:00:00"),
        ("created_at", None),
        ("expires_at", 5),
    ],
)
def test_a_member_of_another_form_is_named(path: Path, member: str, value: object) -> None:
    create_key(path, "billing", [PREDICT])
    document = json.loads(path.read_text())
    document["keys"][0][member] = value
    path.write_text(json.dumps(document))
    with pytest.raises(KeysError, match=rf"keys\[0\]\.{member} is malformed"):
        read_keys(path)
    del document["keys"][0][member]
    path.write_text(json.dumps(document))
    with pytest.raises(KeysError, match=rf"keys\[0\]\.{member} is missing"):
        read_keys(path)


def test_times_of_the_file_are_read_in_utc(path: Path) -> None:
    create_key(path, "billing", [PREDICT])
    document = json.loads(path.read_text())
    document["keys"][0]["expires_at"] = "2026-01-01T02:00:00+02:00"
    path.write_text(json.dumps(document))
    assert read_keys(path)[0].expires_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert str(read_keys(path)[0].expires_at) == "2026-01-01 00:00:00+00:00"
