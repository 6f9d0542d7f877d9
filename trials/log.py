"""What a server logged: whether each line is its own, and tells of no error nobody provoked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator

_LONGEST = 300


def strange_lines(lines: Iterable[str], killed: Iterable[int] = ()) -> Iterator[str]:
    """Tell of lines that aren't JSON, and of errors but that the workers ``killed`` were killed."""
    provoked = {f"(pid:{pid}) was sent SIGKILL" for pid in killed}
    found: Counter[str] = Counter()
    for line in lines:
        try:
            told = json.loads(line)
            level, message = told["level"], told["message"]
        except (ValueError, KeyError, TypeError):
            found[f"a line that is none of its own: {line[:_LONGEST]}"] += 1
            continue
        if level in ("ERROR", "CRITICAL") and not any(words in message for words in provoked):
            found[
                f"{level} {message[:_LONGEST]} {told.get('exc_info', '')[-_LONGEST:]}".strip()
            ] += 1
    for what, count in found.most_common():
        yield f"logged {count:,} times: {what}"
