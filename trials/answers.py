"""What an answer must look like: as documented, and a problem document for every refusal."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from tests.worker.wire import Answer

PROBLEM_JSON = "application/problem+json"
_PROBLEM = {
    "type": str,
    "title": str,
    "status": int,
    "detail": str,
    "instance": str,
    "request_id": str,
    "errors": list,
}
_FORMS = {PROBLEM_JSON: _PROBLEM, "application/json": _PROBLEM | {"error": str}}
"""By the type of a refusal what it has; the latter is for the Open Inference Protocol's clients."""
_TORCHSERVE = {"code": int, "type": str, "message": str}
"""What a refusal has for TorchServe's clients."""
_ERROR = {"pointer": str, "detail": str}
_PASSING = {
    408: {"request-timeout"},
    429: {"rate-limited"},
    503: {"overloaded", "draining", "service-unavailable"},
}
"""Refusals that say something of the moment and nothing of the request, by how their type ends.

The same request may be served a moment later, and a machine that is busy or slow brings them about.
Those by which the service says that it is out of order (no model, no keys) are none of them.
"""
_RETRIED = (429, 503)
"""Of these the ones that say when to come again."""
_PREDICTION = {
    "prediction": int,
    "label": str,
    "probabilities": dict,
    "model_version": str,
    "timestamp": str,
}
_BATCH = {"predictions": list, "total_samples": int, "model_version": str}


def fault_of(answer: Answer, path: str = "") -> str | None:
    """Say what is wrong with an answer, if something is.

    Of a success only that of a prediction or a batch is looked into, by ``path``.
    """
    if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return f"an answer of 500: {answer.body[:300]!r}"
    if answer.status >= 400:
        return _fault_of_problem(answer)
    if answer.status == HTTPStatus.OK and path.endswith(("/predict", "/batch")):
        try:
            document = json.loads(answer.body)
        except ValueError:
            return "the answer is no JSON"
        return _fault_of_batch(document) if path.endswith("/batch") else _fault_of_one(document)
    return None


def is_passing(answer: Answer) -> bool:
    """Return True for a refusal, as documented, that the same request may not meet again."""
    return answer.status in _PASSING and fault_of(answer) is None


def _fault_of_problem(answer: Answer) -> str | None:
    kinds = answer.all("content-type")
    if len(kinds) != 1 or kinds[0] not in _FORMS or not answer.all("x-request-id"):
        return f"a refusal of {answer.status} is {kinds}, and no problem document with an id"
    if not answer.body:
        return None  # to a HEAD
    try:
        document = json.loads(answer.body)
    except ValueError:
        return f"a refusal of {answer.status} is no JSON"
    if set(document) == set(_TORCHSERVE):
        return _fault_of_torchserve(answer, document)
    fault = _misshapen(document, _FORMS[kinds[0]])
    if fault is None and document["status"] != answer.status:
        fault = f"it says {document['status']}"
    if fault is None:
        fault = _first(_misshapen(one, _ERROR) for one in document["errors"])
    if fault is None:
        fault = _fault_of_passing(answer, document["type"])
    return f"a refusal of {answer.status}: {fault}" if fault else None


def _fault_of_torchserve(answer: Answer, document: Any) -> str | None:
    """Say what is wrong with a refusal in TorchServe's form, which has no type of its own for what
    passes: Retry-After alone says that it does.
    """
    fault = _misshapen(document, _TORCHSERVE)
    if fault is None and document["code"] != answer.status:
        fault = f"it says {document['code']}"
    if fault is None and answer.status in _RETRIED and len(answer.all("retry-after")) != 1:
        fault = "it doesn't say when to come again"
    return f"a refusal of {answer.status}: {fault}" if fault else None


def _fault_of_passing(answer: Answer, kind: str) -> str | None:
    """Say what is wrong with a refusal of a status by which only passing ones may be told."""
    if answer.status in _PASSING and kind.rpartition(":")[2] not in _PASSING[answer.status]:
        return f"{kind} is nothing that passes"
    after = answer.all("retry-after")
    if answer.status in _RETRIED and not (
        len(after) == 1 and re.fullmatch("[1-9][0-9]*", after[0])
    ):
        return f"it says that it passes, and Retry-After is {after}"
    return None


def _first(faults: Iterable[str | None]) -> str | None:
    return next(filter(None, faults), None)


def _fault_of_batch(document: Any) -> str | None:
    fault = _misshapen(document, _BATCH)
    if fault:
        return fault
    if document["total_samples"] != len(document["predictions"]):
        return "total_samples is not the number of predictions"
    return _first(map(_fault_of_one, document["predictions"]))


def _fault_of_one(document: Any) -> str | None:
    fault = _misshapen(document, _PREDICTION)
    if fault:
        return fault
    probabilities = list(document["probabilities"].values())
    if not all(isinstance(p, float | int) and 0 <= p <= 1 for p in probabilities):
        return f"{probabilities} are no probabilities"
    if not math.isclose(sum(probabilities), 1, abs_tol=1e-5):
        return f"{probabilities} are not 1 in sum"
    if document["prediction"] != probabilities.index(max(probabilities)):
        return f"class {document['prediction']} is not the most probable of {probabilities}"
    return None


def _misshapen(document: Any, shape: Mapping[str, type]) -> str | None:
    if not isinstance(document, dict) or document.keys() != shape.keys():
        return f"not the documented keys: {str(document)[:300]}"
    wrong = [key for key, kind in shape.items() if not isinstance(document[key], kind)]
    return f"{wrong[0]} is not of its type: {document[wrong[0]]!r}" if wrong else None
