"""Framing: the length of a body, and if its connection is kept (RFC 9112, sections 6 and 9)."""

from __future__ import annotations

from .rejection import Rejection, quote
from .request import Head

_CODINGS = frozenset({"chunked", "identity", "compress", "deflate", "gzip"})


def set_framing(head: Head, protocol: str) -> None:
    """Set from the headers how long the body is, and if the connection is kept."""
    environ = head.environ
    if protocol != "HTTP/1.1":
        head.version = (1, int(protocol[-1]))
    old = head.version == (1, 0)
    length = environ.get("CONTENT_LENGTH")
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if coding is not None:
        if length is not None or old:
            raise Rejection(
                400, "Transfer-Encoding is not allowed with Content-Length or in HTTP/1.0."
            )
        head.keep_alive = _check_codings(coding)
        head.length = None
    elif length is not None:
        # Without what `int` accepts, too: signs, underscores, digits of other scripts.
        if not (length.isascii() and length.isdecimal() and len(length) <= 400):
            raise Rejection(
                400, f"Invalid Content-Length {quote(length)}: a number of bytes is expected."
            )
        head.length = int(length)
    expect = environ.get("HTTP_EXPECT")
    if expect is not None:
        if expect.lower() != "100-continue":
            raise Rejection(417, f"Unsupported Expect {quote(expect)}: only 100-continue is known.")
        head.expects_continue = not old
    connection = environ.get("HTTP_CONNECTION")
    if connection is None:
        head.keep_alive = head.keep_alive and not old
    elif connection.lower() != "keep-alive":
        options = {option.strip(" \t") for option in connection.lower().split(",")}
        head.keep_alive = head.keep_alive and not old and "close" not in options
    if head.method == "CONNECT":
        head.keep_alive = False  # what follows is not HTTP, whatever the response is


def _check_codings(value: str) -> bool:
    """Raise `Rejection` unless the last coding is the only "chunked".

    Return True if there is no other coding. A body with another one is passed on encoded, and the
    connection closed after it.
    """
    codings = [coding.strip(" \t").lower() for coding in value.split(",")]
    unknown = [coding for coding in codings if coding not in _CODINGS]
    if unknown:
        raise Rejection(501, f"Unsupported transfer coding {quote(unknown[0])}.")
    if codings[-1] != "chunked" or codings.count("chunked") > 1:
        raise Rejection(400, f"Transfer-Encoding {quote(value)} must end with chunked, once.")
    return all(coding in ("chunked", "identity") for coding in codings)
