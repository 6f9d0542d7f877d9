"""Models that take images and texts, over HTTP: every form of a request, and every refusal."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from PIL import Image
from werkzeug.test import TestResponse

from app import create_app
from app.access.keys import PREDICT, create_key
from app.http import content
from app.inference.comparison import rows_for
from app.model.agreement import Incomparable
from app.model.steps.declaration import Sample, Size
from app.protocols.native.forms import FORM
from app.registry.loading import ModelSource, load_model
from app.registry.release import Release, write_release
from app.settings import load_settings
from tests import step_models
from tests.handler_bundles import with_handler
from tests.step_models import PHOTO, SENTENCE
from tests.telemetry.test_metrics import samples
from tests.test_api import assert_problem

RED, GREEN = step_models.picture(), step_models.picture((10, 190, 60), (20, 33), "JPEG")
TEXT = "where is my parcel"
NAMES = ("photos", "topics", "doubled")
IN_BASE64 = base64.b64encode(RED).decode()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image classifier, a text classifier and a handler, side by side."""
    root = tmp_path_factory.mktemp("media")
    step_models.images(root / "photos" / "1")
    step_models.texts(root / "topics" / "1")
    with_handler(root / "doubled" / "1")
    return root


@pytest.fixture(scope="module", params=["true", "false"], ids=["fast path", "Flask"])
def app(models: Path, request: pytest.FixtureRequest) -> Flask:
    return _serving(models, LANTERN_SERVER__FAST_PATH=request.param)


def _serving(models: Path, **more: str) -> Flask:
    named = {f"LANTERN_MODELS__{name.upper()}": str(models / name) for name in NAMES}
    allowed = {"LANTERN_MODEL__ALLOW_CODE": "doubled"}
    return create_app(load_settings({**named, **allowed, **more}))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def photo(client: FlaskClient, call: str = "predict", **sent: Any) -> TestResponse:
    return client.post(f"/models/photos/{call}", **sent)


def topic(client: FlaskClient, call: str = "predict", **sent: Any) -> TestResponse:
    return client.post(f"/models/topics/{call}", **sent)


def answered(response: TestResponse) -> Any:
    assert response.status_code == 200, response.text
    document = response.get_json()
    for each in document.get("predictions", [document]):
        each.pop("timestamp")
    return document


def file(body: bytes = RED) -> tuple[BytesIO, str]:
    return BytesIO(body), "a.png"


def test_an_image_gets_the_same_answer_in_every_form(client: FlaskClient) -> None:
    first = answered(photo(client, data=RED, content_type="image/png"))
    assert first["label"] == "red"
    assert [each["label"] for each in first["top"]] == ["red", "blue"]
    forms: list[dict[str, Any]] = [
        {"data": RED, "content_type": "image/jpeg; x=1"},  # what it is, its bytes say
        {"data": RED, "content_type": "Application/Octet-Stream"},
        {"data": {"data": file()}},
        {"data": {"body": file()}},
        {"data": {"image": file()}},
        {"data": _form(b'name="data"', RED), "content_type": "multipart/form-data; boundary=b"},
        {"json": {"image": IN_BASE64}},
        {"json": {"image": f"data:image/png;base64,{IN_BASE64}"}},
        {"data": json.dumps({"image": IN_BASE64}), "content_type": "application/x+json"},
    ]
    for form in forms:
        assert answered(photo(client, **form)) == first


def _form(disposition: bytes, body: bytes, more: bytes = b"") -> bytes:
    """A form of one part, whose boundary is b."""
    head = b"--b\r\nContent-Disposition: form-data; %b\r\n%b\r\n" % (disposition, more)
    return head + body + b"\r\n--b--"


def test_a_text_gets_the_same_answer_in_every_form(client: FlaskClient) -> None:
    first = answered(topic(client, data=TEXT, content_type="text/plain"))
    forms: list[dict[str, Any]] = [
        {"data": TEXT, "content_type": "text/plain; charset=UTF-8"},
        {"data": TEXT.encode(), "content_type": "text/plain;charset=us-ascii"},
        {"data": {"data": TEXT}, "content_type": FORM},
        {"data": {"body": TEXT}, "content_type": FORM},
        {"data": {"text": TEXT}, "content_type": FORM},
        {"data": {"data": (BytesIO(TEXT.encode()), "a.txt")}},
        {"json": {"text": TEXT}},
    ]
    for form in forms:
        assert answered(topic(client, **form)) == first
    both = answered(topic(client, json={"text": TEXT, "pair": "cannot log in"}))
    assert both["probabilities"] != first["probabilities"]
    assert (
        answered(topic(client, data={"text": TEXT, "pair": "cannot log in"}, content_type=FORM))
        == both
    )


