"""A classifier of LightGBM, whose classes have names."""

from pathlib import Path

import numpy as np
from lightgbm import LGBMClassifier
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from serving import ask, lantern, serve
from sklearn.datasets import load_wine

# Train: which of three growers made a wine?
data = load_wine(as_frame=True)
table = data.data.astype("float32")
growers = np.array(["Rossi", "Bianchi", "Verdi"])[data.target]
model = LGBMClassifier(n_estimators=20, verbose=-1).fit(table, growers)

# Export. The graph has the names of the classes, and the header of the samples those of the
# columns, so there is nothing to describe.
columns = FloatTensorType([None, len(table.columns)])
graph = convert_lightgbm(model, initial_types=[("features", columns)])
Path("model.onnx").write_bytes(graph.SerializeToString())
table.to_csv("samples.csv", index=False)

# Pack, serve and ask.
lantern(
    "model pack model.onnx --task classification --samples samples.csv --out models/wines/1 "
    "--replace"
)
rows = table[::9]
with serve("models/wines") as url:
    answer = ask(f"{url}/predict/batch", {"samples": rows.to_dict("records")})

# The answers are those of LightGBM.
found = answer["predictions"]
assert [each["label"] for each in found] == list(model.predict(rows))
probabilities = [list(each["probabilities"].values()) for each in found]
np.testing.assert_allclose(probabilities, model.predict_proba(rows), atol=1e-5)
print(found[0])
