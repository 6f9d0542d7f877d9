"""The calls of Triton's ``simple_http_*`` examples, in their order, against the same models.

What those do with shared memory, with sequences, and with loading a model by name is not served:
here is asked that each is refused with a sentence. The examples themselves are in Triton's
repository, and in no package.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.http as blocking
import tritonclient.http.aio as asynchronous
from tritonclient.utils import InferenceServerException

URL = sys.argv[1].removeprefix("http://")
PARAMETERS = {"test_1": 1, "test_2": 2}
NUMBERS = np.arange(16, dtype=np.int32).reshape(1, 16)
MINUS_ONES = np.full((1, 16), -1, dtype=np.int32)
ONES = np.ones((1, 16), dtype=np.int32)
MODELS = ["campaign-response", "simple", "simple_identity", "simple_string"]


def tensor(kind: Any, name: str, array: Any, *, is_binary: bool) -> Any:
    datatype = "INT32" if array.dtype == np.int32 else "BYTES"
    found = kind.InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array, binary_data=is_binary)
    return found


def pair(kind: Any, first: Any, second: Any, forms: tuple[bool, bool]) -> list[Any]:
    """Return the two inputs, each in JSON or in binary."""
    return [
        tensor(kind, f"INPUT{index}", array, is_binary=is_binary)
        for index, (array, is_binary) in enumerate(zip((first, second), forms, strict=True))
    ]


def outputs(kind: Any, *forms: bool) -> list[Any]:
    return [
        kind.InferRequestedOutput(f"OUTPUT{index}", binary_data=is_binary)
        for index, is_binary in enumerate(forms)
    ]


def check(result: Any, first: Any, second: Any) -> None:
    assert np.array_equal(result.as_numpy("OUTPUT0"), first + second)
    assert np.array_equal(result.as_numpy("OUTPUT1"), first - second)


def refusal(call: Callable[..., object], *arguments: Any, **options: Any) -> str:
    """Return the sentence with which a call is refused."""
    try:
        call(*arguments, **options)
    except InferenceServerException as error:
        return error.message()
    raise AssertionError("not refused")


def infer(client: Any) -> None:
    for algorithm in (None, "gzip", "deflate"):
        compressed = {
            "request_compression_algorithm": algorithm,
            "response_compression_algorithm": algorithm,
        }
        inputs = pair(blocking, NUMBERS, MINUS_ONES, (False, True))
        result = client.infer(
            "simple",
            inputs,
            outputs=outputs(blocking, True, False),
            query_params=PARAMETERS,
            headers={"my": "header"},
            **compressed,
        )
        check(result, NUMBERS, MINUS_ONES)
        assert len(client.get_inference_statistics("simple")["model_stats"]) == 1
        result = client.infer("simple", inputs, query_params=PARAMETERS, **compressed)
        check(result, NUMBERS, MINUS_ONES)
    assert refusal(client.infer, "wrong", inputs).startswith("Request for unknown model")


def infer_asynchronously(client: Any) -> None:
    inputs = pair(blocking, NUMBERS, ONES, (True, True))
    requests = [
        client.async_infer("simple", inputs, outputs=outputs(blocking, True, True))
        for _ in range(2)
    ]
    for request in requests:
        check(request.get_result(), NUMBERS, ONES)


async def infer_with_asyncio() -> None:
    async with asynchronous.InferenceServerClient(URL) as client:
        inputs = pair(asynchronous, NUMBERS, MINUS_ONES, (False, True))
        wanted = outputs(asynchronous, True, False)
        result = await client.infer("simple", inputs, outputs=wanted, query_params=PARAMETERS)
        assert len((await client.get_inference_statistics("simple"))["model_stats"]) == 1
        check(result, NUMBERS, MINUS_ONES)
        check(await client.infer("simple", inputs), NUMBERS, MINUS_ONES)
        try:
            await client.infer("wrong", inputs)
        except InferenceServerException as error:
            assert error.message().startswith("Request for unknown model")
        else:
            raise AssertionError("not refused")


def infer_strings(client: Any) -> None:
    first, second = (array.astype(str).astype(object) for array in (NUMBERS, ONES))
    result = client.infer(
        "simple_string",
        pair(blocking, first, second, (True, False)),
        outputs=outputs(blocking, True, False),
    )
    # Of what came in binary it makes bytes, and of JSON str.
    for name, expected in (("OUTPUT0", NUMBERS + ONES), ("OUTPUT1", NUMBERS - ONES)):
        assert [int(value) for value in result.as_numpy(name).reshape(-1)] == [*expected.flat]
    for value in (b"he\x00llo", b"\x00\x01\x02\x03"):
        sent = np.full((1, 16), value, dtype=object)
        for is_binary in (True, False):
            result = client.infer(
                "simple_identity",
                [tensor(blocking, "INPUT0", sent, is_binary=is_binary)],
                outputs=outputs(blocking, is_binary),
            )
            found = result.as_numpy("OUTPUT0").reshape(-1)
            assert [each if is_binary else each.encode() for each in found] == [value] * 16


def health_and_metadata(client: Any) -> None:
    assert client.is_server_live(query_params=PARAMETERS)
    assert client.is_server_ready()
    assert client.is_model_ready("simple")
    assert client.get_server_metadata()["name"] == "lantern"
    metadata = client.get_model_metadata("simple", query_params=PARAMETERS)
    assert metadata["name"] == "simple"
    assert metadata["inputs"] == [
        {"name": f"INPUT{index}", "datatype": "INT32", "shape": [-1, 16]} for index in range(2)
    ]
    assert "Request for unknown model" in refusal(client.get_model_metadata, "wrong")


def what_is_not_served(client: Any) -> None:
    """Ask for the index, which is served, and for what is not: each is refused, and told."""
    assert sorted(each["name"] for each in client.get_model_repository_index()) == MODELS
    for call in (client.load_model, client.unload_model):
        assert refusal(call, "simple")
    assert client.is_model_ready("simple")
    assert refusal(client.register_system_shared_memory, "input_data", "/input_simple", 128)
    shared = blocking.InferInput("INPUT0", [1, 16], "INT32")
    shared.set_shared_memory("input_data", 64)
    other = tensor(blocking, "INPUT1", ONES, is_binary=True)
    assert "shared memory" in refusal(client.infer, "simple", [shared, other])
    inputs = pair(blocking, NUMBERS, ONES, (True, True))
    started = {"sequence_id": 7, "sequence_start": True}
    assert "sequence" in refusal(client.infer, "simple", inputs, **started)


with blocking.InferenceServerClient(URL, concurrency=2) as opened:
    for part in (
        infer,
        infer_asynchronously,
        infer_strings,
        health_and_metadata,
        what_is_not_served,
    ):
        part(opened)
asyncio.run(infer_with_asyncio())
