"""What schemathesis can't read in our description; ``SCHEMATHESIS_HOOKS`` names this module."""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData, ServerError
from schemathesis.openapi.checks import (
    EnsureResourceAvailability,
    MissingHeaderNotRejected,
    RejectedPositiveData,
    UnsupportedMethodResponse,
)

from app.access.header_names import INFERENCE_HEADER_LENGTH
from tests.worker.wire import Answer
from trials.answers import is_passing

_UNKNOWN = "unknown-property"
_OF_THE_REQUEST = (
    AcceptedNegativeData,
    EnsureResourceAvailability,
    MissingHeaderNotRejected,
    RejectedPositiveData,
    ServerError,
    UnsupportedMethodResponse,
)
"""Failures by which a request should have been answered otherwise, for what it is."""


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Leave out a header field that nobody described: HTTP has such fields ignored, not refused."""
    return not any(_UNKNOWN in name.lower() for name in case.headers or ())


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Drop what speaks against a refusal that is of the moment and not of the request.

    A caller that can't wait is told that the service is overloaded, by right. That such a refusal
    is described for its operation, and has the form that is described, is looked at all the same.
    """
    if isinstance(failure, _OF_THE_REQUEST) and is_passing(_answer(response)):
        return False
    return not (
        _is_beyond_a_schema(failure, case)
        or _is_of_any_type(failure, case)
        or _is_malformed(failure, response)
    )


def _is_beyond_a_schema(failure: Any, case: Any) -> bool:
    """Return True for what a schema can't say: that a tensor has as many values as its shape says,
    and that with a header a body is data of any bytes.
    """
    if not case.path.endswith("/infer"):
        return False
    is_data = str((case.headers or {}).get(INFERENCE_HEADER_LENGTH)) == "0"
    return isinstance(failure, RejectedPositiveData) or (
        isinstance(failure, AcceptedNegativeData) and is_data
    )


def _is_of_any_type(failure: Any, case: Any) -> bool:
    """Return True for what is refused of a body of any type, which no schema describes."""
    return isinstance(failure, RejectedPositiveData) and case.path.startswith("/predictions")


def _is_malformed(failure: Any, response: Any) -> bool:
    """Return True for bytes that are no picture or no form, which no schema describes."""
    said = (b"no image of these formats", b"is not base64", b" form ")
    return isinstance(failure, RejectedPositiveData) and any(
        words in response.content for words in said
    )


def _answer(response: Any) -> Answer:
    fields = tuple(
        (name.lower(), value) for name, values in response.headers.items() for value in values
    )
    return Answer(response.status_code, fields, response.content)
