"""The Open Inference Protocol: what a request costs Lantern, MLServer, and KServe's own server.

All of them run the same two ONNX files in ONNX Runtime: the bundled model, and a graph that takes
an image and returns six of its values, so that what is measured is the way of a tensor from the
socket to the runtime.
"""

from __future__ import annotations

import http.client
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import payloads
from benchmarks.bench import Bench
from benchmarks.figures import interleaved
from benchmarks.load import Load, batches, wrk
from benchmarks.peers import make_environment
from benchmarks.servers import (
    LANTERN,
    PEERS,
    ROOT,
    VENVS,
    BenchmarkError,
    Program,
    Server,
    all_running,
    free_port,
    lantern,
)

KSERVE, MLSERVER = "KServe", "MLServer"
ROW, ROWS = "inference, one row", "inference, 1,000 rows"
IMAGE, BINARY_IMAGE = "inference, an image in JSON", "inference, an image in binary"
RUNTIME = "ONNX Runtime"
ABOVE_RUNTIME = f"{LANTERN}, above {RUNTIME}"
SHAPE = (1, 3, 224, 224)
_READY = "/v2/health/ready"
_CLASSIFIER, _IMAGES = payloads.MODEL, "images"
_TOLERANCE = 1e-5
_RUNS = 2_000
_FEW = 2
"""Connections that send images; each answer is awaited, or one of very many at most is lost."""
_ID = "1"
"""KServe answers a request without an id with an error."""
_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Request:
    """A request for inference with ``model``: a JSON body, or one with a tensor after it."""

    model: str
    body: bytes
    json_bytes: int | None = None

    @property
    def path(self) -> str:
        return f"/v2/models/{self.model}/infer"

    @property
    def headers(self) -> dict[str, str]:
        if self.json_bytes is None:
            return {"Content-Type": "application/json"}
        return {"Content-Type": "application/octet-stream", _LENGTH: str(self.json_bytes)}


def inference(bench: Bench) -> None:
    """Measure requests of the Open Inference Protocol, beside MLServer and KServe's server."""
    for name in ("mlserver", "kserve"):
        make_environment(VENVS / name, PEERS / name / "requirements.txt")
    files = {
        _CLASSIFIER: payloads.BUNDLE / "model.onnx",
        _IMAGES: _write_graph(bench.directory / "images.onnx"),
    }
    programs = [
        _lantern(bench.directory, files[_IMAGES]),
        _mlserver(bench.directory / "mlserver", files),
        _kserve(files),
    ]
    image = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    rows = payloads.samples(1_000, nulls=0)
    row, image_in_json = _classify(rows[:1]), _in_json(_IMAGES, "image", image)
    in_binary = _in_binary(image)
    with all_running(programs, bench.directory) as servers:
        _check(servers, [row, _classify(rows[:40]), image_in_json])
        _check([each for each in servers if each.name != MLSERVER], [in_binary])
        lines = bench.directory / "inference.jsonl"
        lines.write_bytes(b"\n".join(_classify([each]).body for each in rows) + b"\n")
        for server in interleaved(servers, bench.rounds):
            bench.slot(ROW, server, lambda s, seconds: wrk(s, row.path, seconds, bodies=lines))
        for part, sent in ((ROWS, _classify(rows)), (IMAGE, image_in_json)):
            for server in interleaved(servers, bench.rounds):
                bench.slot(part, server, partial(_send, sent))
        _images_in_binary(bench, servers, in_binary, files[_IMAGES], image)


def _images_in_binary(
    bench: Bench, servers: list[Server], request: Request, graph: Path, image: Any
) -> None:
    """Measure the image in binary, which MLServer doesn't take over HTTP, and the runtime alone."""
    path = bench.directory / "image.bin"
    path.write_bytes(request.body)

    def load(server: Server, seconds: float) -> Load:
        return wrk(
            server,
            request.path,
            seconds,
            whole=[path],
            headers=request.headers,
            connections=_FEW,
        )

    run = _runner(graph, image)
    for server in interleaved([each for each in servers if each.name != MLSERVER], bench.rounds):
        bench.slot(BINARY_IMAGE, server, load)
        if server.name == LANTERN:
            alone = run()
            bench.record(BINARY_IMAGE, RUNTIME, cpu_us=alone)
            above = bench.figures[BINARY_IMAGE][LANTERN]["cpu_us"][-1] - alone
            bench.record(BINARY_IMAGE, ABOVE_RUNTIME, above_us=above)


def _send(request: Request, server: Server, seconds: float) -> Load:
    return batches(server, request.path, seconds, [request.body])


