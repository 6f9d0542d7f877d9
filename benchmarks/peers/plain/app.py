"""The plain peer: the service that most would write first, with FastAPI, Pydantic and eager torch.

It serves the bundled checkpoint in Lantern's wire format, and knows nothing of Lantern.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI
from pydantic import BaseModel
from torch import Tensor, nn

MODEL = Path(__file__).resolve().parents[3] / "models" / "campaign-response" / "1" / "model.pt"
LABELS = ["no_response", "response"]

# Two workers on two cores: with torch's default, a thread a core in each, they would fight for
# the cores. One thread is the faster choice for this peer.
torch.set_num_threads(1)


class Impute(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("median", torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(torch.isnan(x), self.median, x)


class Clip(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("minimum", torch.zeros(width))
        self.register_buffer("maximum", torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(x, self.minimum, self.maximum)


class Log1p(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("selected", torch.zeros(width, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(self.selected, torch.log1p(torch.clamp(x, min=0.0)), x)


class Standardise(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp((x - self.mean) / self.scale, -10.0, 10.0)


class Preprocessing(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.impute = Impute(width)
        self.clip = Clip(width)
        self.log1p = Log1p(width)
        self.standardise = Standardise(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.standardise(self.log1p(self.clip(self.impute(x))))


class Network(nn.Module):
    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int) -> None:
        super().__init__()
        self.preprocessing = Preprocessing(input_dim)
        self.classifier = nn.Sequential(
            nn.Linear(input_dim, hidden_dim),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(hidden_dim, output_dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.preprocessing(x))


class Features(BaseModel):
    age: float
    income: float | None
    tenure_days: float
    num_purchases: float
    avg_transaction_value: float | None
    days_since_last_purchase: float


class PredictRequest(BaseModel):
    features: Features


class BatchRequest(BaseModel):
    samples: list[Features]


# Answers are declared, as FastAPI's tutorial teaches: they are documented, and Pydantic writes
# them in Rust. Without a return type FastAPI walks through them in Python, which takes longer.
class Prediction(BaseModel):
    prediction: int
    label: str
    probabilities: dict[str, float]
    model_version: str
    timestamp: str


class BatchResponse(BaseModel):
    predictions: list[Prediction]
    total_samples: int
    model_version: str


checkpoint = torch.load(MODEL, map_location="cpu", weights_only=True)
network = Network(checkpoint["input_dim"], checkpoint["hidden_dim"], checkpoint["output_dim"])
network.load_state_dict(checkpoint["model_state_dict"])
network.eval()
version = checkpoint["version"]

app = FastAPI()


def predict_rows(samples: list[Features]) -> list[dict[str, Any]]:
    rows = [
        [float("nan") if value is None else value for value in sample.model_dump().values()]
        for sample in samples
    ]
    with torch.no_grad():
        probabilities = torch.softmax(network(torch.tensor(rows, dtype=torch.float32)), dim=1)
    classes = probabilities.argmax(dim=1).tolist()
    timestamp = datetime.now(UTC).isoformat()
    return [
        {
            "prediction": index,
            "label": LABELS[index],
            "probabilities": {f"class_{i}": p for i, p in enumerate(row)},
            "model_version": version,
            "timestamp": timestamp,
        }
        for index, row in zip(classes, probabilities.tolist(), strict=True)
    ]


@app.post("/predict", response_model=Prediction)
def predict(request: PredictRequest) -> dict[str, Any]:
    return predict_rows([request.features])[0]


@app.post("/predict/batch", response_model=BatchResponse)
def predict_batch(request: BatchRequest) -> dict[str, Any]:
    predictions = predict_rows(request.samples)
    return {
        "predictions": predictions,
        "total_samples": len(predictions),
        "model_version": version,
    }


@app.get("/health/ready")
def ready() -> dict[str, str]:
    return {"status": "ready"}
