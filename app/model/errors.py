"""What can go wrong with a model, in the words of its domain.

Nothing here knows of HTTP: ``app/http/errors.py`` alone turns these into answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from ..documents.text import readable

MAX_FAULTS = 100
"""How many faults of one input are reported at most; the rest is not looked for."""
_SHOWN = 80
_LONGEST_LINE = 2_000
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an input, and where.

    ``path`` leads to the place from the root of what was examined (names of members, indices
    of rows). ``mismatch`` tells a feature that is missing or unknown from a value that is wrong.
    """

    path: tuple[str | int, ...]
    detail: str
    mismatch: bool = False


class ModelError(Exception):
    """The base of every error that ``app.model`` raises on purpose.

    Its message may name a path, and is text all the same: it stands in answers and logs.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(readable(message))


class BundleError(ModelError):
    """A bundle or checkpoint that can't be served: missing, altered, malformed or unsafe."""


class ReleaseRejected(BundleError):
    """A change of the release that would do harm; ``reasons`` are sentences, each a fault."""

    def __init__(self, message: str, reasons: Sequence[str] = ()) -> None:
        super().__init__(" ".join([message, *reasons]))
        self.reasons = tuple(reasons)


class NothingToChange(ModelError):
    """A change of the release that would change nothing."""


class ChangeUnderWay(ModelError):
    """Another process is changing the release at this moment; nothing was done."""


class ModelUnavailable(ModelError):
    """No model is loaded in this process; the message says why."""


class UnknownModel(ModelError):
    """A name that no model of this process has; ``known`` are the names that there are."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"There is no model {name!r}; the models are: {', '.join(known)}.")


class VersionNotLoaded(ModelError):
    """A version that a caller asks for by name, and that this process has not loaded."""


class InvalidFeatures(ModelError):
    """Feature values that can't become a row; ``faults`` lists at most ``MAX_FAULTS`` of them."""

    def __init__(self, message: str, faults: Sequence[Fault]) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


class FeatureMismatch(InvalidFeatures):
    """The features are not exactly the model's: some are missing, or some are unknown."""


class BatchTooLarge(ModelError):
    """A batch of more rows than the service accepts."""

    def __init__(self, rows: int, limit: int) -> None:
        super().__init__(
            f"The batch of {rows:,} rows exceeds the limit of {limit:,} rows "
            "(limits.max_batch_size). Split it into several requests."
        )
        self.rows = rows
        self.limit = limit


class AnswerTooLarge(ModelError):
    """A batch whose answer would have more values than the service gives.

    ``largest`` is the number of rows whose answer would be small enough.
    """

    def __init__(self, rows: int, values_per_row: int, limit: int) -> None:
        self.rows = rows
        self.largest = limit // values_per_row
        super().__init__(
            f"The answer to {rows:,} rows of {values_per_row:,} values each would have "
            f"{rows * values_per_row:,} values, which exceeds the limit of {limit:,} "
            f"(limits.max_answer_values). Send at most {self.largest:,} rows in one request."
        )


class NonFiniteOutput(ModelError):
    """The network gave no finite probabilities for the sample, or for some of a batch.

    ``rows`` are the indices of these; None where there was but one sample.
    """

    def __init__(self, rows: Sequence[int] | None = None) -> None:
        super().__init__(
            "The model gives no finite probabilities for these values; check their magnitude."
        )
        self.rows = None if rows is None else tuple(rows)


def shown(value: object) -> str:
    """Return ``value``, of a file that may mean harm, as it may stand in a message.

    `repr` of nested lists can be without an end, and that of a long number takes forever.
    """
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}...")
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int) and value.bit_length() <= 64:
        return repr(value)
    return f"a value of type {type(value).__name__[:_SHOWN]}"


def listed(names: Iterable[str], most: int = 10) -> str:
    """Return ``names`` as a list in a sentence, the first ``most`` of them; "nothing" for none."""
    first = list(islice(names, most + 1))
    said = ", ".join(name[:_SHOWN] for name in first[:most])
    return f"{said}, ..." if len(first) > most else said or "nothing"


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says, without colours and its full stop."""
    text = _TERMINAL_CODES.sub("", str(error)[:_LONGEST_LINE]).strip()
    return text.splitlines()[0].strip().rstrip(".")[:300] if text else type(error).__name__
