"""A model of MLServer's that runs an ONNX graph, as its documentation has custom runtimes.

``model-settings.json`` of each model names this class, and the file.
"""

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = {each.name: NumpyCodec.decode_input(each) for each in payload.inputs}
        outputs = [
            NumpyCodec.encode_output(name, array)
            for name, array in zip(self._names, self._session.run(self._names, inputs), strict=True)
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
