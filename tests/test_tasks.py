"""Models of every task, by HTTP: what is answered, logged, counted and described."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.registry.release import Release, write_release
from tests import task_models
from tests.task_models import CITIES, MIXED_SAMPLE, PLANS

ROOM = {"rooms": 3, "area": 85.5}
Make = Callable[..., Flask]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FlaskClient]:
    """Serve a model of `task_models`, each made once: ``served("regression")``."""
    from app import create_app
    from app.settings import load_settings

    clients: dict[str, FlaskClient] = {}

    def serve(kind: str, name: str = "", **options: Any) -> FlaskClient:
        name = name or kind
        if name not in clients:
            out = tmp_path_factory.mktemp("tasks") / name / "1"
            getattr(task_models, kind)(out, **options)
            settings = {"LANTERN_MODEL__PATH": str(out), "LANTERN_LOGGING__FEATURES": "true"}
            clients[name] = create_app(load_settings(settings)).test_client()
        return clients[name]

    return serve


def predict(client: FlaskClient, features: dict[str, Any]) -> dict[str, Any]:
    """Predict one sample, alone and in a batch; return the answer without version and time."""
    alone = client.post("/predict", json={"features": features})
    assert alone.status_code == 200, alone.get_data(as_text=True)
    batch = client.post("/predict/batch", json={"samples": [features] * 3}).get_json()
    answer = alone.get_json()
    rows = [_without_time(row) for row in batch["predictions"]]
    assert rows == [_without_time(answer)] * 3
    assert batch["total_samples"] == 3
    assert client.post("/predict/batch", json={"samples": []}).get_json()["predictions"] == []
    assert answer["model_version"] == "1"
    return _without_time(answer)


def _without_time(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: answer[key] for key in answer if key not in ("model_version", "timestamp")}


def test_a_regression_answers_its_number_and_by_name(served: Callable[..., FlaskClient]) -> None:
    answer = predict(served("regression"), ROOM)
    assert answer == {"prediction": 88.5, "values": {"price": 88.5}}
    several = predict(served("regression", "several", targets=("price", "rent")), ROOM)
    assert several == {"prediction": [88.5, 177.0], "values": {"price": 88.5, "rent": 177.0}}
    assert predict(served("regression"), ROOM | {"area": None})["prediction"] == 103


def test_a_regression_in_float64_is_answered_in_all_its_digits(
    served: Callable[..., FlaskClient],
) -> None:
    client = served("regression", "wide", datatype="FP64")
    assert predict(client, {"rooms": 0.1, "area": 0.2})["prediction"] == 0.1 + 0.2
    assert predict(client, {"rooms": 1_700_000_000, "area": 0.001})["prediction"] == 1700000000.001
    narrow = served("regression").post("/predict", json={"features": {"rooms": 0.1, "area": 0}})
    assert b'"prediction":0.1,"values":{"price":0.1}' in narrow.data


def test_labels_that_apply_are_answered_with_all_probabilities(
    served: Callable[..., FlaskClient],
) -> None:
    answer = predict(served("multilabel"), {"rooms": 20, "area": 100})
    assert (answer["prediction"], answer["labels"]) == ([0, 1], ["large", "airy"])
    assert list(answer) == ["prediction", "labels", "probabilities"]
    assert answer["probabilities"]["class_2"] == pytest.approx(0.310025, abs=1e-5)
    none = predict(served("multilabel"), {"rooms": -500, "area": 0})
    assert (none["prediction"], none["labels"]) == ([], [])


def test_a_classifier_with_scores_answers_no_probabilities(
    served: Callable[..., FlaskClient],
) -> None:
    answer = predict(served("scores"), {"rooms": 2, "area": 110})
    assert answer == {
        "prediction": 2,
        "label": "castle",
        "scores": {"class_0": 0, "class_1": 12, "class_2": 24},
    }


def test_an_embedding_answers_its_vector(served: Callable[..., FlaskClient]) -> None:
    answer = predict(served("embedding"), ROOM)
    assert answer == {"embedding": [88.5 * i for i in range(1, 17)]}
    long = predict(served("embedding", "long", size=40_000), {"rooms": 1, "area": 1})
    assert long["embedding"] == [2.0 * i for i in range(1, 40_001)]


def test_features_of_all_kinds_reach_the_network(served: Callable[..., FlaskClient]) -> None:
    client = served("mixed")
    usual = predict(client, MIXED_SAMPLE)
    assert usual["label"] == "yes"
    assert usual == predict(client, MIXED_SAMPLE | {"comment": "never seen", "floor": None})
    zero = MIXED_SAMPLE | {"visits": 0, "member": False, "plan": "free", "age": 0}
    assert predict(client, zero)["probabilities"]["class_1"] == 0.5
    for changed, logit in (
        ({"visits": 1}, 1),
        ({"member": True}, 1),
        ({"plan": "pro"}, 2),
        ({"city": "Zürich"}, 10),
    ):
        share = predict(client, zero | changed)["probabilities"]
        assert share["class_1"] == pytest.approx(1 / (1 + 2.718281828**-logit), abs=1e-5)


def test_an_unknown_category_is_refused_with_what_was_meant(
    served: Callable[..., FlaskClient],
) -> None:
    sent = {"features": MIXED_SAMPLE | {"city": "Zurich"}}
    refused = served("mixed").post("/predict", json=sent)
    assert refused.status_code == 422
    (fault,) = refused.get_json()["errors"]
    assert fault["pointer"] == "/features/city"
    assert "did you mean 'Zürich'" in fault["detail"]
    assert refused.get_json()["detail"] == f"/features/city {fault['detail']}"  # ends in "?"


@pytest.mark.parametrize(
    ("kind", "logged", "confidence"),
    [
        ("regression", 88.5, None),
        ("multilabel", ["large"], None),
        ("scores", "flat", None),
        ("embedding", None, None),
        ("mixed", "yes", 0.987872),
    ],
)
def test_the_log_and_the_metrics_follow_the_task(
    served: Callable[..., FlaskClient],
    log_lines: Callable[[], list[dict[str, Any]]],
    kind: str,
    logged: Any,
    confidence: float | None,
) -> None:
    client = served(kind)
    features = MIXED_SAMPLE if kind == "mixed" else ROOM
    before = counted(client)
    client.post("/predict", json={"features": features})
    (line,) = [line for line in log_lines() if line["logger"] == "lantern.prediction"]
    assert line["prediction"] == logged
    assert line.get("confidence") == confidence
    assert ("confidence" in line) == (confidence is not None)
    assert line["features"] == features
    client.post("/predict/batch", json={"samples": [features] * 4})
    after = counted(client)
    label = (
        logged if isinstance(logged, str) else (logged or [""])[0] if kind != "regression" else ""
    )
    assert after["rows"] - before.get("rows", 0) == 5
    assert after[label] - before.get(label, 0) == 5


def counted(client: FlaskClient) -> dict[str, float]:
    """Rows predicted, in all and by class."""
    found: dict[str, float] = {}
    for line in client.get("/metrics").get_data(as_text=True).splitlines():
        if line.startswith("lantern_predicted_rows_total{"):
            found["rows"] = float(line.split()[-1])
        if line.startswith("lantern_predictions_total{"):
            found[line.split('class="')[1].split('"')[0]] = float(line.split()[-1])
    return found


@pytest.mark.parametrize("kind", ["regression", "multilabel", "scores", "embedding", "mixed"])
def test_the_documented_example_works_as_it_is(
    served: Callable[..., FlaskClient], kind: str
) -> None:
    client = served(kind)
    document = client.get("/openapi.json").get_json()
    for path in ("/predict", "/predict/batch"):
        operation = document["paths"][path]["post"]
        sent = operation["requestBody"]["content"]["application/json"]["example"]
        said = operation["responses"]["200"]["content"]["application/json"]
        answer = client.post(path, json=sent)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        example, got = said["example"], answer.get_json()
        if "predictions" in got:
            example, got = example["predictions"][0], got["predictions"][0]
        assert _without_time(example) == _without_time(got)
        name = said["schema"]["$ref"].rpartition("/")[2]
        schema = document["components"]["schemas"][name]
        assert set(schema["required"]) == set(answer.get_json())


def test_the_schema_of_the_features_is_by_their_kinds(served: Callable[..., FlaskClient]) -> None:
    document = served("mixed").get("/openapi.json").get_json()
    features = document["components"]["schemas"]["Features"]["properties"]
    assert features["city"]["enum"] == list(CITIES)
    assert features["plan"]["enum"] == list(PLANS)
    assert "enum" not in features["comment"]
    assert features["comment"]["nullable"] is True
    types = {name: features[name]["type"] for name in ("member", "visits", "age", "comment")}
    assert types == {"member": "boolean", "visits": "integer", "age": "number", "comment": "string"}
    assert features["visits"]["maximum"] == 2**63 - 1
    assert "maximum" not in features["since"]


def test_the_info_says_what_a_model_takes_and_answers(served: Callable[..., FlaskClient]) -> None:
    info = served("mixed").get("/model/info").get_json()
    features = {feature["name"]: feature for feature in info["features"]}
    city, floor = features["city"], features["floor"]
    assert (city["kind"], city["categories"], city["unknown"]) == (
        "category", list(CITIES), "refuse",
    )  # fmt: skip
    assert (floor["tensor"], floor["column"], floor["kind"]) == ("codes", 1, "integer")
    assert (features["visits"]["column"], features["comment"]["unknown"]) == (None, "pass")
    assert [output["role"] for output in info["outputs"]] == ["probabilities", "label", "label"]
    assert served("multilabel").get("/model/info").get_json()["labels"] == [
        "large",
        "airy",
        "cheap",
    ]
    regression = served("regression").get("/model/info").get_json()
    assert regression["targets"] == [{"name": "price", "unit": "EUR", "description": "The price"}]
    assert (regression["task"], regression["classes"]) == ("regression", [])


def test_an_answer_that_is_too_large_is_refused_whatever_the_task(
    make_app: Make, tmp_path: Path
) -> None:
    out = task_models.embedding(tmp_path / "vectors" / "1", size=100)
    client = make_app(MODEL__PATH=str(out), LIMITS__MAX_ANSWER_VALUES="500").test_client()
    assert client.get("/model/info").get_json()["max_batch_size"] == 5
    assert client.post("/predict/batch", json={"samples": [ROOM] * 5}).status_code == 200
    refused = client.post("/predict/batch", json={"samples": [ROOM] * 6})
    assert refused.status_code == 413
    assert "at most 5 rows" in refused.get_json()["detail"]


def test_rows_that_a_network_leaves_out_are_no_answers_to_others(
    served: Callable[..., FlaskClient],
) -> None:
    """Its shape is as it says for the golden data; it is held to it for all others, too."""
    client = served("lossy")
    rooms = [{"rooms": count, "area": 50} for count in (1, 700, 3)]
    data = [[row["rooms"], 50] for row in rooms]
    tensor = {"name": "features", "datatype": "FP32", "shape": [3, 2], "data": data}
    for path, body in (
        ("/predict", {"features": rooms[1]}),
        ("/predict/batch", {"samples": rooms}),
        ("/v2/models/lossy/infer", {"inputs": [tensor]}),
    ):
        refused = client.post(path, json=body)
        assert refused.status_code == 400, refused.get_data(as_text=True)
        assert "its output 'values' has the shape" in refused.get_json()["detail"]
    kept = client.post("/predict/batch", json={"samples": rooms[::2]}).get_json()
    assert [each["prediction"] for each in kept["predictions"]] == [51, 53]


@pytest.mark.parametrize("kind", ["regression", "multilabel", "scores", "embedding", "mixed"])
def test_the_page_promises_what_the_task_answers(
    served: Callable[..., FlaskClient], kind: str
) -> None:
    page = served(kind).get("/", headers={"Accept": "text/html"}).get_data(as_text=True)
    promised = {
        "regression": "what the model predicts",
        "multilabel": "the probability of each label",
        "scores": "the score of each class",
        "embedding": "the vector that the model returns",
        "mixed": "the probability of each class",
    }
    assert f"Submit the form to see {promised[kind]}." in page
    assert (json.dumps("Zürich")[1:-1] in page or "Zürich" in page) == (kind == "mixed")


def test_the_shadow_compares_numbers_of_every_datatype(make_app: Make, tmp_path: Path) -> None:
    """Rows alone and in batches, of float64: none is taken for float32."""
    directory = tmp_path / "price"
    for version in ("1", "2"):
        task_models.scores(directory / version, datatype="FP64")
    write_release(directory, Release("1", "2", "shadow"))
    app = make_app(MODEL__PATH=str(directory))
    client, lantern = app.test_client(), app.extensions["lantern"]
    sample = {"rooms": 1_700_000_000.0, "area": 0.001}
    for _ in range(3):
        assert client.post("/predict", json={"features": sample}).status_code == 200
    assert client.post("/predict/batch", json={"samples": [sample] * 3}).status_code == 200
    assert lantern.shadow.wait(60)
    lines = client.get("/metrics").get_data(as_text=True).splitlines()
    (agreed,) = [line for line in lines if line.startswith("lantern_shadow_rows_total{")]
    assert 'result="agreed"' in agreed
    assert agreed.endswith(" 6.0")


def test_a_classifier_of_tensors_is_described_by_them_and_its_classes(tmp_path: Path) -> None:
    """Without features, as of images, there is no form, and nothing is too many for one."""
    from app import create_app
    from app.settings import load_settings

    bundle = task_models.scores(tmp_path / "images" / "1")
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["features"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    client = create_app(load_settings({"LANTERN_MODEL__PATH": str(bundle)})).test_client()
    page = client.get("/", headers={"Accept": "text/html"}).get_data(as_text=True)
    assert "POST /v2/models/images/infer" in page
    assert "features: FP32 [-1, 2]" in page
    assert "flat, house, castle" in page
    assert "too many" not in page
    assert client.get("/openapi.json").status_code == 200
    assert client.get("/model/info").get_json()["max_batch_size"] == 0
