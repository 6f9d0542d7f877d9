"""A regression, whose answer has a name and a unit."""

from pathlib import Path

import numpy as np
from serving import ask, lantern, serve
from skl2onnx import to_onnx
from sklearn.datasets import load_wine
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

# Train: how strong is a wine, by the rest of its analysis?
table = load_wine(as_frame=True).data.astype("float32")
alcohol = table.pop("alcohol")
model = make_pipeline(StandardScaler(), Ridge()).fit(table, alcohol)

# Export, and describe what comes out.
columns = table.to_numpy()
Path("model.onnx").write_bytes(to_onnx(model, columns[:1]).SerializeToString())
table.to_csv("samples.csv", index=False)
with Path("features.toml").open("w", encoding="utf-8") as file:
    file.write('[[targets]]\nname = "alcohol"\nunit = "% vol"\n')
    for name in table.columns:
        file.write(f'[[features]]\nname = "{name}"\n')

# Pack, serve and ask.
lantern(
    "model pack model.onnx --task regression --features features.toml --samples samples.csv "
    "--out models/strength/1 --replace"
)
rows = table[:20]
with serve("models/strength") as url:
    answer = ask(f"{url}/predict/batch", {"samples": rows.to_dict("records")})

# The answers are those of scikit-learn.
found = answer["predictions"]
np.testing.assert_allclose([each["prediction"] for each in found], model.predict(rows), rtol=1e-5)
assert found[0]["values"] == {"alcohol": found[0]["prediction"]}
print(found[0])
