"""Several labels a row, none of which excludes another."""

import numpy as np
import torch
from serving import ask, lantern, serve
from sklearn.datasets import load_digits
from torch import nn

# Train: is a handwritten digit even, is it prime, is it above four?
data = load_digits(as_frame=True)
table = data.data.astype("float32")
pixels = torch.tensor(table.to_numpy())
labels = [[n % 2 == 0, n in {2, 3, 5, 7}, n > 4] for n in data.target]
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(100):
    optimizer.zero_grad()
    logits, wanted = model(pixels), torch.tensor(labels, dtype=torch.float32)
    nn.functional.binary_cross_entropy_with_logits(logits, wanted).backward()
    optimizer.step()

# Export for any number of rows. The header of the samples names the features.
rows = {0: torch.export.Dim("rows")}
program = torch.export.export(model.eval(), (pixels[:2],), dynamic_shapes=(rows,))
torch.export.save(program, "model.pt2")
table.to_csv("samples.csv", index=False)

# Pack, serve and ask. Packing adds the sigmoid, as the outputs are said to be logits.
lantern(
    "model pack model.pt2 --task multilabel --outputs logits --labels even,prime,large "
    "--samples samples.csv --out models/digits/1 --replace"
)
with serve("models/digits") as url:
    samples = table[:20].to_dict("records")
    found = ask(f"{url}/predict/batch", {"samples": samples})["predictions"]

# The answers are those of torch.
probabilities = [list(each["probabilities"].values()) for each in found]
expected = model(pixels[:20]).sigmoid().tolist()
np.testing.assert_allclose(probabilities, expected, atol=1e-5)
print(f"A {data.target[4]} is", *found[4]["labels"])
