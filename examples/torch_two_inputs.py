"""A torch network with two inputs: categories, which it embeds, and numbers."""

from pathlib import Path

import numpy as np
import torch
from serving import ask, lantern, serve
from sklearn.datasets import load_diabetes
from torch import nn

FEATURES = """
features = [
    {name = "sex", tensor = "categories", categories = ["female", "male"]},
    {name = "age", tensor = "categories", categories = ["young", "middle", "senior"]},
    {name = "bmi", tensor = "numbers", unit = "kg/m²"},
    {name = "bp", tensor = "numbers", unit = "mmHg"},
]
"""


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sex, self.age, self.scale = nn.Embedding(2, 2), nn.Embedding(3, 2), nn.BatchNorm1d(2)
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, categories: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        embedded = [self.sex(categories[:, 0]), self.age(categories[:, 1])]
        return self.layers(torch.cat([*embedded, self.scale(numbers)], dim=1))


# Train: does the diabetes of a patient progress faster than that of most?
data = load_diabetes(as_frame=True, scaled=False).frame
table = data[["bmi", "bp"]].astype("float32")
codes = np.stack([data["sex"] - 1, np.digitize(data["age"], [40, 60])], axis=1).astype("int64")
inputs = (torch.tensor(codes), torch.tensor(table.to_numpy()))
table["sex"] = np.array(["female", "male"])[codes[:, 0]]
table["age"] = np.array(["young", "middle", "senior"])[codes[:, 1]]
target = torch.tensor((data["target"] > data["target"].median()).to_numpy()).long()
model = Network()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(100):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(*inputs), target).backward()
    optimizer.step()

# Export for any number of rows, and say which feature is a column of which input.
rows = {0: torch.export.Dim("rows")}
example = tuple(tensor[:2] for tensor in inputs)
program = torch.export.export(model.eval(), example, dynamic_shapes=(rows, rows))
torch.export.save(program, "model.pt2")
table.to_csv("samples.csv", index=False)
Path("features.toml").write_text(FEATURES, encoding="utf-8")

# Pack, serve and ask.
lantern(
    "model pack model.pt2 --task classification --outputs logits --classes slower,faster "
    "--features features.toml --samples samples.csv --out models/progression/1 --replace"
)
with serve("models/progression") as url:
    answer = ask(f"{url}/predict/batch", {"samples": table[:20].to_dict("records")})

# The answers are those of torch.
found = [list(each["probabilities"].values()) for each in answer["predictions"]]
np.testing.assert_allclose(found, model(*inputs).softmax(dim=1)[:20].tolist(), atol=1e-5)
print(answer["predictions"][0])
