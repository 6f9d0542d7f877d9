"""A classifier of CatBoost, which writes ONNX itself."""

import numpy as np
from catboost import CatBoostClassifier
from serving import ask, lantern, serve
from sklearn.datasets import load_iris

# Train: which iris is it?
data = load_iris(as_frame=True)
table = data.data.astype("float32")
species = data.target_names[data.target]
model = CatBoostClassifier(iterations=50, verbose=False, allow_writing_files=False)
model.fit(table, species)

# Export. The graph has the names of the classes, and the header of the samples those of the
# columns, so there is nothing to describe.
model.save_model("model.onnx", format="onnx")
table.to_csv("samples.csv", index=False)

# Pack, serve and ask.
lantern(
    "model pack model.onnx --task classification --samples samples.csv --out models/irises/1 "
    "--replace"
)
rows = table[::9]
with serve("models/irises") as url:
    answer = ask(f"{url}/predict/batch", {"samples": rows.to_dict("records")})

# The answers are those of CatBoost.
found = answer["predictions"]
assert [each["label"] for each in found] == list(model.predict(rows)[:, 0])
probabilities = [list(each["probabilities"].values()) for each in found]
np.testing.assert_allclose(probabilities, model.predict_proba(rows), atol=1e-5)
print(found[0])
