"""Versions of the bundled model to serve, requests for them, and what each has to answer.

The answers are computed here, by ONNX Runtime on the bundle's graph, and not asked of a server.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson
from numpy.typing import NDArray

from benchmarks import payloads
from trials.load import Item

SINGLE, BATCH = "/predict", "/predict/batch"
INFER = "/v2/models/campaign-response/infer"
SURENESS = {"1": 1.0, "2": 1.05, "3": 0.9}
"""The versions, and by what the logits of the bundled network are multiplied in each."""


def pack_versions(directory: Path) -> Path:
    """Put three versions that answer differently into a model's directory, and give that."""
    import torch

    from app.model.bundle import open_bundle
    from app.model.network import build_network, read_checkpoint
    from app.model.signature import FEATURES
    from app.packing.network import pack

    models = directory / payloads.BUNDLE.parent.name
    bundle = open_bundle(payloads.BUNDLE)
    manifest, golden = bundle.manifest, bundle.read_golden()
    assert golden is not None
    for version, sureness in SURENESS.items():
        if sureness == 1:
            shutil.copytree(payloads.BUNDLE, models / version)
            continue
        network = build_network(read_checkpoint(payloads.BUNDLE / "model.pt"))
        last = network.classifier[-1]
        for name, tensor in list(last.named_parameters()):
            setattr(last, name, torch.nn.Parameter(tensor * sureness, requires_grad=False))
        pack(
            network,
            models / version,
            name=manifest.name,
            version=version,
            features=list(manifest.features),
            classes=manifest.classes,
            golden_samples=golden.inputs[FEATURES],
            training=manifest.training,
        )
    return models


class ExpectedAnswers:
    """Knows what every version in ``models`` answers."""

    def __init__(self, models: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._sessions: dict[str, Any] = {
            path.parent.name: onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
            for path in sorted(models.glob("*/model.onnx"))
        }

    def single(self, sample: payloads.Sample) -> Item:
        """Return a request for one prediction."""
        answers = {version: self._run(version, [sample]) for version in self._sessions}
        return Item(
            SINGLE,
            post(SINGLE, payloads.single(sample)),
            {version: rows.tolist() for version, rows in answers.items()},
            {version: _beginning(version, rows[0]) for version, rows in answers.items()},
        )

    def batch(self, samples: Sequence[payloads.Sample]) -> Item:
        """Return a request for many."""
        return Item(
            BATCH,
            post(BATCH, payloads.batch(list(samples))),
            {version: self._run(version, samples).tolist() for version in self._sessions},
        )

    def _run(self, version: str, samples: Sequence[payloads.Sample]) -> NDArray[np.float32]:
        session = self._sessions[version]
        rows = [[np.nan if v is None else v for v in sample.values()] for sample in samples]
        matrix = np.array(rows, dtype=np.float32)
        answer: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: matrix})[0]
        return answer


def post(path: str, body: bytes, *fields: str) -> bytes:
    """Write a request whole, with ``fields`` in its head beside what it needs."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *fields,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _beginning(version: str, probabilities: NDArray[np.float32]) -> bytes:
    """Write an answer up to its timestamp, in the order and with the digits that Lantern gives."""
    index = int(probabilities.argmax())
    document = {
        "prediction": index,
        "label": payloads.classes()[index],
        "probabilities": {f"class_{n}": value for n, value in enumerate(probabilities)},
        "model_version": version,
        "timestamp": "",
    }
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)[:-2]
