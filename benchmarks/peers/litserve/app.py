"""LitServe with two workers, which takes the body as it is sent: ``python app.py PORT``."""

import io
import os
import sys
from typing import Annotated

import litserve
from fastapi import Body
from PIL import Image
from steps import Classifier


class Api(litserve.LitAPI):
    def setup(self, device):
        self.classifier = Classifier()


class Pictures(Api):
    def decode_request(self, request: Annotated[bytes, Body(media_type="image/*")]):
        return Image.open(io.BytesIO(request))

    def predict(self, x):
        return self.classifier.answer(x)

    def encode_response(self, output):
        return output


class Sentences(Api):
    def decode_request(self, request):
        return request["data"]

    def predict(self, x):
        return self.classifier.answer(x)

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    api = Sentences() if os.environ["CASE"] == "sentences" else Pictures()
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=2)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
