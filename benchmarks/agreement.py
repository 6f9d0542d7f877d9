"""Whether the servers answer alike: a comparison of costs is fair between equal answers only."""

from __future__ import annotations

import json
import math
from typing import Any

from benchmarks import payloads
from benchmarks.load import exchange
from benchmarks.servers import BenchmarkError, Server

_TOLERANCE = 1e-5
_KEYS = {"prediction", "label", "probabilities", "model_version", "timestamp"}
_BATCH_KEYS = {"predictions", "total_samples", "model_version"}


def check(servers: list[Server]) -> None:
    """Send the same samples, nulls among them, to all, singly and as a batch.

    Raises `BenchmarkError` when an answer differs from the bundle's own probabilities or from the
    first server's.
    """
    rows = payloads.golden_samples() + payloads.samples(40)
    golden = payloads.golden_answers()
    reference: list[list[float]] | None = None
    for server in servers:
        singly = [_answer(server, "/predict", payloads.single(row)) for row in rows]
        batch = _answer(server, "/predict/batch", payloads.batch(rows))
        if set(batch) != _BATCH_KEYS or batch["total_samples"] != len(rows):
            raise BenchmarkError(f"{server.name} answers a batch in another form.")
        for answers in (singly, batch["predictions"]):
            given = [_probabilities(server, answer) for answer in answers]
            reference = reference or given
            if not (_alike(given, reference) and _alike(given[: len(golden)], golden)):
                raise BenchmarkError(f"{server.name} answers with other probabilities.")


def _answer(server: Server, path: str, body: bytes) -> dict[str, Any]:
    status, content = exchange(server, path, body)
    if status != 200:
        raise BenchmarkError(f"{server.name} answers {path} with {status}: {content[:500]!r}")
    answer: dict[str, Any] = json.loads(content)
    return answer


def _probabilities(server: Server, answer: dict[str, Any]) -> list[float]:
    given: dict[str, float] = answer["probabilities"]
    index = answer["prediction"]
    right = max(range(len(given)), key=lambda i: given[f"class_{i}"])
    if set(answer) != _KEYS or index != right or answer["label"] != payloads.classes()[right]:
        raise BenchmarkError(f"{server.name} answers in another form: {answer}")
    return [given[f"class_{i}"] for i in range(len(given))]


def _alike(given: list[list[float]], wanted: list[list[float]]) -> bool:
    return len(given) == len(wanted) and all(
        math.isclose(a, b, abs_tol=_TOLERANCE, rel_tol=0)
        for row, other in zip(given, wanted, strict=True)
        for a, b in zip(row, other, strict=True)
    )
