"""The cheapest peer: Granian, a server in Rust, by its own protocol, and no framework at all.

RSGI, bodies decoded and answers written by msgspec, ONNX Runtime; no log, no metrics, no
documentation.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported
import onnxruntime

MODEL = Path(__file__).resolve().parents[3] / "models" / "campaign-response" / "1" / "model.onnx"
LABELS = ("no_response", "response")
VERSION = "1"
OUTPUTS = ["probabilities"]
HEADERS = [("content-type", "application/json")]

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1  # a worker for each core
options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])


class Features(msgspec.Struct):
    age: float
    income: float | None
    tenure_days: float
    num_purchases: float
    avg_transaction_value: float | None
    days_since_last_purchase: float


class PredictRequest(msgspec.Struct):
    features: Features


class BatchRequest(msgspec.Struct):
    samples: list[Features]


decode_one = msgspec.json.Decoder(PredictRequest).decode
decode_batch = msgspec.json.Decoder(BatchRequest).decode
encode = msgspec.json.Encoder().encode


def predict_rows(samples: list[Features]) -> list[dict[str, Any]]:
    rows = [
        (
            sample.age,
            sample.income,
            sample.tenure_days,
            sample.num_purchases,
            sample.avg_transaction_value,
            sample.days_since_last_purchase,
        )
        for sample in samples
    ]
    matrix = np.array(rows, dtype=np.float32)  # None becomes NaN, which the graph imputes
    probabilities = session.run(OUTPUTS, {"features": matrix})[0].tolist()
    timestamp = datetime.now(UTC).isoformat()
    return [
        {
            "prediction": (index := int(second > first)),
            "label": LABELS[index],
            "probabilities": {"class_0": first, "class_1": second},
            "model_version": VERSION,
            "timestamp": timestamp,
        }
        for first, second in probabilities
    ]


def predict(body: bytes) -> dict[str, Any]:
    return predict_rows([decode_one(body).features])[0]


def predict_batch(body: bytes) -> dict[str, Any]:
    predictions = predict_rows(decode_batch(body).samples)
    return {
        "predictions": predictions,
        "total_samples": len(predictions),
        "model_version": VERSION,
    }


POSTS = {"/predict": predict, "/predict/batch": predict_batch}


async def app(scope, protocol):
    if scope.method == "POST" and (view := POSTS.get(scope.path)):
        try:
            answer, status = view(await protocol()), 200
        except msgspec.MsgspecError as error:
            answer, status = {"detail": str(error)}, 422
        protocol.response_bytes(status, HEADERS, encode(answer))
    elif scope.path == "/health/ready":
        protocol.response_bytes(200, HEADERS, b'{"status":"ready"}')
    else:
        protocol.response_bytes(404, HEADERS, b'{"detail":"Not Found"}')
