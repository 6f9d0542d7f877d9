"""Why a request is refused before any work is done for it; `app.http.admission` answers it."""

from __future__ import annotations


class RequestRejected(Exception):
    """A request that is not taken up; its text is the sentence for the caller.

    ``kind`` ends the type of the problem, ``headers`` are those that the status asks for, and
    ``reason`` is the label by which it is counted, where it is refused because there are too many,
    and ``caller`` whose request it is, where that is known.
    """

    status = 400
    kind = ""
    headers: tuple[tuple[str, str], ...] = ()
    reason = ""
    caller: str | None = None
