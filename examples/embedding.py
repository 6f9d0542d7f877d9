"""An embedding: eight numbers for an image, by which similar images are found."""

import numpy as np
import torch
from serving import ask, lantern, serve
from sklearn.datasets import load_digits
from torch import nn

# Train an autoencoder on handwritten digits; its first half is the model.
data = load_digits(as_frame=True)
table = data.data.astype("float32")
pixels = torch.tensor(table.to_numpy())
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
decoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64))
optimizer = torch.optim.Adam([*model.parameters(), *decoder.parameters()], lr=0.01)
for _ in range(100):
    optimizer.zero_grad()
    nn.functional.mse_loss(decoder(model(pixels)), pixels).backward()
    optimizer.step()

# Export for any number of rows. The header of the samples names the features.
rows = {0: torch.export.Dim("rows")}
program = torch.export.export(model.eval(), (pixels[:2],), dynamic_shapes=(rows,))
torch.export.save(program, "model.pt2")
table.to_csv("samples.csv", index=False)

# Pack, serve and ask.
lantern(
    "model pack model.pt2 --task embedding --samples samples.csv --out models/digits/1 --replace"
)
with serve("models/digits") as url:
    samples = table[:100].to_dict("records")
    found = ask(f"{url}/predict/batch", {"samples": samples})["predictions"]

# The answers are those of torch, and the nearest image shows the same digit, mostly.
embeddings = np.array([each["embedding"] for each in found])
np.testing.assert_allclose(embeddings, model(pixels[:100]).detach().numpy(), rtol=1e-4, atol=1e-4)
distances = np.linalg.norm(embeddings[:, None] - embeddings, axis=2)
np.fill_diagonal(distances, np.inf)
nearest = data.target[:100].to_numpy()[distances.argmin(axis=1)]
print(f"The nearest image shows the same digit for {(nearest == data.target[:100]).mean():.0%}.")
