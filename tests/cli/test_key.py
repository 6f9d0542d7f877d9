"""``flask --app wsgi key``: what it prints where, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask

from app.access.keys import KeyFile, create_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def key(path: Path, make_app: Callable[..., Flask]) -> Callable[..., Result]:
    runner = make_app(ACCESS__KEYS_FILE=str(path)).test_cli_runner()

    def run(*arguments: str) -> Result:
        result = runner.invoke(args=["key", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return run


def test_only_the_key_goes_to_standard_output(key: Callable[..., Result], path: Path) -> None:
    result = key("create", "billing", "--scope", "metrics", "--scope", "predict")
    assert result.exit_code == 0
    found = KeyFile(path).find(result.stdout.removesuffix("\n"))
    assert found is not None
    assert found.scopes == ("predict", "metrics")
    assert f"Created the key billing ({found.id}) with the scope predict, metrics" in result.stderr
    assert result.stdout.strip() not in result.stderr


def test_a_key_is_for_predictions_and_for_ever_unless_something_is_said(
    key: Callable[..., Result],
) -> None:
    key("create", "billing")
    (listed,) = json.loads(key("list", "--json").stdout)
    assert listed["scopes"] == ["predict"]
    assert listed["expires_at"] is None
    assert listed["expired"] is False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("2w", timedelta(weeks=2)),
        ("2999-01-01", datetime(2999, 1, 1, tzinfo=UTC)),
        ("2999-01-01T12:00:00", datetime(2999, 1, 1, 12, tzinfo=UTC)),
        ("2999-01-01T12:00:00+02:00", datetime(2999, 1, 1, 10, tzinfo=UTC)),
    ],
)
def test_when_a_key_expires_is_said_in_several_ways(
    key: Callable[..., Result], text: str, expected: timedelta | datetime
) -> None:
    before = datetime.now(UTC)
    assert key("create", "billing", "--expires", text).exit_code == 0
    (listed,) = json.loads(key("list", "--json").stdout)
    at = datetime.fromisoformat(listed["expires_at"])
    if isinstance(expected, timedelta):
        assert abs(at - before - expected) < timedelta(minutes=5)
    else:
        assert at == expected


def test_keys_are_listed_with_their_states_and_without_their_secrets(
    key: Callable[..., Result], path: Path
) -> None:
    key("create", "billing")
    key("create", "old")
    text = path.read_text()
    document = json.loads(text)
    document["keys"][1]["expires_at"] = "2020-01-01T00:00:00+00:00"
    path.write_text(json.dumps(document))
    lines = [re.split(r"\s{2,}", line) for line in key("list").stdout.splitlines()]
    assert lines[0] == ["ID", "NAME", "SCOPES", "MADE", "STATE"]
    assert [line[1] for line in lines[1:]] == ["billing", "old"]
    assert [line[4] for line in lines[1:]] == ["never expires", "expired 2020-01-01T00:00:00+00:00"]
    listed = json.loads(key("list", "--json").stdout)
    assert [entry["expired"] for entry in listed] == [False, True]
    assert not listed[0].keys() & {"salt", "sha256"}


def test_a_key_is_revoked_by_its_name_or_its_id(key: Callable[..., Result], path: Path) -> None:
    one, _ = create_key(path, "one", ["predict"])
    create_key(path, "two", ["predict"])
    assert key("revoke", one.id).stdout == f"Revoked the key one ({one.id}).\n"
    assert key("revoke", "two").exit_code == 0
    assert KeyFile(path).current() == {}
    result = key("revoke", "two")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: No key has the id or name 'two'.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["create"],
        ["create", "a b"],
        ["create", ""],
        ["create", "../x"],
        ["create", "x" * 65],
        ["create", "0123abcd"],  # would be taken for an id
        ["create", "x", "--scope", "everything"],
        ["create", "x", "--expires", "soon"],
        ["create", "x", "--expires", "0d"],
        ["create", "x", "--expires", "999999w"],
        ["create", "x", "--expires", "2020-01-01"],
        ["create", "x", "--expires", "0001-01-01T00:00:00+14:00"],
        ["revoke"],
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_made(
    key: Callable[..., Result], path: Path, arguments: list[str]
) -> None:
    result = key(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr
    assert not path.exists()


def test_a_damaged_file_is_told_in_a_sentence(key: Callable[..., Result], path: Path) -> None:
    path.write_text("{}")
    for arguments in (["list"], ["create", "x"], ["revoke", "x"]):
        result = key(*arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "is not a file of keys" in result.stderr
    assert path.read_text() == "{}"
