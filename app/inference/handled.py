"""Requests that a model's handler answers, whatever protocol they came by."""

from __future__ import annotations

from collections.abc import Sequence

from ..model.code.answers import HandlerAnswer
from ..model.code.request import HandlerRequest
from ..model.model import Model


def answer(model: Model, request: HandlerRequest) -> HandlerAnswer:
    """Return the answer of the handler that ``model`` has.

    Raises `HandlerRefusal`, with a status and a message for the caller; `HandlerFailed`, with a
    message for the caller and the reason for the log; `NonFiniteOutput` and `OutputsTooLarge` for
    what it answers; and what `Model.run` raises.
    """
    return model.answer([request])[0]


def answer_batch(model: Model, requests: Sequence[HandlerRequest]) -> list[HandlerAnswer]:
    """Return the answers to several requests of one caller, which run through the network together.

    Raises what `answer` raises, for all of them; ``index`` of a `HandlerRefusal` or `HandlerFailed`
    says which of them it was.
    """
    return model.answer(requests)
