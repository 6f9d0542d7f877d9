"""The errors of a handler: what it refuses itself, and what is its owner's fault."""

from __future__ import annotations

import traceback
from types import TracebackType

from ..errors import ModelError, first_line

_LONGEST_MESSAGE = 2_000
LOWEST_STATUS, HIGHEST_STATUS = 400, 599


class HandlerRefusal(ModelError):
    """An error that a handler raises for its caller: a ``status`` from 400 to 599, and a message of
    its own. ``index`` is that of the request, where it is one of several.
    """

    def __init__(self, message: str, status: int = 422) -> None:
        if isinstance(status, bool) or not isinstance(status, int):
            raise TypeError(f"the status of an error must be an integer, not {status!r}")
        if not LOWEST_STATUS <= status <= HIGHEST_STATUS:
            raise ValueError(
                f"the status of an error must be from {LOWEST_STATUS} to {HIGHEST_STATUS}, not "
                f"{status}"
            )
        super().__init__(str(message)[:_LONGEST_MESSAGE])
        self.status = status
        self.index: int | None = None


class HandlerFailed(ModelError):
    """A fault of a handler, and not of its caller.

    The message is for callers, and says nothing of it; ``reason`` is for the log and the owner. The
    exception of the handler, if there is one, is the cause. ``index`` is that of the request, where
    it is one of several.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("The model's handler failed on this request.")
        self.reason = reason
        self.index: int | None = None


def failure(verb: str, error: BaseException, directory: str) -> str:
    """Return what went wrong in a handler, and in which line of its own files, as one sentence."""
    place = _place(error.__traceback__, directory)
    return f"{verb} raised {type(error).__name__}{place}: {first_line(error)}"


def _place(trace: TracebackType | None, directory: str) -> str:
    frames = [
        frame for frame in traceback.extract_tb(trace) if frame.filename.startswith(directory)
    ]
    if not frames:
        return ""
    name = frames[-1].filename.removeprefix(directory).lstrip("/")
    return f" in {name}, line {frames[-1].lineno}"
