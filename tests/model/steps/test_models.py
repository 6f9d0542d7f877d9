"""Models that take images and texts: loading, self-test, predictions, and what callers notice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from msgspec.structs import replace

from app.model.bundle import open_bundle
from app.model.compat import breaking_changes, harmless_changes
from app.model.errors import (
    BundleError,
    Fault,
    InvalidSamples,
)
from app.model.manifest import Manifest
from app.model.model import Model
from app.model.signature import TensorSpec, row_at
from app.model.steps.declaration import Resize, Sample, Size, WordsStep
from app.model.steps.limits import SampleLimits
from app.registry.diff import diff_versions
from app.registry.loading import ModelSource, load_model
from app.registry.verification import verify
from tests.conftest import ROOT
from tests.damage import Arrays, edit_golden, edit_manifest, record_file
from tests.model.test_manifest import BOTH, IMAGES, TEXTS
from tests.step_models import (
    PHOTO,
    PICTURES,
    SENTENCES,
    TOKENIZER,
    images,
    picture,
    texts,
    tokenizer,
)

FAULT = Fault((0, "image"), "is odd")
KINDS = {"images": (images, PICTURES), "texts": (texts, SENTENCES)}


def loaded(path: Path, **more: Any) -> Model:
    return load_model(ModelSource(path, **more))


@pytest.mark.parametrize("kind", KINDS)
def test_samples_become_rows_that_a_model_predicts(kind: str, tmp_path: Path) -> None:
    write, samples = KINDS[kind]
    model = loaded(write(tmp_path / "1"))
    assert model.takes_samples
    assert not model.takes_features
    assert model.steps is not None
    rows = model.steps.encode(samples)
    batch = model.predict_batch(rows)
    alone = [model.predict(model.steps.encode([sample])) for sample in samples]
    for index, (prediction, one) in enumerate(zip(batch, alone, strict=True)):
        assert prediction.label == one.label == model.predict(row_at(rows, index)).label
        assert prediction.values == pytest.approx(one.values, abs=1e-6)
    if kind == "images":
        assert [prediction.label for prediction in batch] == ["red", "green", "blue"]
    assert len(model.predict_batch(model.steps.no_rows())) == 0


def test_the_outputs_by_tensors_are_the_graphs_own_and_the_answer_has_a_width(
    tmp_path: Path,
) -> None:
    model = loaded(images(tmp_path / "1"))
    assert model.signature == model.manifest.signature
    assert model.task.following == ()
    assert model.task.width == 3
    assert model.task.answer is not None
    assert model.task.answer.role == "probabilities"


def test_the_answers_to_rows_are_cached_by_what_is_in_them(tmp_path: Path) -> None:
    model = loaded(texts(tmp_path / "1"), cache_size=10)
    assert model.steps is not None
    first, second = (model.steps.encode([Sample(text=text)]) for text in ("a parcel", "parcel a"))
    assert [model.predict(row).was_cached for row in (first, second, first)] == [False, False, True]
    again = model.steps.encode([Sample(text="a parcel")])
    assert model.predict(again).values == model.predict(first).values
    assert model.predict(again).was_cached


def test_the_limits_of_samples_reach_the_steps(tmp_path: Path) -> None:
    limits = SampleLimits(image_pixels=1199)
    with pytest.raises(BundleError, match=r"golden samples are refused: .*max_image_pixels"):
        loaded(images(tmp_path / "1"), sample_limits=limits)
    model = loaded(tmp_path / "1", sample_limits=SampleLimits(image_pixels=1200))
    assert model.steps is not None
    with pytest.raises(InvalidSamples, match="limit of 1,200 pixels"):
        model.steps.encode([Sample(image=picture(size=(41, 30)))])


def test_the_description_of_a_model_has_its_steps(tmp_path: Path) -> None:
    info = loaded(texts(tmp_path / "1")).info()
    assert info["top"] == 2
    (step,) = info["steps"]
    assert step["kind"] == "text"
    assert step["tokenizer"] == TOKENIZER
    assert info["features"] == info["feature_names"] == []


@pytest.mark.parametrize("kind", KINDS)
def test_golden_data_with_samples_are_read_as_they_were_written(kind: str, tmp_path: Path) -> None:
    write, samples = KINDS[kind]
    golden = open_bundle(write(tmp_path / "1")).read_golden()
    assert golden is not None
    assert golden.samples == samples
    assert golden.row(1).samples == samples[1:2]


def _without(name: str) -> Callable[[Arrays], object]:
    return lambda arrays: arrays.pop(name)


@pytest.mark.parametrize(
    ("kind", "edit", "said"),
    [
        ("images", _without("image_1"), "must hold input_0, output_0; it holds input_0, output_0,"),
        ("images", _without("image_2"), "holds 2 and 3"),
        ("images", lambda a: a.update(text_0=np.array("a")), "text_0 must be there for each step"),
        ("images", lambda a: a.update(image_0=np.array("a")), "image_0 must be there for each"),
        ("images", lambda a: a.update(image_0=np.zeros((2, 2), np.uint8)), "image_0 must be there"),
        ("texts", lambda a: a.update(text_0=np.array(["a"])), "text_0 must be there for each step"),
        ("texts", lambda a: a.update(pair_0=np.array(3)), "pair_0 must be there for each step"),
        ("texts", _without("text_2"), "must hold input_0, input_1, output_0; it holds"),
    ],
)
def test_golden_samples_that_do_not_fit_are_refused(
    kind: str, edit: Callable[[Arrays], object], said: str, tmp_path: Path
) -> None:
    bundle = KINDS[kind][0](tmp_path / "1")
    edit_golden(bundle, edit)
    with pytest.raises(BundleError, match=said):
        loaded(bundle)
    assert said in verify(tmp_path, "1", measure=False).problems[0]


OTHER_STEPS: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "another mean": ("images", lambda s: s.update(mean=[0.5, 0.5, 0.5])),
    "another filter": ("images", lambda s: s.update(filter="nearest")),
    "another order of channels": ("images", lambda s: s.update(resize={"shorter": 21})),
    "another length": ("texts", lambda s: s.update(max_length=6)),
    "another padding": ("texts", lambda s: s.update(pad_id=5)),
}


@pytest.mark.parametrize("name", OTHER_STEPS)
def test_a_model_whose_steps_make_other_inputs_is_not_served(name: str, tmp_path: Path) -> None:
    kind, edit = OTHER_STEPS[name]
    bundle = KINDS[kind][0](tmp_path / "1")
    edit_manifest(bundle, lambda m: edit(m["steps"][0]))
    with pytest.raises(BundleError, match="The steps make another '.*' of the golden samples than"):
        loaded(bundle)
    (problem,) = verify(tmp_path, "1", measure=False).problems
    assert "The steps make another" in problem


def test_a_model_whose_tokenizer_was_replaced_is_not_served(tmp_path: Path) -> None:
    bundle = texts(tmp_path / "1")
    (bundle / TOKENIZER).write_bytes(tokenizer().replace(b"true", b"null"))
    with pytest.raises(BundleError, match="was altered"):
        loaded(bundle)
    for content, said in ((b"{}", "is no tokenizer"), (tokenizer()[:900], "is no tokenizer")):
        (bundle / TOKENIZER).write_bytes(content)
        record_file(bundle, TOKENIZER)
        with pytest.raises(BundleError, match=said):
            loaded(bundle)
        assert said in verify(tmp_path, "1", measure=False).problems[0]


def test_a_network_whose_answer_depends_on_the_padding_is_not_served(tmp_path: Path) -> None:
    """Each golden sample is run alone, too, as callers send it."""
    bundle = texts(tmp_path / "1", masks=False)
    with pytest.raises(BundleError, match="answers to the golden samples differ"):
        loaded(bundle)


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_with_steps_verifies(kind: str, tmp_path: Path) -> None:
    KINDS[kind][0](tmp_path / "1")
    report = verify(tmp_path, "1")
    assert report.problems == ()
    assert report.runtimes[0].latency is not None


def test_a_worker_without_steps_imports_neither_library() -> None:
    program = """