@pytest.mark.parametrize(
    ("content_type", "body", "reached"),
    [
        ("image/png", RED, 0),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="data"'
         b"\r\n\r\n" + RED + b"\r\n--b--", 0),
        ("application/json; charset=utf-8", json.dumps({"image": IN_BASE64}).encode(), 0),
        ("text/plain", RED, 1),
        ("", RED, 1),
    ],
)  # fmt: skip
def test_what_a_model_takes_is_answered_without_flask(
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    content_type: str,
    body: bytes,
    reached: int,
) -> None:
    app = _serving(models)
    calls: list[Any] = []
    dispatch = app.full_dispatch_request
    monkeypatch.setattr(app, "full_dispatch_request", lambda: (calls.append(1), dispatch())[1])
    answer = photo(app.test_client(), data=body, content_type=content_type)
    assert (answer.status_code, len(calls)) == (415 if reached else 200, reached)


def test_batches_come_in_json_and_in_forms(client: FlaskClient) -> None:
    one, other = (answered(photo(client, data=b, content_type="image/x")) for b in (RED, GREEN))
    rows = [{"image": base64.b64encode(each).decode()} for each in (RED, GREEN, RED)]
    batch = answered(photo(client, "predict/batch", json={"samples": rows}))
    assert [each["label"] for each in batch["predictions"]] == ["red", "green", "red"]
    for found, alone in zip(batch["predictions"], (one, other, one), strict=True):
        assert found["top"] == alone["top"]
    assert batch["total_samples"] == 3
    files = {"data": [file(RED), file(GREEN), file(RED)]}
    assert answered(photo(client, "predict/batch", data=files)) == batch
    texts = {"text": [TEXT, "my money back"], "pair": ["a", "b"]}
    in_form = answered(topic(client, "predict/batch", data=texts, content_type=FORM))
    pairs = [{"text": a, "pair": b} for a, b in zip(*texts.values(), strict=True)]
    assert answered(topic(client, "predict/batch", json={"samples": pairs})) == in_form
    empty = answered(topic(client, "predict/batch", json={"samples": []}))
    assert empty == {"predictions": [], "total_samples": 0, "model_version": "1"}


def test_a_handler_takes_whole_requests_in_forms_and_batches(client: FlaskClient) -> None:
    path = "/models/doubled/predict"
    assert client.post(path, json={"value": 3}).get_json() == 6
    assert client.post(path, data={"data": '{"value": 4}'}, content_type=FORM).get_json() == 8
    batch = client.post(f"{path}/batch", json={"samples": [{"value": 1}, {"value": 2}]})
    assert batch.get_json() == {"predictions": [2, 4], "total_samples": 2, "model_version": "1"}
    two = client.post(path, data={"data": ['{"value": 4}'] * 2}, content_type=FORM)
    assert "must have one field data or body, and has 2" in assert_problem(two, 400)["detail"]
    nameless = client.post(
        path, data=_form(b"x=1", b"{}"), content_type="multipart/form-data; boundary=b"
    )
    assert "has no name" in assert_problem(nameless, 400)["detail"]


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "", "text/plain"])
def test_another_content_type_is_refused_with_those_that_are_taken(
    client: FlaskClient, content_type: str
) -> None:
    refused = assert_problem(photo(client, data=RED, content_type=content_type), 415)
    types = "image/*, application/octet-stream, multipart/form-data or application/json"
    assert f"The Content-Type must be {types}, " in refused["detail"]
    of_curl = "curl sends that one unless it is given another, as by -H 'Content-Type: image/jpeg'."
    assert refused["detail"].endswith(of_curl) is (content_type.endswith("urlencoded"))
    refused = assert_problem(
        photo(client, "predict/batch", data=RED, content_type="image/png"), 415
    )
    assert "must be multipart/form-data or application/json" in refused["detail"]


