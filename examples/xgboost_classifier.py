"""A classifier of XGBoost, which knows what to do with missing values."""

from pathlib import Path

import numpy as np
from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from serving import ask, lantern, serve
from sklearn.datasets import load_breast_cancer
from xgboost import XGBClassifier

# Train, with some of the measurements missing.
data = load_breast_cancer(as_frame=True)
table = data.data.astype("float32")
table.loc[::3, "mean texture"] = np.nan
model = XGBClassifier(n_estimators=20, max_depth=3).fit(table.to_numpy(), data.target)

# Export, and say which values may be missing: null in a request, an empty cell in the samples.
columns = FloatTensorType([None, len(table.columns)])
graph = convert_xgboost(model, initial_types=[("features", columns)])
Path("model.onnx").write_bytes(graph.SerializeToString())
table.to_csv("samples.csv", index=False)
with Path("features.toml").open("w", encoding="utf-8") as file:
    file.write('classes = ["malignant", "benign"]  # 0 and 1\n')
    for name in table.columns:
        file.write(f'[[features]]\nname = "{name}"\nnullable = true\n')

# Pack, serve and ask.
lantern(
    "model pack model.onnx --task classification --features features.toml --samples samples.csv "
    "--out models/tumours/1 --replace"
)
rows = table[:50]
samples = rows.astype(object).where(rows.notna(), None).to_dict("records")
with serve("models/tumours") as url:
    found = ask(f"{url}/predict/batch", {"samples": samples})["predictions"]

# The answers are those of XGBoost.
probabilities = [list(each["probabilities"].values()) for each in found]
np.testing.assert_allclose(probabilities, model.predict_proba(rows.to_numpy()), atol=1e-6)
assert [each["prediction"] for each in found] == list(model.predict(rows.to_numpy()))
print(found[0])
