"""A network with a state, which is answered, and which the caller sends with the next request."""

import numpy as np
import torch
from serving import ask, lantern, serve
from sklearn.datasets import load_digits
from torch import nn


class Reader(nn.Module):
    """Reads an image line by line, and says after each which digit it seems to be."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.output = nn.GRUCell(8, 32), nn.Linear(32, 10)

    def forward(self, line: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state = self.cell(line, state)
        return self.output(state).softmax(dim=1), state


def read(images: torch.Tensor) -> torch.Tensor:
    """Return probabilities [n, 10] of images [n, 8, 8]."""
    state = torch.zeros(len(images), 32)
    for line in images.unbind(1):
        probabilities, state = model(line, state)
    return probabilities


# Train: which digit is it?
data = load_digits()
images, target = torch.tensor(data.images, dtype=torch.float32), torch.tensor(data.target)
model = Reader()
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
for _ in range(50):
    optimizer.zero_grad()
    nn.functional.nll_loss(read(images).clamp(1e-6).log(), target).backward()
    optimizer.step()

# Export, with names for the inputs and outputs.
example = (images[:1, 0], torch.zeros(1, 32))
names = {"input_names": ["line", "state"], "output_names": ["probabilities", "new_state"]}
torch.onnx.export(model.eval(), example, "model.onnx", **names)
np.savez("samples.npz", line=example[0].numpy(), state=example[1].numpy())

# Pack, serve and ask, eight times for an image.
lantern(
    "model pack model.onnx --task tensors --outputs new_state=state --samples samples.npz "
    "--out models/reader/1 --replace"
)
with serve("models/reader") as url:
    state = {"name": "state", "datatype": "FP32", "shape": [1, 32], "data": [0.0] * 32}
    for pixels in data.images[5].tolist():
        line = {"name": "line", "datatype": "FP32", "shape": [1, 8], "data": pixels}
        answer = ask(f"{url}/v2/models/reader/infer", {"inputs": [line, state]})
        probabilities, new_state = answer["outputs"]
        state["data"] = new_state["data"]
        print(int(np.argmax(probabilities["data"])), end=" ", flush=True)

# The last answer is that of torch.
np.testing.assert_allclose(probabilities["data"], read(images[5:6])[0].tolist(), atol=1e-5)
