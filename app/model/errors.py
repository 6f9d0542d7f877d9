"""The exceptions of the model's domain.

Nothing here knows of HTTP: only ``app/http/errors.py`` turns them into responses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from ..documents.text import readable

MAX_FAULTS = 100
"""The most faults of one input that are reported; the search stops there."""
_SHOWN = 80
_LONGEST_LINE = 2_000
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault in an input, and where it is.

    ``path`` leads to the place from the root of the input (names of members, indices of rows).
    ``mismatch`` is True for a missing or unknown feature, False for a wrong value.
    """

    path: tuple[str | int, ...]
    detail: str
    mismatch: bool = False


class ModelError(Exception):
    """The base class of the errors that ``app.model`` raises on purpose.

    Its message is valid text even if it names a path: it is repeated in responses and logs.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(readable(message))


class BundleError(ModelError):
    """A bundle or checkpoint that can't be served: missing, altered, malformed or unsafe."""


class ReleaseRejected(BundleError):
    """A change of the release that would do harm; ``reasons`` has a sentence for each fault."""

    def __init__(self, message: str, reasons: Sequence[str] = ()) -> None:
        super().__init__(" ".join([message, *reasons]))
        self.reasons = tuple(reasons)


class NothingToChange(ModelError):
    """A change of the release that would change nothing."""


class ChangeUnderWay(ModelError):
    """Another process is changing the release; nothing was changed."""


class ModelUnavailable(ModelError):
    """No model is loaded in this process; the message says why."""


class UnknownModel(ModelError):
    """No model of this process has the name; ``known`` are the names of those it has."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"Request for unknown model {name!r}; the models are: {', '.join(known)}.")


class VersionNotLoaded(ModelError):
    """A caller requests a version that this process has not loaded."""


class InvalidFeatures(ModelError):
    """The feature values can't become a row; ``faults`` has at most ``MAX_FAULTS`` of their
    faults.
    """

    def __init__(self, message: str, faults: Sequence[Fault]) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


class FeatureMismatch(InvalidFeatures):
    """The features are not exactly the model's: some are missing, or some are unknown."""


class InvalidSamples(ModelError):
    """Images or texts that can't become a row; ``faults`` has at most ``MAX_FAULTS`` of their
    faults, the path of each the index of its sample and "image", "text" or "pair".
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        place, fault = faults[0].path[-1], faults[0]
        more = f" ({len(faults) - 1} more in errors)" if len(faults) > 1 else ""
        super().__init__(f"The {place} {fault.detail}{more}.")
        self.faults = tuple(faults)


class SamplesTooLarge(InvalidSamples):
    """Images or texts that are larger than the service or the model takes."""


class RowsTooLarge(ModelError):
    """Samples that would become more bytes of tensors than the service makes of one request."""

    def __init__(self, rows: int, bytes_of_row: int, limit: int) -> None:
        super().__init__(
            f"The {rows:,} samples would become {rows * bytes_of_row:,} bytes of tensors, which "
            f"exceeds the limit of {limit:,}. Send at most {limit // bytes_of_row:,} in one "
            "request."
        )


class ImagesTooLarge(ModelError):
    """Images of one request that are not too large each, and are together."""

    def __init__(self, pixels: int, limit: int, times: int) -> None:
        super().__init__(
            f"The images of this request have at least {pixels:,} pixels together, as sent and as "
            "resized (each block of their files counts as some, too), which exceeds the limit of "
            f"{limit:,} ({times} times limits.max_image_pixels). Send fewer in one request, or "
            "smaller ones."
        )


class BatchTooLarge(ModelError):
    """The batch has more rows than the service accepts."""

    def __init__(self, rows: int, limit: int) -> None:
        super().__init__(
            f"The batch of {rows:,} rows exceeds the limit of {limit:,} rows "
            "(limits.max_batch_size). Split it into several requests."
        )
        self.rows = rows
        self.limit = limit


class AnswerTooLarge(ModelError):
    """The answer to the batch would have more values than the service returns.

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


class OutputsTooLarge(ModelError):
    """Outputs of more values than the service returns; that shows only once the network has run."""

    def __init__(self, values: int, limit: int) -> None:
        super().__init__(
            f"The outputs have {values:,} values, which exceeds the limit of {limit:,} "
            "(limits.max_answer_values). Request fewer outputs, or send smaller inputs."
        )


class InputsRejected(ModelError):
    """Inputs on whose values the network can't be run, as a number beyond a vocabulary."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The model can't be run on these inputs: {reason}.")


class RunTooLong(ModelError):
    """A run of the network that was stopped, because it takes longer than one may."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"The model was still running after {seconds:g} seconds, the limit of one run "
            "(limits.run_seconds), and was stopped. Send smaller inputs, or fewer rows."
        )


class RunTooLarge(ModelError):
    """A run of the network for which there is no memory; ``memory_mb`` is its limit, if any."""

    def __init__(self, memory_mb: int = 0) -> None:
        limit = f": it exceeds the limit of {memory_mb:,} MiB (limits.run_memory_mb)"
        super().__init__(
            f"The model ran out of memory on these inputs{limit if memory_mb else ''}. Send "
            "smaller inputs, or fewer rows."
        )


class TakesNoFeatures(ModelError):
    """A request for a prediction from features, to a model that has none."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"The model {model!r} takes tensors and no features. Send them by the Open Inference "
            f"Protocol: POST /v2/models/{model}/infer."
        )


class NonFiniteOutput(ModelError):
    """The answer to the sample, or to some of a batch, has numbers that aren't finite.

    ``rows`` are the indices of those; None for a single sample, whose values are at
    ``path`` of what was sent.
    """

    def __init__(self, rows: Sequence[int] | None = None) -> None:
        super().__init__("The model's answer to these values is not finite; check their magnitude.")
        self.rows = None if rows is None else tuple(rows)
        self.path: tuple[str, ...] = ()

    def moved(self, first: int) -> NonFiniteOutput:
        """Return the error of a batch of which these rows are those from ``first`` on."""
        return NonFiniteOutput([row + first for row in self.rows or ()])


def shown(value: object) -> str:
    """Return ``value``, from a file that may be hostile, as text for a message.

    `repr` of nested lists can be endless, and that of a long number takes forever.
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
    """Return the first line of a library's message, without colours and the full stop; the type of
    the error, if it has no message, or fails to say it.
    """
    try:
        text = str(error)[:_LONGEST_LINE]
    except BaseException:  # of the code of a handler
        text = ""
    text = _TERMINAL_CODES.sub("", text).strip()
    return text.splitlines()[0].strip().rstrip(".")[:300] if text else type(error).__name__
