"""Triton's client, synchronous and with asyncio: in JSON and in binary, compressed and not."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as blocking
import tritonclient.http.aio as asynchronous
from example import MODEL, ROWS, labels, probabilities
from tritonclient.utils import InferenceServerException

URL = sys.argv[1]
MATRIX = np.array(ROWS, dtype=np.float32)
EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "statistics"]


def tensor(kind: Any, *, is_binary: bool) -> Any:
    found = kind.InferInput("features", list(MATRIX.shape), "FP32")
    found.set_data_from_numpy(MATRIX, binary_data=is_binary)
    return found


def check(result: Any) -> None:
    """Check all outputs of an answer."""
    assert np.allclose(result.as_numpy("probabilities"), probabilities(URL), atol=1e-6)
    # Of what came in binary it makes bytes, and of JSON str.
    found = [name if isinstance(name, str) else name.decode() for name in result.as_numpy("label")]
    assert found == labels(URL)
    assert result.as_numpy("prediction").dtype == np.int64


def ways(kind: Any) -> list[dict[str, Any]]:
    """Return arguments of `infer` for each way to ask for the same."""
    found: list[dict[str, Any]] = []
    for is_binary in (False, True):
        for algorithm in (None, "gzip", "deflate"):
            options: dict[str, Any] = {
                "inputs": [tensor(kind, is_binary=is_binary)],
                "request_compression_algorithm": algorithm,
                "response_compression_algorithm": algorithm,
                "request_id": "mine",
            }
            found.append(options)
            for answers_in_binary in (False, True):
                outputs = [
                    kind.InferRequestedOutput(name, binary_data=answers_in_binary)
                    for name in ("label", "prediction", "probabilities")
                ]
                found.append(options | {"outputs": outputs})
    return found


def ask() -> None:
    with blocking.InferenceServerClient(URL.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(MODEL)
        assert client.is_model_ready(MODEL, "1")
        assert not client.is_model_ready("another")
        assert client.get_server_metadata()["extensions"] == EXTENSIONS
        metadata = client.get_model_metadata(MODEL)
        assert [output["name"] for output in metadata["outputs"]] == [
            "probabilities", "prediction", "label",
        ]  # fmt: skip
        assert client.get_model_config(MODEL)["input"][0]["dims"] == [len(ROWS[0])]
        assert client.get_model_repository_index()[0]["state"] == "READY"
        for options in ways(blocking):
            result = client.infer(MODEL, **options)
            check(result)
            assert result.get_response()["id"] == "mine"
        check(client.infer(MODEL, ways(blocking)[0]["inputs"], model_version="1"))
        check(client.async_infer(MODEL, ways(blocking)[0]["inputs"]).get_result())
        ranked = blocking.InferRequestedOutput("probabilities", class_count=1)
        top = client.infer(MODEL, ways(blocking)[0]["inputs"], outputs=[ranked])
        found = [entry[0].decode().split(":")[2] for entry in top.as_numpy("probabilities")]
        assert found == labels(URL)
        statistics = client.get_inference_statistics(MODEL)["model_stats"][0]
        assert statistics["inference_stats"]["success"]["count"] >= len(ways(blocking))
        for name, version, status in (("another", "", "404"), (MODEL, "9", "404")):
            try:
                client.infer(name, ways(blocking)[0]["inputs"], model_version=version)
            except InferenceServerException as error:
                assert error.status() == status
                assert error.message().endswith(".")
            else:
                raise AssertionError(f"{name} {version} was answered")


async def ask_without_blocking() -> None:
    async with asynchronous.InferenceServerClient(URL.removeprefix("http://")) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready(MODEL)
        assert (await client.get_server_metadata())["extensions"] == EXTENSIONS
        assert (await client.get_model_metadata(MODEL))["name"] == MODEL
        assert (await client.get_model_config(MODEL))["name"] == MODEL
        assert (await client.get_model_repository_index())[0]["name"] == MODEL
        assert (await client.get_inference_statistics())["model_stats"]
        for options in ways(asynchronous):
            check(await client.infer(MODEL, **options))
        wrong = asynchronous.InferInput("features", [1, 5], "FP32")
        wrong.set_data_from_numpy(MATRIX[:1, :5])
        try:
            await client.infer(MODEL, [wrong])
        except InferenceServerException as error:
            assert "must be [rows, 6]" in error.message()
        else:
            raise AssertionError("five columns were answered")


def run_the_example() -> None:
    """Run the program that the documentation shows."""
    page = Path(__file__).parents[2] / "docs" / "protocols.md"
    [program] = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(program.replace("127.0.0.1:8000", URL.removeprefix("http://")), {})


ask()
asyncio.run(ask_without_blocking())
run_the_example()