import sys
from app import create_app
from app.registry.loading import ModelSource, load_model
from app.settings.places import EXAMPLE
load_model(ModelSource(EXAMPLE))
sys.exit(", ".join(m for m in ("PIL", "tokenizers") if m in sys.modules) or 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("make", "library"), [(images, "PIL"), (texts, "tokenizers")])
def test_what_reads_the_samples_is_imported_before_the_fork(
    make: Callable[[Path], Path], library: str, tmp_path: Path
) -> None:
    path = make(tmp_path / "m" / "1")
    program = f"""
import sys
from pathlib import Path
from app.registry.loading import ModelSource, import_libraries
import_libraries(ModelSource(Path({str(path)!r})))
sys.exit({library!r} not in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def changed(manifest: Manifest, **step: Any) -> Manifest:
    return replace(manifest, steps=(replace(manifest.steps[0], **step),))


def test_other_steps_of_the_same_kind_break_no_caller() -> None:
    other = changed(IMAGES, mean=(0.1, 0.2, 0.3), crop=Size(299, 299), resize=Resize(320))
    other = replace(other, inputs=(TensorSpec("pixels", "FP32", (-1, 3, 299, 299)),))
    assert breaking_changes(IMAGES, other) == []
    step, whole = harmless_changes(IMAGES, other)
    assert step == "The image step has another resize, crop, mean."
    assert whole.startswith("The input 'pixels' is FP32 of shape [-1, 3, 299, 299], and was")
    file = TEXTS.files[TOKENIZER]
    retrained = replace(TEXTS, files=TEXTS.files | {TOKENIZER: replace(file, sha256="3" * 64)})
    assert breaking_changes(TEXTS, retrained) == []
    assert harmless_changes(TEXTS, retrained) == ["The text step has another tokenizer."]
    assert harmless_changes(TEXTS, TEXTS) == []
    words = WordsStep(TOKENIZER, "input_ids", 128)
    of_words = replace(TEXTS, steps=(words,), inputs=TEXTS.inputs[:1])
    assert breaking_changes(TEXTS, of_words) == []
    assert harmless_changes(TEXTS, of_words) == ["The text step has become a words step."]
    file = replace(file, sha256="4" * 64)
    retrained = replace(of_words, files=TEXTS.files | {TOKENIZER: file})
    assert harmless_changes(of_words, retrained) == ["The words step has another vocabulary."]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (TEXTS, IMAGES, ["It takes no text", "Each text needs one image more"]),
        (
            IMAGES,
            replace(BOTH, top=1),
            ["Each image needs one text more"],
        ),
        (BOTH, TEXTS, ["It takes no image, and callers send one"]),
        (IMAGES, replace(IMAGES, top=0), ["The answer no longer has the most probable classes"]),
        (IMAGES, replace(IMAGES, steps=()), ["It takes tensors only, and callers send images"]),
        (replace(IMAGES, steps=(), top=0), IMAGES, []),
    ],
)
def test_other_samples_break_callers(old: Manifest, new: Manifest, said: list[str]) -> None:
    found = breaking_changes(old, new)
    assert len(found) == len(said)
    for sentence, wanted in zip(found, said, strict=True):
        assert wanted in sentence


def test_two_versions_answer_the_samples_of_both(tmp_path: Path) -> None:
    images(tmp_path / "1")
    images(tmp_path / "2", step=replace(PHOTO, resize=Resize(shorter=24)))
    diff = diff_versions(tmp_path, "1", "2")
    assert diff.breaking == ()
    assert diff.agreement is not None
    assert diff.agreement.samples == len(PICTURES)
    assert diff.agreement.agreed == 1
    assert diff.agreement.largest_difference
    same = diff_versions(tmp_path, "1", "1").agreement
    assert same is not None
    assert same.largest_difference == 0


def test_versions_that_take_other_samples_are_not_compared(tmp_path: Path) -> None:
    images(tmp_path / "1")
    texts(tmp_path / "2")
    diff = diff_versions(tmp_path, "1", "2")
    assert diff.agreement is None
    assert "don't both take the same images and texts" in diff.incomparable


def test_a_model_with_steps_is_described_and_takes_tensors(
    tmp_path: Path, make_app: Callable[..., Flask]
) -> None:
    images(tmp_path / "pictures" / "1")
    client = make_app(MODEL__PATH=str(tmp_path / "pictures")).test_client()
    info = client.get("/model/info").get_json()
    assert info["top"] == 2
    assert info["steps"][0]["kind"] == "image"
    assert info["steps"][0]["crop"] == {"width": 16, "height": 16}
    for path in ("/", "/openapi.json", "/v2/models/pictures"):
        assert client.get(path, headers={"Accept": "*/*"}).status_code == 200
    assert client.get("/", headers={"Accept": "text/html"}).status_code == 200
    model = loaded(tmp_path / "pictures")
    assert model.steps is not None
    row = model.steps.encode(PICTURES[:1])["pixels"]
    sent = {"name": "pixels", "datatype": "FP32", "shape": row.shape, "data": row.ravel().tolist()}
    answer = client.post("/v2/models/pictures/infer", json={"inputs": [sent]}).get_json()
    (output,) = answer["outputs"]
    assert output["name"] == "probabilities"
    assert output["data"] == pytest.approx(model.predict({"pixels": row}).values, abs=1e-6)


def test_a_version_with_steps_is_shown(tmp_path: Path, make_app: Callable[..., Flask]) -> None:
    images(tmp_path / "m" / "1")
    texts(tmp_path / "m" / "2")
    runner = make_app(MODEL__PATH=str(tmp_path / "m")).test_cli_runner()

    def run(*arguments: str) -> str:
        result = runner.invoke(args=["model", *arguments])
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    shown = run("show", "1")
    assert "STEP INPUTS HOW image pixels resize shorter 20, crop 16 x 16, scale 0.003922," in shown
    assert "mean 0.485 0.456 0.406, std 0.229 0.224 0.225" in shown
    assert "top 2" in shown
    assert "text input_ids, attention_mask tokenizer tokenizer.json, max_length 32" in run(
        "show", "2"
    )
    assert "1 image, 3 classes" in run("verify", "1")
    assert "It takes no image, and callers send one." in run("diff", "1", "2")
