"""The output of commands: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click


def print_json(document: Any) -> None:
    """Print ``document`` as JSON, indented: it is read by people too."""
    click.echo(json.dumps(document, indent=2))


def print_table(rows: Sequence[Sequence[str]], headings: Sequence[str] = ()) -> None:
    """Print ``rows`` in columns as wide as their widest cell, below ``headings`` if there are any.

    Terminal control characters are replaced: some cells hold text that others wrote.
    """
    table = [
        [plain(cell).replace("\n", "\N{REPLACEMENT CHARACTER}") for cell in row]
        for row in ([headings] if headings else []) + [*rows]
    ]
    if not table:
        return
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def number(value: Any) -> str:
    """Return a number for people to read, a fraction in four digits, and ``-`` for None."""
    if value is None:
        return "-"
    if isinstance(value, float) and not (value.is_integer() and abs(value) < 1e12):
        return f"{value:.4g}"
    return f"{value:,.0f}" if type(value) in (int, float) else str(value)


def counted(count: int, noun: str) -> str:
    """Return ``count`` with ``noun``, in the plural unless there is one: 2 files, 1 class."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{count:,} {noun if count == 1 else plural}"


def size(count: int) -> str:
    """Return a number of bytes for people to read."""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    power = min(max(count.bit_length() - 1, 0) // 10, len(units) - 1)
    return f"{count} bytes" if power == 0 else f"{count / 1024**power:.1f} {units[power]}"


def plain(text: str) -> str:
    """Return ``text`` without terminal control characters; it keeps its lines."""
    return "".join(
        character if character.isprintable() or character == "\n" else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )
