"""Models of every task by the Open Inference Protocol: what they take, and what they return."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from werkzeug.test import TestResponse

from app import create_app
from app.model.errors import BundleError
from app.model.features import Feature
from app.model.signature import OutputSpec, TensorSpec
from app.settings import load_settings
from tests import task_models
from tests.identity_graphs import write_identity
from tests.task_models import MIXED, MIXED_INPUTS, MIXED_SAMPLE
from tests.telemetry.test_metrics import samples

Make = Callable[..., Flask]

RANKED = [
    TensorSpec("x", "FP32", (-1, 2)),
    TensorSpec("words", "BYTES", (-1,)),
    TensorSpec("ids", "INT64", (-1,)),
]
RANKED_OUTPUTS = [
    OutputSpec("p", "FP32", (-1, 2), "probabilities"),
    OutputSpec("same words", "BYTES", (-1,)),
    OutputSpec("which", "INT64", (-1,), "label"),
]
"""A classifier whose label is an input, and which returns words beside it."""
RANKED_FEATURES = (
    Feature("a", tensor="x", column=0),
    Feature("b", tensor="x", column=1),
    Feature("words", kind="category", tensor="words", unknown="pass"),
    Feature("id", kind="integer", tensor="ids"),
)


def ranked(out: Path, features: tuple[Feature, ...] = ()) -> Path:
    more: dict[str, Any] = {"task": "classification", "classes": ("no", "yes"), "batch": True}
    return write_identity(out, RANKED, RANKED_OUTPUTS, features=features, **more)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """A client of a service with a model of each task."""
    scratch = tmp_path_factory.mktemp("tasks")
    task_models.regression(scratch / "regression" / "1")
    task_models.regression(scratch / "targets" / "1", ("price", "rent"), "FP64")
    task_models.multilabel(scratch / "multilabel" / "1")
    task_models.scores(scratch / "scores" / "1")
    task_models.embedding(scratch / "embedding" / "1", 3)
    task_models.mixed(scratch / "mixed" / "1")
    ranked(scratch / "extras" / "1", RANKED_FEATURES)
    ranked(scratch / "ranked" / "1")
    names = [each.name for each in scratch.iterdir()]
    settings = {f"LANTERN_MODELS__{name.upper()}": str(scratch / name) for name in names}
    return create_app(load_settings(settings)).test_client()


def column(name: str, datatype: str, *data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data), 1], "data": list(data)}


def rooms(*rows: tuple[float, float | None]) -> list[dict[str, Any]]:
    values = [value for row in rows for value in row]
    shape = [len(rows), 2]
    return [{"name": "features", "datatype": "FP32", "shape": shape, "data": values}]


def infer(
    client: FlaskClient, model: str, inputs: list[dict[str, Any]], *wanted: str, **parameters: Any
) -> TestResponse:
    outputs = [{"name": name, "parameters": parameters} for name in wanted]
    document = {"inputs": inputs, "outputs": outputs}
    return client.post(f"/v2/models/{model}/infer", json=document)


def answer(response: TestResponse) -> dict[str, Any]:
    assert response.status_code == 200, response.get_json()
    outputs = response.get_json()["outputs"]
    return {each["name"]: (each["datatype"], each["shape"], each["data"]) for each in outputs}


def refused(response: TestResponse, status: int = 400) -> str:
    assert response.status_code == status, response.get_json()
    error: str = response.get_json()["error"]
    return error


def test_a_regression_returns_values(client: FlaskClient) -> None:
    rows = rooms((1, 20), (2, None))
    assert answer(infer(client, "regression", rows)) == {"values": ("FP32", [2, 1], [21, 102])}
    double = [rows[0] | {"datatype": "FP64"}]
    found = answer(infer(client, "targets", double))
    assert found == {"values": ("FP64", [2, 2], [21, 42, 102, 204])}


def test_an_embedding_is_its_vector(client: FlaskClient) -> None:
    found = answer(infer(client, "embedding", rooms((1, 2))))
    assert found == {"embedding": ("FP32", [1, 3], [3, 6, 9])}


def test_labels_that_apply_are_ones(client: FlaskClient) -> None:
    found = answer(infer(client, "multilabel", rooms((0, 150), (0, 50))))
    assert found["prediction"] == ("INT64", [2, 3], [1, 1, 0, 1, 0, 0])
    expected = 1 / (1 + np.exp(-np.array([1.5, 0.5, -0.5, 0.5, -0.5, -1.5])))
    assert np.allclose(found["probabilities"][2], expected, atol=1e-6)
    assert list(found) == ["probabilities", "prediction"]


def test_scores_are_ranked_as_probabilities_are(client: FlaskClient) -> None:
    found = answer(infer(client, "scores", rooms((0, 150), (0, 50))))
    assert found == {
        "scores": ("FP32", [2, 3], [0, 50, 100, 0, -50, -100]),
        "prediction": ("INT64", [2], [2, 0]),
        "label": ("BYTES", [2], ["castle", "flat"]),
    }
    found = answer(infer(client, "scores", rooms((0, 150)), "scores", classification=2))
    assert found == {"scores": ("BYTES", [1, 2], ["100.0:2:castle", "50.0:1:house"])}


@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        ("regression", [("values", "FP32", [-1, 1])]),
        ("embedding", [("embedding", "FP32", [-1, 3])]),
        ("multilabel", [("probabilities", "FP32", [-1, 3]), ("prediction", "INT64", [-1, 3])]),
        (
            "scores",
            [
                ("scores", "FP32", [-1, 3]),
                ("prediction", "INT64", [-1]),
                ("label", "BYTES", [-1]),
            ],
        ),
        (
            "extras",
            [
                ("probabilities", "FP32", [-1, 2]),
                ("prediction", "INT64", [-1]),
                ("label", "BYTES", [-1]),
                ("same words", "BYTES", [-1]),
            ],
        ),
        (
            "ranked",
            [
                ("p", "FP32", [-1, 2]),
                ("same words", "BYTES", [-1]),
                ("which", "INT64", [-1]),
            ],
        ),
    ],
)
def test_metadata_and_configuration_follow_the_task(
    client: FlaskClient, model: str, outputs: list[Any]
) -> None:
    document = client.get(f"/v2/models/{model}").get_json()
    assert [(o["name"], o["datatype"], o["shape"]) for o in document["outputs"]] == outputs
    config = client.get(f"/v2/models/{model}/config").get_json()
    assert config["max_batch_size"] == 10_000
    dims = [each["dims"] for each in config["output"]]
    assert dims == [shape[1:] or [1] for _, _, shape in outputs]


def mixed_columns(**changed: Any) -> list[dict[str, Any]]:
    kinds = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "category": "BYTES"}
    sample = MIXED_SAMPLE | changed
    return [column(each.name, kinds[each.kind], sample[each.name]) for each in MIXED]


def mixed_tensors(**changed: Any) -> list[dict[str, Any]]:
    """The same as the tensors of the network, with codes for the categories."""
    data: dict[str, Any] = {
        "numbers": [40, 1000.5],
        "counts": [2],
        "codes": [1, 4],
        "flags": [True],
        "texts": ["Oslo", "fine"],
        "precise": [1_700_000_000.25],
    } | changed
    return [
        {
            "name": spec.name,
            "datatype": spec.datatype,
            "shape": [1, *spec.shape[1:]],
            "data": data[spec.name],
        }
        for spec in MIXED_INPUTS
    ]


def test_features_of_all_kinds_are_columns_or_tensors(client: FlaskClient) -> None:
    found = answer(infer(client, "mixed", mixed_columns()))
    assert np.isclose(found["probabilities"][2][1], 1 / (1 + np.exp(-4.4)))
    assert answer(infer(client, "mixed", mixed_tensors())) == found
    null = mixed_columns(income=None, comment=None, plan="free")
    in_tensors = mixed_tensors(numbers=[40, None], codes=[0, 4], texts=["Oslo", ""])
    assert answer(infer(client, "mixed", null)) == answer(infer(client, "mixed", in_tensors))


@pytest.mark.parametrize(
    ("change", "pointer", "detail"),
    [
        ({"city": "Osl"}, "/inputs/0/data/0", "is not one of the feature's values; did you mean"),
        ({"age": None}, "/inputs/1/data/0", "must be a number; null"),
        ({"member": 1}, "/inputs/3/data/0", "must be true or false"),
        ({"floor": 2**40}, "/inputs/8/data/0", "must be from -2,147,483,648 to"),
    ],
)
def test_a_value_that_is_not_the_features_is_refused_at_its_place(
    client: FlaskClient, change: dict[str, Any], pointer: str, detail: str
) -> None:
    response = infer(client, "mixed", mixed_columns(**change))
    refused(response)
    (fault,) = response.get_json()["errors"]
    assert (fault["pointer"], fault["detail"][: len(detail)]) == (pointer, detail)


@pytest.mark.parametrize(
    ("change", "pointer", "detail"),
    [
        ({"codes": [3, 4]}, "/inputs/2/data/0", "must be the position of a category, 0 to 2"),
        ({"codes": [-1, 4]}, "/inputs/2/data/0", "must be the position of a category, 0 to 2"),
        ({"texts": ["Rom", "x"]}, "/inputs/4/data/0", "is not one of the feature's values"),
        ({"texts": ["Oslo", None]}, "/inputs/4/data/1", "must be a string; null"),
        ({"numbers": [None, 1]}, "/inputs/0/data/0", "must be a number; null"),
        ({"precise": [None]}, "/inputs/5/data/0", "must be a number; null"),
    ],
)
def test_a_tensor_is_held_to_its_features(
    client: FlaskClient, change: dict[str, Any], pointer: str, detail: str
) -> None:
    response = infer(client, "mixed", mixed_tensors(**change))
    refused(response)
    (fault,) = response.get_json()["errors"]
    assert (fault["pointer"], fault["detail"][: len(detail)]) == (pointer, detail)


def test_other_inputs_are_answered_with_both_forms(client: FlaskClient) -> None:
    sentence = refused(infer(client, "mixed", mixed_columns()[1:]))
    assert sentence.startswith("Feature mismatch. Missing: ['city'], Extra: [].")
    assert "Send the inputs 'numbers', 'counts', 'codes'" in sentence
    assert "one for each feature" in sentence


def ranked_inputs(*labels: int, x: str = "x") -> list[dict[str, Any]]:
    rows = len(labels)
    return [
        {"name": x, "datatype": "FP32", "shape": [rows, 2], "data": [0.25, 0.75] * rows},
        {"name": "words", "datatype": "BYTES", "shape": [rows], "data": ["ü"] * rows},
        {"name": "ids", "datatype": "INT64", "shape": [rows], "data": list(labels)},
    ]


def test_the_networks_label_counts_and_its_other_outputs_follow(client: FlaskClient) -> None:
    found = answer(infer(client, "extras", ranked_inputs(0, 1)))
    assert found["prediction"] == ("INT64", [2], [0, 1])
    assert found["label"] == ("BYTES", [2], ["no", "yes"])
    assert found["same words"] == ("BYTES", [2], ["ü", "ü"])
    assert "none of the classes" in refused(infer(client, "extras", ranked_inputs(0, 7)))


def test_a_row_alone_is_answered_as_it_is_among_others(client: FlaskClient) -> None:
    double = [rooms((1, 60))[0] | {"datatype": "FP64"}]
    rows = {
        **dict.fromkeys(("regression", "multilabel", "scores", "embedding"), rooms((1, 60))),
        "targets": double,
        "extras": ranked_inputs(1),
    }
    for model, row in rows.items():
        twice = [
            each | {"shape": [2, *each["shape"][1:]], "data": each["data"] * 2} for each in row
        ]
        alone, together = answer(infer(client, model, row)), answer(infer(client, model, twice))
        assert together == {
            name: (datatype, [2, *shape[1:]], data * 2)
            for name, (datatype, shape, data) in alone.items()
        }
    assert "none of the classes" in refused(infer(client, "extras", ranked_inputs(7)))


def test_a_classifier_without_features_has_rows_and_ranks_its_classes(client: FlaskClient) -> None:
    found = answer(infer(client, "ranked", ranked_inputs(0, 1)))
    assert list(found) == ["p", "same words", "which"]
    found = answer(infer(client, "ranked", ranked_inputs(0, 1), "p", classification=1))
    assert found == {"p": ("BYTES", [2, 1], ["0.75:1:yes", "0.75:1:yes"])}
    error = refused(infer(client, "ranked", ranked_inputs(0), "which", classification=1))
    assert "is a parameter of the output p" in error
    fewer = [*ranked_inputs(0, 1)[:2], ranked_inputs(0)[2]]
    assert "is that of 1 rows, and 'x' has 2" in refused(infer(client, "ranked", fewer))
    empty = answer(infer(client, "ranked", ranked_inputs()))
    assert empty["p"] == ("FP32", [0, 2], [])


def test_raw_outputs_that_are_not_finite_are_null(client: FlaskClient) -> None:
    inputs = ranked_inputs(0)
    inputs[0]["data"] = [None, 1]
    assert answer(infer(client, "ranked", inputs))["p"] == ("FP32", [1, 2], [None, 1])
    # A task's answer that is not finite is none.
    rows = rooms((1, None), (3.4e38, 3.4e38))
    assert "is not finite" in refused(infer(client, "regression", rows))


def test_rows_are_counted_by_class_with_and_without_features(
    make_app: Make, tmp_path: Path
) -> None:
    for name, features in (("extras", RANKED_FEATURES), ("ranked", ())):
        path = ranked(tmp_path / name / "1", features)
        client = make_app(MODEL__PATH=str(path.parent)).test_client()
        assert infer(client, name, ranked_inputs(0, 1, 1)).status_code == 200
        (statistics,) = client.get(f"/v2/models/{name}/stats").get_json()["model_stats"]
        assert (statistics["inference_count"], statistics["execution_count"]) == (3, 1)
        counted = samples(client.get("/metrics").get_data(as_text=True))
        rows = {dict(k)["class"]: n for (m, k), n in counted.items() if "predictions_total" in m}
        assert rows == {"no": 1, "yes": 2}


def test_rows_and_values_are_limited_without_features_too(make_app: Make, tmp_path: Path) -> None:
    path = ranked(tmp_path / "ranked" / "1")
    limits = {"LIMITS__MAX_BATCH_SIZE": "3", "LIMITS__MAX_ANSWER_VALUES": "8"}
    client = make_app(MODEL__PATH=str(path.parent), **limits).test_client()
    assert client.get("/v2/models/ranked/config").get_json()["max_batch_size"] == 2
    assert infer(client, "ranked", ranked_inputs(0, 0)).status_code == 200
    too_many = infer(client, "ranked", ranked_inputs(0, 0, 0, 0), "which")
    assert "exceeds the limit of 3 rows" in refused(too_many, 413)
    too_large = infer(client, "ranked", ranked_inputs(0, 0, 0))
    assert "Send at most 2 rows" in refused(too_large, 413)
    assert infer(client, "ranked", ranked_inputs(0, 0, 0), "p").status_code == 200
    long = ranked_inputs(0)
    long[1]["data"] = ["x" * 100]
    assert "limits.max_answer_values" in refused(infer(client, "ranked", long), 413)


def test_an_empty_tensor_has_no_data(client: FlaskClient) -> None:
    (sent,) = rooms()
    sent |= {"data": None, "parameters": {"binary_data_size": 0}}
    assert answer(infer(client, "regression", [sent])) == {"values": ("FP32", [0, 1], [])}


@pytest.mark.parametrize(
    ("inputs", "outputs", "features", "said"),
    [
        (RANKED, [*RANKED_OUTPUTS[:1], replace(RANKED_OUTPUTS[1], name="label"),
                  RANKED_OUTPUTS[2]], RANKED_FEATURES, "'label' is the name of an output"),
        ([replace(RANKED[0], shape=(1, 2)), *RANKED[1:]], RANKED_OUTPUTS, (),
         "'x' must have -1 as its first dimension"),
        ([TensorSpec("x", "FP32", (-1,)), TensorSpec("y", "FP32", (-1, 2))],
         [OutputSpec("z", "FP32", (-1,)), OutputSpec("p", "FP32", (-1, 2), "probabilities")],
         (Feature("x", tensor="y", column=0), Feature("y", tensor="x")),
         "'x' is the name of another input"),
    ],
)  # fmt: skip
def test_a_bundle_whose_tensors_callers_could_confuse_is_refused(
    tmp_path: Path, inputs: Any, outputs: Any, features: Any, said: str
) -> None:
    more: dict[str, Any] = {"task": "classification", "classes": ("no", "yes"), "batch": True}
    with pytest.raises(BundleError, match=said):
        write_identity(tmp_path / "any" / "1", inputs, outputs, features=features, **more)


_VALUES = st.sampled_from([0, 1, -1, 2, 300, 2**40, 2**63, 0.5, 1e39, None, True, "Oslo", "x", []])
_CHANGE = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["city", "codes", "x", "words", "ids", "p"]),
        "datatype": st.sampled_from(["FP16", "FP64", "INT8", "UINT64", "INT64", "BOOL", "BYTES"]),
        "shape": st.lists(st.integers(0, 3), max_size=3),
        "data": st.lists(_VALUES, min_size=1, max_size=2),
    },
)
_WANTED = st.sampled_from(["probabilities", "label", "p", "same words", "values", "scores"])


@given(
    model=st.sampled_from(["mixed", "extras", "ranked", "regression", "embedding", "multilabel"]),
    inputs=st.sampled_from(
        [mixed_columns(), mixed_tensors(), ranked_inputs(0, 1), ranked_inputs(), rooms((1, 2))]
    ),
    changes=st.dictionaries(st.integers(0, 8), _CHANGE, max_size=3),
    dropped=st.sets(st.integers(0, 8), max_size=1),
    wanted=st.lists(_WANTED, max_size=1),
    classes=st.integers(0, 3) | st.none(),
)
def test_whatever_is_sent_to_any_model_is_answered_or_refused_with_a_sentence(
    client: FlaskClient,
    *,
    model: str,
    inputs: list[dict[str, Any]],
    changes: dict[int, dict[str, Any]],
    dropped: set[int],
    wanted: list[str],
    classes: int | None,
) -> None:
    sent = [
        each | changes.get(index, {}) for index, each in enumerate(inputs) if index not in dropped
    ]
    response = infer(client, model, sent, *wanted, classification=classes)
    if response.status_code != 200:
        assert 400 <= response.status_code < 500, response.get_json()
        assert refused(response, response.status_code)
