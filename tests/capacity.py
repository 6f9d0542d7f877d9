"""The arithmetic of ``docs/capacity.md``, done again.

``python -m tests.capacity`` writes what it prints into the document.
"""

from __future__ import annotations

import doctest
import io
from contextlib import chdir, redirect_stdout
from typing import Any

from tests.conftest import ROOT

DOCUMENT = ROOT / "docs" / "capacity.md"


def calculated(text: str) -> str:
    """Return the document with what its examples print now."""
    names: dict[str, Any] = {}
    parts = []
    with chdir(ROOT):
        for part in doctest.DocTestParser().parse(text):
            if isinstance(part, str):
                parts.append(part)
                continue
            printed = io.StringIO()
            with redirect_stdout(printed):
                # The document's own code, and a single statement as the parser gives it.
                exec(compile(part.source, DOCUMENT.name, "single"), names)
            first, *others = part.source.splitlines()
            code = [f">>> {first}", *(f"... {line}" for line in others)]
            parts.append("\n".join([*code, printed.getvalue()]))
    return "".join(parts)


if __name__ == "__main__":
    DOCUMENT.write_text(calculated(DOCUMENT.read_text()))
