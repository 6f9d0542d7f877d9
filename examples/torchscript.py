"""A TorchScript file, as older services have them."""

from pathlib import Path

import numpy as np
import torch
from serving import ask, lantern, serve
from sklearn.datasets import load_wine
from torch import nn

# Train, with the scaling of the features in the model.
data = load_wine(as_frame=True)
table = data.data.astype("float32")
inputs, target = torch.tensor(table.to_numpy()), torch.tensor(data.target.to_numpy())
model = nn.Sequential(nn.BatchNorm1d(13), nn.Linear(13, 16), nn.ReLU(), nn.Linear(16, 3))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(100):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(inputs), target).backward()
    optimizer.step()

# Export, and name the features: the file doesn't say how many there are.
torch.jit.script(model.eval()).save("model.pt")
table.to_csv("samples.csv", index=False)
with Path("features.toml").open("w", encoding="utf-8") as file:
    file.write('classes = ["Rossi", "Bianchi", "Verdi"]\n')
    for name in table.columns:
        file.write(f'[[features]]\nname = "{name}"\n')

# Pack, serve and ask. Reading the file runs the program in it, so it has to be allowed.
lantern(
    "model pack model.pt --allow-code --task classification --outputs logits "
    "--features features.toml --samples samples.csv --out models/wines/1 --replace"
)
with serve("models/wines") as url:
    samples = table[:20].to_dict("records")
    found = ask(f"{url}/predict/batch", {"samples": samples})["predictions"]

# The answers are those of torch.
probabilities = [list(each["probabilities"].values()) for each in found]
expected = model(inputs[:20]).softmax(dim=1).tolist()
np.testing.assert_allclose(probabilities, expected, atol=1e-5)
print(found[0])
