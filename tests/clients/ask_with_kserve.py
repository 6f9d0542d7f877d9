"""KServe's InferenceRESTClient by version 2 of the protocol, in JSON and in binary."""

from __future__ import annotations

import asyncio
import sys

import httpx
import numpy as np
import pandas as pd
from example import FEATURES, MODEL, ROWS, labels, probabilities
from kserve import InferenceRESTClient, InferInput, InferRequest, InferResponse, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

URL = sys.argv[1]
MATRIX = np.array(ROWS, dtype=np.float32)


def check(response: InferResponse) -> None:
    """Check all outputs of an answer."""
    assert response.model_name == MODEL
    found = {output.name: output for output in response.outputs}
    assert np.allclose(found["probabilities"].as_numpy(), probabilities(URL), atol=1e-6)
    names = [each if isinstance(each, str) else each.decode() for each in found["label"].as_numpy()]
    assert names == labels(URL)


def tensor(*, is_binary: bool) -> InferInput:
    found = InferInput("features", list(MATRIX.shape), "FP32")
    found.set_data_from_numpy(MATRIX, binary_data=is_binary)
    return found


def columns() -> list[InferInput]:
    """Return a table as KServe's own conversion from pandas has it."""
    table = pd.DataFrame(ROWS, columns=FEATURES)
    found = []
    for name in FEATURES:
        values = table[name].to_numpy()
        column = InferInput(name, [len(values)], "FP64")
        column.set_data_from_numpy(values, binary_data=False)
        found.append(column)
    return found


async def ask() -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    assert await client.is_server_live(URL)
    assert await client.is_server_ready(URL)
    assert await client.is_model_ready(URL, MODEL)
    assert not await client.is_model_ready(URL, "another")
    for is_binary in (False, True):
        request = InferRequest(MODEL, [tensor(is_binary=is_binary)], request_id="mine")
        response = await client.infer(URL, request, model_name=MODEL)
        check(response)
        assert response.id == "mine"
        outputs = [
            RequestedOutput(name, {"binary_data": is_binary}) for name in ("label", "probabilities")
        ]
        request = InferRequest(MODEL, [tensor(is_binary=True)], request_outputs=outputs)
        check(await client.infer(URL, request, model_name=MODEL))
    check(await client.infer(URL, InferRequest(MODEL, columns()), model_name=MODEL))
    document = {"inputs": [{"name": "features", "shape": [2, 6], "datatype": "FP32", "data": ROWS}]}
    check(await client.infer(URL, document, model_name=MODEL))
    try:
        await client.infer(URL, {"inputs": []}, model_name=MODEL)
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == 400
        assert "Feature mismatch" in error.response.json()["error"]
    else:
        raise AssertionError("no inputs were answered")
    await client.close()


asyncio.run(ask())
