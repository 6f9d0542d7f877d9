"""Suggestions: the known name that is meant, and how it differs where that can't be seen."""

from __future__ import annotations

import pytest

from app.documents.suggestions import closest, did_you_mean


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("prot", "; did you mean 'port'?"),
        ("pоrt", "; did you mean 'port' (which has U+006F where this has U+043E)?"),
        ("colour", ""),
        ("", ""),
    ],
)
def test_the_name_that_is_meant_is_asked_for(name: str, hint: str) -> None:
    assert did_you_mean(name, {"host": 1, "port": 2}) == hint


def test_a_name_is_compared_as_far_as_it_can_be_read() -> None:
    """The cost of a comparison grows with its length."""
    assert closest("a" * 1_000_000, ["a" * 70]) == "a" * 70
    assert closest("port", []) is None
