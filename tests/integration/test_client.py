"""The client against a real Gunicorn."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.client import ModelClient, RequestRejected
from tests import step_models, task_models
from tests.conftest import ROOT
from tests.integration.conftest import Server, free_port, wait_for

# For what the client makes of an answer: which class of workers sent it makes no difference there.
one_worker_class = pytest.mark.parametrize("worker_class", ["keepalive"], indirect=True)


@pytest.fixture
def client(server: Server) -> Iterator[ModelClient]:
    with ModelClient(server.url) as client:
        yield client


def demonstrate(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.client", "--url", url]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_health_tells_the_model_that_is_served(
    client: ModelClient, manifest: dict[str, Any]
) -> None:
    health = client.health_check()
    assert (health["status"], health["model_loaded"]) == ("healthy", True)
    assert health["model_version"] == manifest["version"]


def test_the_models_description_is_the_manifests(
    client: ModelClient, manifest: dict[str, Any]
) -> None:
    info = client.get_model_info()
    assert info["classes"] == manifest["classes"]
    for described, feature in zip(info["features"], manifest["features"], strict=True):
        assert dict(described) | feature == described


def test_a_batch_gives_what_single_predictions_give(
    client: ModelClient, sample: dict[str, float], manifest: dict[str, Any]
) -> None:
    others = [{**sample, "age": age} for age in (20, 40, 60)]
    batch = client.predict_batch(others)
    assert batch["total_samples"] == 3
    for features, together in zip(others, batch["predictions"], strict=True):
        alone = client.predict(features)
        assert alone["label"] == together["label"] == manifest["classes"][alone["prediction"]]
        assert alone["probabilities"] == pytest.approx(together["probabilities"], abs=1e-6)


def test_none_is_a_value_that_the_model_imputes(
    client: ModelClient, sample: dict[str, float]
) -> None:
    assert sum(client.predict({**sample, "income": None})["probabilities"].values()) == (
        pytest.approx(1)
    )


def test_an_empty_batch_has_no_predictions(client: ModelClient) -> None:
    assert client.predict_batch([])["predictions"] == []


def test_a_refused_batch_names_each_fault_by_its_pointer(
    client: ModelClient, sample: dict[str, float]
) -> None:
    with pytest.raises(RequestRejected) as info:
        client.predict_batch([sample, {**sample, "age": "35"}, {**sample, "income": True}])  # type: ignore[dict-item]
    assert info.value.status == 422
    pointers = [fault["pointer"] for fault in info.value.errors]
    assert pointers == ["/samples/1/age", "/samples/2/income"]
    assert info.value.request_id


def test_a_missing_feature_is_a_mismatch_that_names_it(
    client: ModelClient, sample: dict[str, float]
) -> None:
    del sample["age"]
    with pytest.raises(RequestRejected, match=r"Missing: \['age'\]") as info:
        client.predict(sample)
    assert info.value.status == 400
    assert info.value.errors[0]["pointer"] == "/features/age"


def test_a_client_is_shared_by_threads(client: ModelClient, sample: dict[str, float]) -> None:
    samples = [{**sample, "age": age} for age in range(20, 70)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(client.predict, samples))
    batch = client.predict_batch(samples)["predictions"]
    for answer, expected in zip(answers, batch, strict=True):
        assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)


def test_a_service_without_a_model_is_unhealthy_and_refuses(
    start: Callable[..., Server], tmp_path: Path, sample: dict[str, float]
) -> None:
    server = start("-w", "1", MODEL__PATH=str(tmp_path / "nothing"))
    with ModelClient(server.url, retries=1) as client:
        health = client.health_check()
        assert (health["status"], health["model_loaded"]) == ("unhealthy", False)
        assert health["reason"]
        with pytest.raises(RequestRejected, match="No model is loaded") as info:
            client.predict(sample)
    assert info.value.status == 503

    def calls(path: str) -> int:
        return sum(
            (line["path"], line["status"]) == (path, 503) for line in server.lines("request")
        )

    wait_for(lambda: calls("/predict") >= 2)
    assert (calls("/health"), calls("/predict")) == (1, 2)

    shown = demonstrate(server.url)
    assert shown.returncode == 1
    assert "unhealthy" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_the_demonstration_shows_health_model_prediction_and_batch(
    server: Server, manifest: dict[str, Any]
) -> None:
    shown = demonstrate(server.url)
    assert (shown.returncode, shown.stderr) == (0, "")
    words = [line.split()[0] for line in shown.stdout.splitlines()]
    assert words[:5] == ["Health", "Model", "Sample", "Prediction", "Batch"]
    assert len(words) == 8
    for name in manifest["classes"]:
        assert name in shown.stdout


@one_worker_class
@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("regression", ["1 target, onnx on cpu", "price 88.5 EUR", "10  price 95.5 EUR"]),
        ("multilabel", ["3 labels", "Prediction  large (large 70.8%, airy 47.1%, cheap 24.7%)"]),
        ("scores", ["3 classes", "5.5  flat (flat -0, house -9, castle -18)"]),
        ("embedding", ["2 features, onnx", "Prediction  16 numbers"]),
        ("mixed", ["member true", "differ in city", "Zürich  yes (no 0.0%, yes 100.0%)"]),
    ],
)
def test_the_demonstration_follows_the_task(
    start: Callable[..., Server], tmp_path: Path, kind: str, lines: list[str]
) -> None:
    out = getattr(task_models, kind)(tmp_path / kind / "1")
    shown = demonstrate(start("-w", "1", MODEL__PATH=str(out)).url)
    assert (shown.returncode, shown.stderr) == (0, "")
    for line in lines:
        assert line in shown.stdout


@one_worker_class
def test_values_of_every_kind_are_sent(start: Callable[..., Server], tmp_path: Path) -> None:
    out = task_models.mixed(tmp_path / "mixed" / "1")
    numpys = {"member": np.bool_(True), "visits": np.int64(2), "city": np.str_("Oslo")}
    with ModelClient(start("-w", "1", MODEL__PATH=str(out)).url) as client:
        sample: dict[str, Any] = dict(task_models.MIXED_SAMPLE)
        assert client.predict(sample | numpys)["label"] == client.predict(sample)["label"] == "yes"
        with pytest.raises(RequestRejected, match="did you mean 'Oslo'|invalid"):
            client.predict(sample | {"city": "oslo"})
        assert client.get_model_info()["features"][0]["categories"] == list(task_models.CITIES)


def test_the_demonstration_without_a_service_is_one_sentence() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    shown = demonstrate(url)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == f"No response from {url}/health: Connection refused.\n"


@one_worker_class
def test_images_and_texts_are_sent_one_by_one_and_in_batches(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    photos = step_models.images(tmp_path / "photos" / "1").parent
    topics = step_models.texts(tmp_path / "topics" / "1").parent
    server = start("-w", "1", MODELS__PHOTOS=str(photos), MODELS__TOPICS=str(topics))
    red, green = step_models.picture(), step_models.picture((10, 190, 60))
    file = tmp_path / "green.png"
    file.write_bytes(green)
    with ModelClient(f"{server.url}/models/photos") as client:
        assert client.predict_image(red)["label"] == "red"
        assert client.predict_image(file, top=1)["top"][0]["label"] == "green"
        batch = client.predict_images([red, str(file), red], top=3)
        assert [each["label"] for each in batch["predictions"]] == ["red", "green", "red"]
        assert {len(each["top"]) for each in batch["predictions"]} == {3}
        assert client.predict_images([])["predictions"] == []
        with pytest.raises(RequestRejected, match="no image of these formats"):
            client.predict_image(b"x")
        with pytest.raises(FileNotFoundError):
            client.predict_image("/nowhere.png")
        with pytest.raises(TypeError, match="its bytes or a path, not int"):
            client.predict_image(1)  # type: ignore[arg-type]
    with ModelClient(f"{server.url}/models/topics") as client:
        sentence, other = "where is my parcel", "cannot log in"
        alone, pair = client.predict_text(sentence), client.predict_text(sentence, other, top=1)
        assert alone["probabilities"] != pair["probabilities"]
        assert [len(each["top"]) for each in (alone, pair)] == [2, 1]
        batch = client.predict_texts([sentence, (sentence, other)])
        for together, single in zip(batch["predictions"], (alone, pair), strict=True):
            assert together["probabilities"] == pytest.approx(single["probabilities"], abs=1e-6)
        with pytest.raises(TypeError, match="must be a string, not bytes"):
            client.predict_text(b"x")  # type: ignore[arg-type]


@one_worker_class
def test_the_demonstration_sends_a_text_and_says_that_it_has_no_image(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    texts = start("-w", "1", MODEL__PATH=str(step_models.texts(tmp_path / "topics" / "1")))
    shown = demonstrate(texts.url)
    assert shown.returncode == 0, shown.stderr
    assert "Sample      'An example of a text.'" in shown.stdout
    images = start("-w", "1", MODEL__PATH=str(step_models.images(tmp_path / "photos" / "1")))
    shown = demonstrate(images.url)
    assert shown.returncode == 1
    assert "photos takes an image" in shown.stderr
