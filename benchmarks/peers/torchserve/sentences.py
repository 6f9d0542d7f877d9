"""A handler for sentences, as TorchServe's examples have them: tokenizer, network, softmax."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from ts.torch_handler.base_handler import BaseHandler

LONGEST = 32


class Sentences(BaseHandler):
    def initialize(self, context):
        super().initialize(context)
        directory = Path(context.system_properties.get("model_dir"))
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.tokenizer.enable_truncation(LONGEST)
        self.tokenizer.enable_padding()

    def preprocess(self, data):
        texts = [(row.get("data") or row.get("body"))["data"] for row in data]
        encoded = self.tokenizer.encode_batch(texts)
        ids = torch.tensor([each.ids for each in encoded])
        return ids, torch.tensor([each.attention_mask for each in encoded])

    def inference(self, data):
        with torch.inference_mode():
            return self.model(*data)

    def postprocess(self, output):
        values, indices = torch.softmax(output, 1).sort(dim=1, descending=True)
        return [
            {self.mapping[str(i)]: p for i, p in zip(row, probabilities, strict=True)}
            for row, probabilities in zip(indices.tolist(), values.tolist(), strict=True)
        ]
