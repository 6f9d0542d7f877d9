"""The base of the rejections before any work is done; `app.http.admission` responds with them."""

from __future__ import annotations


class RequestRejected(Exception):
    """A request that is rejected; its message is the detail of the problem document.

    ``kind`` is the end of the problem's type, ``headers`` are those that the status requires,
    ``caller`` is known if the request was authenticated, and ``reason`` is the label under which
    rejections for overload are counted.
    """

    status = 400
    kind = ""
    headers: tuple[tuple[str, str], ...] = ()
    reason = ""
    caller: str | None = None
