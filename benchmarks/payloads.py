"""What the servers are sent: made-up customers of the bundled model, the same for every server."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.servers import ROOT

MODEL = "campaign-response"
BUNDLE = ROOT / "models" / MODEL / "1"
INFER = f"/v2/models/{MODEL}/infer"
"""The path of the bundled model in the Open Inference Protocol."""
NULLS = 0.05
"""The share of nulls in the features that may be null, unless told otherwise."""
DISTINCT_BODIES = 20_000
"""More than a cache of answers holds in these runs: none comes again while it is remembered."""

Sample = dict[str, float | None]


@cache
def manifest() -> dict[str, Any]:
    """Return the bundle's description of itself."""
    content: dict[str, Any] = json.loads((BUNDLE / "manifest.json").read_text(encoding="utf-8"))
    return content


def feature_names() -> list[str]:
    """Return the names of the features in order."""
    return [feature["name"] for feature in manifest()["features"]]


def classes() -> list[str]:
    """Return the labels of the classes in order."""
    names: list[str] = manifest()["classes"]
    return names


def golden_samples() -> list[Sample]:
    """Return the bundle's own samples, some at the edges, one with nulls."""
    with np.load(BUNDLE / manifest()["golden"]) as arrays:
        matrix = arrays["input_0"]
    rows = [[None if math.isnan(value) else value for value in row] for row in matrix.tolist()]
    return [dict(zip(feature_names(), row, strict=True)) for row in rows]


def golden_answers() -> list[list[float]]:
    """Return the probabilities of the bundle's own samples."""
    with np.load(BUNDLE / manifest()["golden"]) as arrays:
        answers: list[list[float]] = arrays["output_0"].tolist()
    return answers


def samples(count: int, seed: int = 0, nulls: float = NULLS) -> list[Sample]:
    """Make samples within the ranges of training, whole numbers but for the money spent."""
    random = np.random.default_rng(seed)
    columns: dict[str, list[float | None]] = {}
    for feature in manifest()["features"]:
        low, high = feature["minimum"], feature["maximum"]
        values: list[float | None]
        if feature["name"] == "avg_transaction_value":
            values = np.round(random.uniform(low, high, count), 2).tolist()
        else:
            values = random.integers(int(low), int(high), count, endpoint=True).tolist()
        if feature["nullable"]:
            missing = random.random(count) < nulls
            values = [None if gone else v for v, gone in zip(values, missing, strict=True)]
        columns[feature["name"]] = values
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def write_bodies(path: Path, count: int, nulls: float = NULLS) -> Path:
    """Write the bodies of ``count`` single predictions, a line each, for wrk."""
    path.write_bytes(b"\n".join(single(sample) for sample in samples(count, nulls=nulls)) + b"\n")
    return path


def single(sample: Sample) -> bytes:
    """Write the body of ``POST /predict``."""
    return _compact({"features": sample})


def batch(rows: list[Sample]) -> bytes:
    """Write the body of ``POST /predict/batch``."""
    return _compact({"samples": rows})


def inference(rows: list[Sample], identifier: str = "1") -> bytes:
    """Write the body of a request of the Open Inference Protocol, whose rows have no nulls."""
    matrix = np.array([list(row.values()) for row in rows], dtype=np.float32)
    tensor = {"name": "features", "datatype": "FP32", "shape": list(matrix.shape)}
    document = {
        "id": identifier,
        "inputs": [tensor | {"data": matrix.reshape(-1).tolist()}],
        "outputs": [{"name": "probabilities"}],
    }
    return _compact(document)


def _compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
