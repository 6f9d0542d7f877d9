"""KServe's own server with models that run ONNX graphs: ``python app.py PORT NAME=FILE...``."""

import sys

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class OnnxModel(Model):
    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]
        self.ready = True

    def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
        inputs = {each.name: each.as_numpy() for each in payload.inputs}
        outputs = []
        for name, array in zip(self._names, self._session.run(self._names, inputs), strict=True):
            output = InferOutput(name, list(array.shape), "FP32")
            output.set_data_from_numpy(array, binary_data=bool(payload.use_binary_outputs))
            outputs.append(output)
        return InferResponse(
            payload.id,
            self.name,
            outputs,
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


if __name__ == "__main__":
    port, *models = sys.argv[1:]
    server = ModelServer(http_port=int(port), enable_grpc=False)
    server.start([OnnxModel(*each.split("=", 1)) for each in models])