@pytest.mark.parametrize(
    ("status", "sent", "detail", "pointer"),
    [
        (422, {"data": b"x", "content_type": "image/png"},
         "The image is no image of these formats: JPEG, PNG, WEBP, BMP, GIF.", "/image"),
        (422, {"data": RED[:-40], "content_type": "image/png"}, "The image can't be decoded: ",
         "/image"),
        (422, {"data": b"", "content_type": "image/png"}, "The image is no image", "/image"),
        (422, {"json": {"image": "abc"}}, "/image is not base64: incorrect padding.", "/image"),
        (422, {"json": {"features": {}}},
         "/features is unknown; this model takes image (1 more in errors).",
         "/features"),
        (422, {"json": []}, "The body must be an object.", ""),
        (422, {"data": {"photo": "x"}, "content_type": FORM},
         "/photo is not a field of this form; it has data, body and image.", "/photo"),
        (400, {"data": b"", "content_type": "application/json"},
         "The body is not JSON: it is empty.", None),
        (400, {"data": b"x", "content_type": "multipart/form-data"},
         "The Content-Type multipart/form-data has no boundary", None),
        (400, {"data": b'{"image": "\\ud800"}', "content_type": "application/json"},
         "The body is not JSON", None),
    ],
)  # fmt: skip
def test_a_refusal_says_the_place_and_the_fix(
    client: FlaskClient, status: int, sent: Any, detail: str, pointer: str | None
) -> None:
    document = assert_problem(photo(client, **sent), status)
    assert document["detail"].startswith(detail)
    assert [e["pointer"] for e in document["errors"]][:1] == ([] if pointer is None else [pointer])


def test_a_fault_in_a_batch_is_told_with_its_sample(client: FlaskClient) -> None:
    rows = [{"image": IN_BASE64}, {"image": "YQ=="}]
    document = assert_problem(photo(client, "predict/batch", json={"samples": rows}), 422)
    assert document["detail"].startswith("/samples/1/image is no image of these formats")
    document = assert_problem(
        photo(client, "predict/batch", data={"data": [file(), file(b"x")]}), 422
    )
    assert [each["pointer"] for each in document["errors"]] == ["/image/1"]


def test_limits_are_those_of_the_settings(models: Path, make_app: Callable[..., Flask]) -> None:
    client = make_app(
        MODEL__PATH=str(models / "photos"),
        LIMITS__MAX_IMAGE_PIXELS="1500",
        LIMITS__MAX_BODY_BYTES="2000",
        LIMITS__MAX_BATCH_SIZE="3",
    ).test_client()
    assert client.post("/predict", data=RED, content_type="image/png").status_code == 200
    large = step_models.picture(size=(51, 30))
    document = assert_problem(client.post("/predict", data=large, content_type="image/png"), 413)
    assert document["detail"] == (
        "The image is 51 x 30 pixels, which exceeds the limit of 1,500 pixels "
        "(limits.max_image_pixels)."
    )
    assert_problem(client.post("/predict", data=b" " * 2001, content_type="image/png"), 413)
    small = base64.b64encode(step_models.picture(size=(4, 4))).decode()
    rows = {"samples": [{"image": small}] * 4}
    assert (
        "limit of 3 rows" in assert_problem(client.post("/predict/batch", json=rows), 413)["detail"]
    )
    wide = base64.b64encode(step_models.picture(size=(40, 1), form="GIF")).decode()
    body = {"samples": [{"image": wide}]}
    document = assert_problem(client.post("/predict/batch", json=body), 413)
    assert "resized is" in document["detail"]


