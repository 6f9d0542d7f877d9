"""The figure of large answers can be made, and is of answers that came."""

from __future__ import annotations

import pytest

from benchmarks import large_answers


def test_a_row_of_the_table_tells_what_a_large_answer_took(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert large_answers.main(["--classes=40", "--rows=30", "--callers=2", "--rounds=1"]) == 0
    *_, row = capsys.readouterr().out.splitlines()
    classes, rows, answer, *_, slowest = (cell.strip() for cell in row.strip("|").split("|"))
    assert (classes, rows) == ("40", "30")
    assert answer.endswith(" MB")
    assert slowest.endswith(" ms")
