"""A convolutional network over images, which are sent as bytes by the Open Inference Protocol."""

import json

import numpy as np
import requests
import torch
from serving import lantern, serve
from sklearn.datasets import load_digits
from torch import nn

# Train: which digit is it?
data = load_digits()
images = torch.tensor(data.images[:, None], dtype=torch.float32)  # (n, channels, height, width)
target = torch.tensor(data.target)
model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(50):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images), target).backward()
    optimizer.step()

# Export for any number of images, with names for the input and the output.
torch.onnx.export(
    model.eval(),
    (images[:2],),
    "model.onnx",
    input_names=["images"],
    output_names=["logits"],
    dynamic_shapes=({0: torch.export.Dim("rows")},),
)
np.savez("samples.npz", images=images[:20].numpy())

# Pack and serve.
lantern(
    "model pack model.onnx --task classification --outputs logits --classes 0,1,2,3,4,5,6,7,8,9 "
    "--samples samples.npz --out models/digits/1 --replace"
)
with serve("models/digits") as url:
    # Ask: the body is JSON, then the bytes of the images; the header says where those begin.
    asked = images[:20].numpy()
    tensor = {"name": "images", "datatype": "FP32", "shape": asked.shape}
    tensor["parameters"] = {"binary_data_size": asked.nbytes}
    head = json.dumps({"inputs": [tensor], "outputs": [{"name": "probabilities"}]}).encode()
    head += b" " * (-len(head) % 8)  # aligned, the images are read where they are received
    response = requests.post(
        f"{url}/v2/models/digits/infer",
        data=head + asked.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
        timeout=60,
    )
    response.raise_for_status()

# The answers are those of torch.
(output,) = response.json()["outputs"]
probabilities = np.array(output["data"]).reshape(output["shape"])
expected = model(images[:20]).softmax(dim=1).detach().numpy()
np.testing.assert_allclose(probabilities, expected, atol=1e-5)
print("Digits:", *probabilities.argmax(axis=1))