def test_keys_are_required_as_of_other_models(models: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    _, key = create_key(keys, "someone", [PREDICT])
    guarded = _serving(models, LANTERN_ACCESS__AUTH="keys", LANTERN_ACCESS__KEYS_FILE=str(keys))
    client = guarded.test_client()
    assert photo(client, data=RED, content_type="image/png").status_code == 401
    sent = photo(
        client, data=RED, content_type="image/png", headers={"Authorization": f"Bearer {key}"}
    )
    assert answered(sent)["label"] == "red"


def test_a_large_batch_runs_in_parts_and_answers_as_one(
    models: Path, make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(MODEL__PATH=str(models / "photos"))
    client = app.test_client()
    model = app.extensions["lantern"].default_service.rollout.stable
    rows = [{"image": base64.b64encode(each).decode()} for each in (RED, GREEN)] * 4
    whole = answered(client.post("/predict/batch", json={"samples": rows}))
    monkeypatch.setattr(content, "PART_BYTES", 3 * 3 * 16 * 16 * 4)
    ran: list[int] = []
    run = model.runtime.run
    monkeypatch.setattr(
        model.runtime, "run", lambda tensors: (ran.append(len(tensors["pixels"])), run(tensors))[1]
    )
    assert answered(client.post("/predict/batch", json={"samples": rows})) == whole
    assert ran == [3, 3, 2]
    ran.clear()
    rows[7] = {"image": "YQ=="}
    document = assert_problem(client.post("/predict/batch", json={"samples": rows}), 422)
    assert document["errors"][0]["pointer"] == "/samples/7/image"
    assert rows_counted(client) == {"photos": 16}


def rows_counted(client: FlaskClient) -> dict[str, float]:
    """The rows that each model predicted, as the metrics have them."""
    counted = samples(client.get("/metrics").text)
    return {
        dict(labels)["model"]: value
        for (name, labels), value in counted.items()
        if name == "lantern_predicted_rows_total"
    }


def test_an_answer_is_remembered_by_the_row(models: Path, make_app: Callable[..., Flask]) -> None:
    app = make_app(MODEL__PATH=str(models / "photos"), CACHE__SIZE="10")
    client = app.test_client()
    first = answered(client.post("/predict", data=RED, content_type="image/png"))
    assert answered(client.post("/predict", json={"image": IN_BASE64})) == first
    answered(client.post("/predict", data=GREEN, content_type="image/png"))
    assert len(app.extensions["lantern"].default_service.rollout.stable.cache) == 2


def test_lines_have_rows_and_classes_and_never_an_image_or_a_text(
    models: Path, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    client = _serving(models, LANTERN_LOGGING__FEATURES="true").test_client()
    photo(client, data=RED, content_type="image/png")
    topic(client, json={"text": "a secret of mine"})
    topic(client, "predict/batch", json={"samples": [{"text": "a secret of mine"}] * 3})
    client.post("/models/doubled/predict", json={"value": 21, "x": "a secret of mine"})
    lines = log_lines()
    predictions = [line for line in lines if line["message"] == "prediction"]
    assert [line["model"] for line in predictions] == ["photos", "topics"]
    assert predictions[0]["prediction"] == "red"
    assert all("features" not in line for line in predictions)
    assert "secret" not in json.dumps(lines)
    requests = [line for line in lines if line["message"] == "request"]
    assert [line["rows"] for line in requests] == [1, 1, 3, 1]
    assert rows_counted(client) == {"photos": 1, "topics": 4, "doubled": 1}


# Versions.

NEAR = replace(PHOTO, crop=Size(16, 16), filter="nearest")


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """Version 2 has the steps of 1; version 3 has others, and so have the tokens of 2 of texts."""
    root = tmp_path / "photos"
    step_models.images(root / "1")
    step_models.images(root / "2")
    step_models.images(root / "3", step=NEAR)
    return root


def test_a_pinned_version_makes_rows_by_its_own_steps(
    versions: Path, make_app: Callable[..., Flask]
) -> None:
    write_release(versions, Release("1", "3", "canary", 0.0))
    client = make_app(MODEL__PATH=str(versions)).test_client()
    rows = np.random.default_rng(1).integers(0, 256, (43, 31, 3)).astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(rows).save(stream, "PNG")
    found = {}
    for version in ("1", "3"):
        sent = client.post(
            "/predict",
            data=stream.getvalue(),
            content_type="image/png",
            headers={"X-Model-Version": version},
        )
        document = answered(sent)
        assert document["model_version"] == version
        found[version] = document["probabilities"]
    alone = make_app(MODEL__PATH=str(versions / "3")).test_client()
    sent = alone.post("/predict", data=stream.getvalue(), content_type="image/png")
    assert answered(sent)["probabilities"] == found["3"] != found["1"]


@pytest.mark.parametrize(("candidate", "result"), [("2", "agreed"), ("3", "failed")])
def test_a_shadow_is_compared_only_on_rows_that_it_would_make(
    versions: Path, make_app: Callable[..., Flask], candidate: str, result: str
) -> None:
    write_release(versions, Release("1", candidate, "shadow"))
    app = make_app(MODEL__PATH=str(versions))
    client = app.test_client()
    answered(client.post("/predict", data=RED, content_type="image/png"))
    answered(client.post("/predict/batch", json={"samples": [{"image": IN_BASE64}] * 4}))
    assert app.extensions["lantern"].shadow.wait(60)
    counted = samples(client.get("/metrics").text)
    found = {
        dict(labels)["result"]: value
        for (name, labels), value in counted.items()
        if name == "lantern_shadow_rows_total" and value
    }
    assert found == {result: 5}


def test_rows_of_other_steps_or_of_another_tokenizer_are_no_rows_of_a_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str, **more: Any) -> Any:
        return load_model(ModelSource(step_models.texts(tmp_path / "topics" / name, **more)))

    stable, same = load("1"), load("2")
    rows = stable.steps.encode(step_models.SENTENCES)
    assert rows_for(stable, same, rows) is rows
    shorter = load("3", step=replace(SENTENCE, max_length=16))
    other = step_models.tokenizer().replace(b'"version": "1.0"', b'"version":  "1.0"', 1)
    assert other != step_models.tokenizer()
    monkeypatch.setattr(step_models, "tokenizer", lambda: other)
    photos = load_model(ModelSource(step_models.images(tmp_path / "photos" / "1")))
    for candidate in (shorter, load("4"), photos):
        with pytest.raises(Incomparable, match="different steps"):
            rows_for(stable, candidate, rows)


def test_its_tensors_are_taken_by_the_open_inference_protocol(client: FlaskClient) -> None:
    described = client.get("/v2/models/topics").get_json()
    assert [each["name"] for each in described["inputs"]] == ["input_ids", "attention_mask"]
    assert [each["name"] for each in described["outputs"]] == ["probabilities"]
    rows = load_model_rows(client)
    inputs = [
        {"name": name, "shape": array.shape, "datatype": "INT64", "data": array.ravel().tolist()}
        for name, array in rows.items()
    ]
    answer = client.post("/v2/models/topics/infer", json={"inputs": inputs}).get_json()
    (output,) = answer["outputs"]
    native = answered(topic(client, json={"text": TEXT}))["probabilities"]
    assert (output["name"], output["shape"]) == ("probabilities", [1, 3])
    assert output["data"] == pytest.approx(list(native.values()))


def load_model_rows(client: FlaskClient) -> dict[str, Any]:
    service = client.application.extensions["lantern"].get_service("topics")
    return dict(service.rollout.stable.steps.encode([Sample(text=TEXT)]))


def test_the_info_says_what_a_model_takes(client: FlaskClient) -> None:
    info = client.get("/models/photos").get_json()
    (step,) = info["steps"]
    assert (step["kind"], step["input"], info["top"]) == ("image", "pixels", 2)


# Anything at all.

TYPES = (
    *("image/png", "application/octet-stream", "text/plain", "text/plain; charset=latin1"),
    *("multipart/form-data", "multipart/form-data; boundary=b", "application/json", ""),
    *('multipart/form-data; boundary="\xff"', "application/x-www-form-urlencoded", "*/*"),
    *("text/plain; charset=x", "image/", "IMAGE/PNG;", "multipart/form-data; boundary=;"),
)
BODIES = st.one_of(
    st.binary(max_size=60),
    st.binary(max_size=60).map(lambda rest: RED[:40] + rest),
    st.binary(max_size=60).map(lambda rest: b"--b\r\n" + rest + b"\r\n--b--"),
    st.builds(
        _form,
        st.sampled_from([b"", b"name=data", b'name="image"', b'name="text', b"name*=x''data"]),
        st.binary(max_size=40),
        st.sampled_from([b"", b"Content-Type: text/plain; charset=x\r\n", b": \xff\r\n\r\n"]),
    ),
    st.recursive(
        st.one_of(st.none(), st.integers(), st.text(max_size=9), st.just(IN_BASE64)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["image", "text", "pair", "samples", "x"]), inner, max_size=3
            ),
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["photos", "topics", "doubled"]),
    st.sampled_from(["predict", "predict/batch", "predict?top=2"]),
    st.sampled_from(TYPES),
    BODIES,
)
def test_any_bytes_of_any_type_are_answered_or_refused(
    client: FlaskClient, model: str, call: str, content_type: str, body: bytes
) -> None:
    answer = client.post(f"/models/{model}/{call}", data=body, content_type=content_type)
    is_of_the_handler = model == "doubled" and answer.status_code == 500
    if is_of_the_handler:  # its code has no checks
        assert answer.get_json()["type"].endswith("handler-failed")
        return
    assert answer.status_code in (200, 400, 413, 415, 422), answer.text
    if answer.status_code != 200:
        assert_problem(answer, answer.status_code)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"samples":[' + b"{}," * 2_700_000 + b"{}]}"),
        ("application/json", b'{"samples":[' * 600_000),
        ("application/json", b'{"samples":[{"image":"' + b"A" * 8_000_001 + b'"}]}'),
        ("application/json", b"{" + b'"x":0,' * 1_300_000 + b'"y":0}'),
        ("multipart/form-data; boundary=b", b"--b\r\n" * 1_500_000),
        ("multipart/form-data; boundary=b", b"--b\r\nX: " + b"x" * 8_000_000),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"X: y\r\n" * 1_000_000 + b"\r\n--b--"),
        ("multipart/form-data; boundary=b", _form(b"name=data", b"\r\n--" * 2_000_000)[:-5]),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\n" * 1_000_000),
    ],
)  # fmt: skip
def test_hostile_bodies_are_refused(client: FlaskClient, content_type: str, body: bytes) -> None:
    answer = photo(client, "predict/batch", data=body, content_type=content_type)
    assert answer.status_code in (400, 413, 422)
    assert len(answer.data) < 40_000
