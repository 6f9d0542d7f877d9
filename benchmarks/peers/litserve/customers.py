"""LitServe with two workers, and the bundled network of six features: ``python customers.py PORT``.

An endpoint for one sample and one for a batch of them, which is a request like any other: LitServe
makes batches of requests, and has no answer to one that brings several rows.
"""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import litserve
import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported
import onnxruntime

MODEL = Path(__file__).resolve().parents[3] / "models" / "campaign-response" / "1" / "model.onnx"
LABELS = ("no_response", "response")
VERSION = "1"
NAMES = (
    "age",
    "income",
    "tenure_days",
    "num_purchases",
    "avg_transaction_value",
    "days_since_last_purchase",
)


class One(litserve.LitAPI):
    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a worker for each core
        options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(MODEL, options, providers=providers)

    def decode_request(self, request):
        return [request["features"]]

    def predict(self, x):
        # None becomes NaN, which the graph imputes.
        matrix = np.array([[row[name] for name in NAMES] for row in x], dtype=np.float32)
        return self.session.run(None, {"features": matrix})[0].tolist()

    def predictions(self, output):
        timestamp = datetime.now(UTC).isoformat()
        return [
            {
                "prediction": (index := int(second > first)),
                "label": LABELS[index],
                "probabilities": {"class_0": first, "class_1": second},
                "model_version": VERSION,
                "timestamp": timestamp,
            }
            for first, second in output
        ]

    def encode_response(self, output):
        return self.predictions(output)[0]


class Batch(One):
    def decode_request(self, request):
        return request["samples"]

    def encode_response(self, output):
        predictions = self.predictions(output)
        return {
            "predictions": predictions,
            "total_samples": len(predictions),
            "model_version": VERSION,
        }


if __name__ == "__main__":
    apis = [One(api_path="/predict"), Batch(api_path="/predict/batch")]
    server = litserve.LitServer(
        apis, accelerator="cpu", workers_per_device=2, healthcheck_path="/health/ready"
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
