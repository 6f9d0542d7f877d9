"""``docs/lifecycle.md`` shows what the commands print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.test_model import COMMANDS
from tests.lifecycle import DOCUMENT, pack_three_versions, run_blocks


def without_figures(text: str) -> str:
    """Leave out what differs from day to day and machine to machine, and the widths it makes."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "#", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.+]+", "#", text)
    text = re.sub(r"\d[\d,]*\.?\d*(e-?\d+)?( bytes| KiB)?", "#", text)
    return re.sub(r" +", " ", text)


def test_the_document_shows_what_the_commands_print(tmp_path: Path) -> None:
    pack_three_versions(tmp_path)
    for written, printed in run_blocks(DOCUMENT.read_text(), tmp_path):
        assert without_figures(written) == without_figures(printed), "run python -m tests.lifecycle"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_document_shows_every_command(command: str) -> None:
    assert f"$ lantern model {command}" in DOCUMENT.read_text()
