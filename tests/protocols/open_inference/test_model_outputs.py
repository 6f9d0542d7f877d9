"""The outputs of a model in the protocol: what an answer costs, and which classes are largest."""

from __future__ import annotations

import numpy as np
import pytest

from app.model.model import Model
from app.protocols.open_inference.model_outputs import ModelOutputs
from app.protocols.open_inference.request import RequestedOutput
from app.registry.loading import ModelSource, load_model
from tests import task_models

CLASSES = ("no", "yes", "a name of thirty two characters.")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("scores") / "scores" / "1"
    return load_model(ModelSource(task_models.scores(path, CLASSES)))


def test_long_names_of_classes_count_as_many_values(model: Model) -> None:
    def per_row(classes: int) -> int:
        return ModelOutputs(model).values_per_row([RequestedOutput("scores", (), classes=classes)])

    assert ModelOutputs(model).values_per_row([]) == len(CLASSES)
    assert ModelOutputs(model).values_per_row([RequestedOutput("label", ())]) == len(CLASSES)
    assert per_row(1) == len(CLASSES) + 5
    assert per_row(99) == len(CLASSES) * 6


def test_the_largest_scores_come_first(model: Model) -> None:
    outputs = ModelOutputs(model)
    run = model.run({"features": np.array([[1, 149], [1, 9]], dtype=np.float32)})
    requested = [RequestedOutput("scores", (), classes=2)]
    found = outputs.of_predictions(run, model.predictions_of(run), requested)
    (written,) = outputs.write(requested, found, 100)
    assert written.array.tolist() == [
        [b"100.0:2:a name of thirty two characters.", b"50.0:1:yes"],
        [b"-0.0:0:no", b"-90.0:1:yes"],
    ]
