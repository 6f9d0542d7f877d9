"""MLServer's types and codecs: what they encode is answered, and they decode the answer."""

from __future__ import annotations

import json
import sys
import urllib.request

import numpy as np
import pandas as pd
from example import FEATURES, MODEL, ROWS, labels, probabilities
from mlserver import types
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec, StringCodec

URL = sys.argv[1]


def call(path: str, body: bytes | None = None) -> object:
    request = urllib.request.Request(URL + path, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def infer(request: types.InferenceRequest) -> types.InferenceResponse:
    body = request.model_dump_json(exclude_none=True).encode()
    answer = call(f"/v2/models/{MODEL}/infer", body)
    return types.InferenceResponse.model_validate(answer)


def check(response: types.InferenceResponse) -> None:
    """Check all outputs of an answer, as the codecs decode them."""
    found = {output.name: output for output in response.outputs}
    values = NumpyCodec.decode_output(found["probabilities"])
    assert np.allclose(values, probabilities(URL), atol=1e-6)
    assert StringCodec.decode_output(found["label"]) == labels(URL)
    assert NumpyCodec.decode_output(found["prediction"]).dtype == np.int64


tensor = NumpyCodec.encode_input("features", np.array(ROWS, dtype=np.float32))
check(infer(types.InferenceRequest(inputs=[tensor])))
check(infer(types.InferenceRequest(id="mine", inputs=[tensor])))
request = NumpyRequestCodec.encode_request(np.array(ROWS, dtype=np.float32))
request.inputs[0].name = "features"
check(infer(request))

table = pd.DataFrame(ROWS, columns=FEATURES)
check(infer(PandasCodec.encode_request(table)))
integers = table.astype({"age": "int64", "num_purchases": "int32", "income": "float32"})
check(infer(PandasCodec.encode_request(integers)))
decoded = PandasCodec.decode_response(
    infer(
        types.InferenceRequest(
            inputs=[tensor],
            outputs=[types.RequestOutput(name="prediction"), types.RequestOutput(name="label")],
        )
    )
)
assert decoded["label"].tolist() == labels(URL)

metadata = types.MetadataModelResponse.model_validate(call(f"/v2/models/{MODEL}"))
assert [output.name for output in metadata.outputs] == ["probabilities", "prediction", "label"]
assert types.MetadataServerResponse.model_validate(call("/v2")).name == "lantern"
index = types.RepositoryIndexResponse.model_validate(call("/v2/repository/index", b""))
assert (MODEL, "READY") in [(item.name, item.state) for item in index.root]
