"""A scikit-learn pipeline over a table with strings: each column of the table is an input."""

from pathlib import Path

import numpy as np
import pandas as pd
from serving import ask, lantern, serve
from skl2onnx import to_onnx
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

FEATURES = """
features = [
    {name = "bmi", description = "Body mass index.", unit = "kg/m²"},
    {name = "bp", description = "Mean blood pressure.", unit = "mmHg"},
    {name = "s5", description = "Logarithm of the triglycerides."},
    {name = "sex", kind = "category", categories = ["female", "male"]},
    {name = "age", kind = "category", categories = ["young", "middle", "senior"], unknown = "pass"},
]
"""

# Train: does the diabetes of a patient progress faster than that of most?
data = load_diabetes(as_frame=True, scaled=False).frame
table = data[["bmi", "bp", "s5"]].astype("float32")
table["sex"] = np.where(data["sex"] == 1, "female", "male").astype(object)
table["age"] = pd.cut(data["age"], [0, 40, 60, 99], labels=["young", "middle", "senior"])
table["age"] = table["age"].astype(object)
outcome = np.where(data["target"] > data["target"].median(), "faster", "slower")
encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
model = make_pipeline(
    make_column_transformer((encoder, ["sex", "age"]), remainder="passthrough"),
    HistGradientBoostingClassifier(max_iter=20, random_state=0),
).fit(table, outcome)

# Export, as skl2onnx does it unasked, and describe what the columns hold.
Path("model.onnx").write_bytes(to_onnx(model, table[:1]).SerializeToString())
table.to_csv("samples.csv", index=False)
Path("features.toml").write_text(FEATURES, encoding="utf-8")

# Pack, serve and ask.
lantern(
    "model pack model.onnx --task classification --features features.toml --samples samples.csv "
    "--out models/progression/1 --replace"
)
rows = table[:20]
with serve("models/progression") as url:
    answer = ask(f"{url}/predict/batch", {"samples": rows.to_dict("records")})

# The answers are those of scikit-learn.
found = answer["predictions"]
assert [each["label"] for each in found] == list(model.predict(rows))
probabilities = [list(each["probabilities"].values()) for each in found]
np.testing.assert_allclose(probabilities, model.predict_proba(rows), atol=1e-6)
print(found[0])
