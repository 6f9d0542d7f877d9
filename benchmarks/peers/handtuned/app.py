"""The hand-tuned peer: what is left when everything that costs time is taken out.

Starlette without FastAPI, bodies decoded and checked by msgspec, ONNX Runtime, orjson; no log, no
metrics, no documentation.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported
import onnxruntime

MODEL = Path(__file__).resolve().parents[3] / "models" / "campaign-response" / "1" / "model.onnx"
LABELS = ("no_response", "response")
VERSION = "1"
OUTPUTS = ["probabilities"]

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


def reply(answer: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(answer), status, media_type="application/json")


async def predict(request: Request) -> Response:
    try:
        body = decode_one(await request.body())
    except msgspec.MsgspecError as error:
        return reply({"detail": str(error)}, 422)
    return reply(predict_rows([body.features])[0])


async def predict_batch(request: Request) -> Response:
    try:
        body = decode_batch(await request.body())
    except msgspec.MsgspecError as error:
        return reply({"detail": str(error)}, 422)
    predictions = predict_rows(body.samples)
    return reply(
        {
            "predictions": predictions,
            "total_samples": len(predictions),
            "model_version": VERSION,
        }
    )


async def ready(request: Request) -> Response:
    return Response(b'{"status":"ready"}', media_type="application/json")


app = Starlette(
    routes=[
        Route("/predict", predict, methods=["POST"]),
        Route("/predict/batch", predict_batch, methods=["POST"]),
        Route("/health/ready", ready),
    ]
)