def _runner(graph: Path, image: Any) -> Callable[[], float]:
    """Return what measures a run of the graph in this process: its processor time in µs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run() -> float:
        began = time.process_time()
        for _ in range(_RUNS):
            session.run(None, {"image": image})
        return (time.process_time() - began) * 1e6 / _RUNS

    return run


def _write_graph(path: Path) -> Path:
    """Write a graph that takes images, and returns the first two values of each channel."""
    import onnx
    from onnx import TensorProto, helper

    limits = (("starts", [0, 0, 0, 0]), ("ends", [2**31, 3, 1, 2]))
    graph = helper.make_graph(
        [helper.make_node("Slice", ["image", "starts", "ends"], ["corner"])],
        "images",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", *SHAPE[1:]])],
        [helper.make_tensor_value_info("corner", TensorProto.FLOAT, ["n", 3, 1, 2])],
        [helper.make_tensor(name, TensorProto.INT64, [4], values) for name, values in limits],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def _lantern(directory: Path, graph: Path) -> Program:
    samples = directory / "image.npz"
    np.savez(samples, image=np.zeros(SHAPE, dtype=np.float32))
    packed = directory / "models" / _IMAGES
    command: list[str | Path] = [sys.executable, "-m", "app", "model", "pack", graph]
    command += ["--task", "tensors"]
    command += ["--samples", samples, "--out", packed / "1"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    settings = {
        f"LANTERN_MODELS__{_CLASSIFIER.upper()}": str(payloads.BUNDLE.parent),
        f"LANTERN_MODELS__{_IMAGES.upper()}": str(packed),
    }
    return lantern(settings=settings)


def _mlserver(directory: Path, files: dict[str, Path]) -> Program:
    """Describe MLServer as users start it: with its metrics, and a process for inference."""
    for name, path in files.items():
        (directory / name).mkdir(parents=True)
        document = {
            "name": name,
            "implementation": "app.OnnxModel",
            "parameters": {"uri": str(path)},
        }
        (directory / name / "model-settings.json").write_text(
            json.dumps(document), encoding="utf-8"
        )
    ports = {"grpc_port": 0, "metrics_port": free_port()}
    (directory / "settings.json").write_text(json.dumps(ports), encoding="utf-8")
    settings = {"MLSERVER_HTTP_PORT": "{port}", "PYTHONPATH": str(PEERS / "mlserver")}
    executable = VENVS / "mlserver" / "bin" / "mlserver"
    return Program(MLSERVER, executable, ("start", str(directory)), directory, settings, _READY)


def _kserve(files: dict[str, Path]) -> Program:
    arguments = ("app.py", "{port}", *(f"{name}={path}" for name, path in files.items()))
    executable = VENVS / "kserve" / "bin" / "python"
    return Program(KSERVE, executable, arguments, PEERS / "kserve", ready=_READY)


def _classify(rows: list[payloads.Sample]) -> Request:
    return Request(_CLASSIFIER, payloads.inference(rows, _ID))


def _in_json(model: str, name: str, array: Any) -> Request:
    tensor = _tensor(name, array) | {"data": array.reshape(-1).tolist()}
    document = {"id": _ID, "inputs": [tensor]}
    return Request(model, json.dumps(document, separators=(",", ":")).encode())


def _in_binary(image: Any) -> Request:
    tensor = _tensor("image", image) | {"parameters": {"binary_data_size": image.nbytes}}
    document = {
        "id": _ID,
        "inputs": [tensor],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    return Request(_IMAGES, text + image.tobytes(), len(text))


def _tensor(name: str, array: Any) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": list(array.shape)}


def _check(servers: list[Server], requests: list[Request]) -> None:
    """Raise `BenchmarkError` unless all servers answer with the same values."""
    for request in requests:
        answers = [_answer(server, request) for server in servers]
        for server, answer in zip(servers, answers, strict=True):
            if len(answer) != len(answers[0]) or not all(
                math.isclose(a, b, abs_tol=_TOLERANCE)
                for a, b in zip(answer, answers[0], strict=True)
            ):
                raise BenchmarkError(f"{server.name} answers {request.path} with other values.")


def _answer(server: Server, request: Request) -> list[float]:
    """Return the values of the one output."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("POST", request.path, request.body, request.headers)
        response = connection.getresponse()
        content = response.read()
        json_bytes = int(response.getheader(_LENGTH) or len(content))
    if response.status != 200:
        raise BenchmarkError(f"{server.name} answers {request.path} with {content[:300]!r}")
    [output] = json.loads(content[:json_bytes])["outputs"]
    values = output.get("data")
    if values is None:
        values = np.frombuffer(content[json_bytes:], dtype="<f4")
    found: list[float] = np.array(values).reshape(-1).tolist()
    return found
