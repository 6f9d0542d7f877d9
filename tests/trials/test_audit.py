"""An audit passes only where every package was looked up and has no known vulnerability."""

from __future__ import annotations

from typing import Any

import pytest
from packaging.requirements import Requirement

from trials import audit
from trials.audit import pins, read, verdict

CLEAN = {"name": "flask", "version": "3.1.3", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
FOUND = {
    "name": "requests",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["1.1"]}],
}


def said(*packages: dict[str, Any]) -> list[str]:
    return verdict(read({"dependencies": list(packages), "fixes": []}))


def test_what_was_looked_up_and_is_clean_passes() -> None:
    assert said(CLEAN, CLEAN) == []


def test_a_vulnerability_is_named_with_where_it_is_mended() -> None:
    assert said(CLEAN, FOUND) == ["requests 1.0: PYSEC-1 (CVE-1), mended in 1.1"]


def test_what_was_not_looked_up_does_not_pass() -> None:
    assert said(CLEAN, SKIPPED) == ["not looked up: torch: Dependency not found on PyPI"]
    (sentence,) = said(SKIPPED, SKIPPED)
    assert sentence.startswith("None of 2 packages could be looked up")


def test_all_that_is_installed_is_asked_about_in_a_form_that_advisories_have() -> None:
    requirements = [Requirement(pin) for pin in pins()]
    assert {"torch", "werkzeug", "gunicorn"} <= {one.name.lower() for one in requirements}
    assert not [one for one in requirements if "+" in str(one.specifier)]


def test_a_service_that_can_not_be_asked_fails_the_audit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Where nothing listens, in the place of the services.
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr(audit, "pins", lambda: ["flask==3.1.3"])
    monkeypatch.setattr("sys.argv", ["audit"])
    assert audit.main() == 1
    assert "Nothing was audited. pip-audit could not ask pypi" in capsys.readouterr().err
