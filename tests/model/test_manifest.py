"""The manifest: what each member must be, and how the members must fit each other."""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from app.model.code.declaration import HandlerSpec
from app.model.errors import BundleError
from app.model.features import MAX_CATEGORIES, Feature
from app.model.manifest import FileRecord, Manifest, Target, Tolerance
from app.model.manifest_file import LARGEST_FILE, read_manifest, write_manifest
from app.model.signature import FEATURES, MAX_TENSORS, PROBABILITIES, OutputSpec, TensorSpec
from app.model.steps.declaration import ImageStep, Resize, Size, TextStep
from tests.conftest import BUNDLE
from tests.task_models import MIXED, MIXED_INPUTS

Document = dict[str, Any]
Edit = Callable[[Document], object]
FILES = {"golden.npz": FileRecord("0" * 64, 1), "model.onnx": FileRecord("1" * 64, 2)}


def manifest_of(**members: Any) -> Manifest:
    """A regression of two numbers, changed by ``members``."""
    wanted: Document = {
        "name": "m",
        "version": "1",
        "task": "regression",
        "features": (Feature("rooms", column=0), Feature("area", column=1)),
        "inputs": (TensorSpec("features", "FP32", (-1, 2)),),
        "outputs": (
            OutputSpec("values", "FP32", (-1, 1), "values"),
            OutputSpec("leaf", "INT64", (-1, 3)),
        ),
        "targets": (Target("price", "EUR"),),
        "batch": True,
        "golden_file": "golden.npz",
        "files": FILES,
    }
    return Manifest(**(wanted | members))


REGRESSION = manifest_of()
CLASSIFIER = manifest_of(
    task="classification",
    features=MIXED,
    inputs=MIXED_INPUTS,
    outputs=(
        OutputSpec("probabilities", "FP32", (-1, 2), "probabilities"),
        OutputSpec("own label", "INT64", (-1,), "label"),
        OutputSpec("own logits", "FP32", (-1, 2), "logits"),
    ),
    classes=("no", "yes"),
    targets=(),
)
MULTILABEL = manifest_of(
    task="multilabel",
    outputs=(
        OutputSpec("probabilities", "FP32", (-1, 2), "probabilities"),
        OutputSpec("own label", "INT64", (-1, 2), "label"),
    ),
    labels=("large", "airy"),
    targets=(),
)
EMBEDDING = manifest_of(
    task="embedding", outputs=(OutputSpec("vector", "FP64", (-1, 8), "embedding"),), targets=()
)
TENSORS = manifest_of(
    task="tensors",
    features=(),
    inputs=(TensorSpec("text", "BYTES", (-1,)), TensorSpec("state", "FP16", ())),
    outputs=(OutputSpec("found", "BOOL", (-1, -1, 3)), OutputSpec("next", "FP16", (), "state")),
    targets=(),
    batch=False,
)
PIXELS = TensorSpec("pixels", "FP32", (-1, 3, 224, 224))
TOKENS = tuple(
    TensorSpec(name, "INT64", (-1, -1))
    for name in ("input_ids", "attention_mask", "token_type_ids")
)
PHOTO = ImageStep(
    "pixels",
    "RGB",
    Resize(256),
    "bicubic",
    Size(224, 224),
    scale=1 / 255,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
SENTENCE = TextStep("tokenizer.json", 128, *(spec.name for spec in TOKENS))
IMAGES = manifest_of(
    task="classification",
    features=(),
    inputs=(PIXELS,),
    steps=(PHOTO,),
    outputs=(OutputSpec("p", "FP32", (-1, 3), "probabilities"),),
    classes=("cat", "dog", "fox"),
    targets=(),
    top=3,
)
TEXTS = replace(
    IMAGES,
    inputs=TOKENS,
    steps=(SENTENCE,),
    top=0,
    files=FILES | {"tokenizer.json": FileRecord("2" * 64, 3)},
)
BOTH = replace(TEXTS, inputs=(*TOKENS, PIXELS), steps=(PHOTO, SENTENCE))
OF_STEPS = {"images": IMAGES, "texts": TEXTS, "both": BOTH}
HANDLER = manifest_of(
    task="tensors",
    features=(),
    inputs=(),
    outputs=(),
    targets=(),
    classes=("no", "yes"),
    batch=False,
    golden_file="",
    handler=HandlerSpec("handler.py", "torchserve", ("words.txt",), ("pillow>=10",)),
    files=FILES
    | {
        name: FileRecord("2" * 64, 3)
        for name in ("handler.py", "words.txt", "golden_requests.json")
    },
)
EACH = {m.task: m for m in (REGRESSION, CLASSIFIER, MULTILABEL, EMBEDDING, TENSORS)}


def written(manifest: Manifest, directory: Path) -> Path:
    write_manifest(manifest, directory / "manifest.json")
    return directory / "manifest.json"


def refused(manifest: Manifest, edit: Edit, directory: Path) -> str:
    """Return why the manifest is refused once its document is edited."""
    path = written(manifest, directory)
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    with pytest.raises(BundleError) as refusal:
        read_manifest(path)
    return str(refusal.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("manifest", [*EACH.values(), HANDLER], ids=[*EACH, "handler"])
def test_a_manifest_of_each_task_is_read_as_it_was_written(
    manifest: Manifest, tmp_path: Path
) -> None:
    assert read_manifest(written(manifest, tmp_path)) == manifest


@pytest.mark.parametrize("kind", OF_STEPS)
def test_a_manifest_with_steps_is_read_as_it_was_written(kind: str, tmp_path: Path) -> None:
    assert read_manifest(written(OF_STEPS[kind], tmp_path)) == OF_STEPS[kind]


def test_null_in_a_step_is_the_same_as_a_member_left_out(tmp_path: Path) -> None:
    path = written(BOTH, tmp_path)
    document = json.loads(path.read_text())
    document["steps"][0].update(layout=None)
    document["steps"][1].update(padding=None, truncation=None)
    path.write_text(json.dumps(document))
    assert read_manifest(path) == BOTH


def _step(**members: Any) -> Edit:
    return lambda document: document["steps"][0].update(members)


REFUSED_STEPS: list[tuple[Manifest, Edit, str]] = [
    (IMAGES, _step(kind="audio"), "steps[0].kind must be one of 'image', 'text'"),
    (IMAGES, lambda m: m["steps"][0].pop("kind"), "steps[0].kind must be one of 'image', 'text'"),
    (IMAGES, lambda m: m["steps"][0].pop("input"), "steps[0].input must be a string"),
    (IMAGES, lambda m: m.update(steps={}), "steps must be an array"),
    (IMAGES, lambda m: m.update(steps=["image"]), "steps[0] must be an object"),
    (IMAGES, _step(sise=3), "steps[0].sise must be left out"),
    (IMAGES, _step(mode="RGBA"), "steps[0].mode must be one of 'RGB', 'L'"),
    (IMAGES, _step(filter="bilinaer"), "did you mean 'bilinear'?"),
    (IMAGES, _step(scale=0), "steps[0].scale must be a finite number greater than 0"),
    (IMAGES, _step(mean=[0.5]), "steps[0].mean must have 3 numbers, one for each channel"),
    (IMAGES, _step(std=[1, 0, 1]), "steps[0].std must be of numbers greater than 0"),
    (IMAGES, _step(crop={"width": 224}), "steps[0].crop.height must be a number of pixels"),
    (IMAGES, _step(crop={"width": 1, "height": 99999}), "from 1 to 16,384"),
    (IMAGES, _step(resize={}), "steps[0].resize must have either shorter, or width and height"),
    (IMAGES, _step(resize={"width": 3}), "steps[0].resize must have either"),
    (IMAGES, _step(resize={"shorter": 3, "width": 3}), "steps[0].resize must have either"),
    (IMAGES, _step(resize={"shorter": 3, "width": 3, "height": 3}), "resize must have either"),
    (IMAGES, _step(crop={"width": 200, "height": 224}), "steps[0] makes [-1, 3, 224, 200]"),
    (IMAGES, _step(layout="NHWC"), "steps[0] makes [-1, 224, 224, 3]"),
    (IMAGES, _step(mode="L", mean=[], std=[]), "steps[0] makes [-1, 1, 224, 224]"),
    (IMAGES, _step(input="x"), "steps[0] fills 'x', which is not one of the inputs: pixels"),
    (
        IMAGES,
        lambda m: m["inputs"][0].update(datatype="INT8"),
        "steps[0].input: 'pixels' must be FP32 or FP16 or UINT8 for an image, not INT8",
    ),
    (
        IMAGES,
        lambda m: m["inputs"][0].update(datatype="UINT8"),
        "steps[0]: scale, mean and std are for floats, and 'pixels' is UINT8",
    ),
    (
        IMAGES,
        lambda m: m["inputs"][0].update(shape=[-1, 3, 224]),
        "steps[0].input: 'pixels' must be of shape [-1, channels, height, width]",
    ),
    (
        IMAGES,
        lambda m: (m["inputs"][0].update(shape=[-1, 3, -1, -1]), m["steps"][0].pop("crop")),
        "steps[0]: nothing says which size an image has",
    ),
    (IMAGES, lambda m: m["steps"].append(m["steps"][0]), "at most one of the kind 'image'"),
    (IMAGES, lambda m: m["steps"].extend(m["steps"] * 2), "an image step, a text step, or both"),
    (BOTH, lambda m: m["steps"].pop(0), "steps must fill the input 'pixels' once; 0 of them do"),
    (IMAGES, lambda m: m.update(batch=False), "batch must be true where there are steps"),
    (
        IMAGES,
        lambda m: m.update(features=[{"name": "a"}]),
        "steps must be left out where there are features",
    ),
    (
        replace(TENSORS, inputs=(PIXELS,), steps=(PHOTO,), outputs=TENSORS.outputs[:1], batch=True),
        lambda m: m,
        "steps must be left out where the task is 'tensors', which has no answer",
    ),
    (IMAGES, lambda m: m.update(top=4), "top must be at most the number of classes, and is 4"),
    (IMAGES, lambda m: m.update(top=-1), "top must be an integer from 0 to 1000"),
    (REGRESSION, lambda m: m.update(top=1), "top is for a task whose answer is probabilities"),
    (TEXTS, _step(tokenizer="../x"), "steps[0].tokenizer must be named like a plain file"),
    (TEXTS, _step(tokenizer="vocab.txt"), "steps name 'vocab.txt', which files doesn't list"),
    (TEXTS, _step(max_length=0), "steps[0].max_length must be an integer from 1 to 65536"),
    (TEXTS, _step(attention_mask="input_ids"), "must fill the input 'input_ids' once; 2 of them"),
    (
        TEXTS,
        lambda m: m["inputs"][1].update(datatype="FP32"),
        "steps[0]: 'attention_mask' must be INT64 or INT32 for tokens, not FP32",
    ),
    (
        TEXTS,
        lambda m: m["inputs"][0].update(shape=[-1, 64]),
        "steps[0]: 'input_ids' takes 64 tokens, and so padding must be 'max_length'",
    ),
    (
        TEXTS,
        lambda m: m["inputs"][0].update(shape=[-1, 64, 1]),
        "steps[0]: 'input_ids' must be of shape [-1, tokens]",
    ),
]


@pytest.mark.parametrize(("manifest", "edit", "said"), REFUSED_STEPS)
def test_steps_that_are_wrong_are_refused_by_their_place(
    manifest: Manifest, edit: Edit, said: str, tmp_path: Path
) -> None:
    assert said in refused(manifest, edit, tmp_path)


def test_formats_1_and_2_of_a_model_are_equal_in_memory(tmp_path: Path) -> None:
    features = [
        {"name": "age", "unit": "years", "minimum": 18, "maximum": 90, "example": 40},
        {"name": "income", "nullable": True, "description": None},
    ]
    golden = {"samples": [[30, None], [50, 1.5]], "probabilities": [[0.25, 0.75], [1, 0]]}
    (tmp_path / "manifest.json").write_text(
        json.dumps(
            {
                "format": 1, "name": "m", "version": "1", "features": features,
                "classes": ["no", "yes"], "golden": golden, "whatever": "is ignored",
                "files": {"model.onnx": {"sha256": "1" * 64, "size": 2}},
                "training": {"rows": 3},
            }
        )
    )  # fmt: skip
    first = read_manifest(tmp_path / "manifest.json")
    assert first.golden is not None
    rows = first.golden.inputs[FEATURES]
    np.testing.assert_array_equal(rows, np.array([[30, np.nan], [50, 1.5]], dtype=np.float32))
    assert first.golden.outputs[PROBABILITIES].dtype == np.float32
    as_format_2 = replace(first, golden=None, golden_file="golden.npz", files=FILES)
    second = read_manifest(written(as_format_2, tmp_path))
    assert second == as_format_2
    assert replace(second, golden_file="", files={}) == replace(first, golden=None, files={})
    assert second.inputs == (TensorSpec("features", "FP32", (-1, 2)),)
    assert second.outputs == (OutputSpec("probabilities", "FP32", (-1, 2), "probabilities"),)
    assert second.batch
    assert second.tolerances == {"probabilities": Tolerance(0, 1e-5)}


REFUSED: list[tuple[Manifest, Edit, str]] = [
    # its members
    (REGRESSION, lambda m: m.update(format=3), "format must be 1 or 2 (it is 3)"),
    (REGRESSION, lambda m: m.update(format=True), "format must be 1 or 2 (it is True)"),
    (REGRESSION, lambda m: m.update(format=2.0), "format must be 1 or 2 (it is 2.0)"),
    (REGRESSION, lambda m: m.update(handler="x.py"), "handler must be an object"),
    (REGRESSION, lambda m: m.update(targts=[]), "targts must be left out; did you mean 'targets'?"),
    (REGRESSION, lambda m: m["inputs"][0].update(x=1), "inputs[0].x must be left out"),
    (REGRESSION, lambda m: m["features"][0].update(x=1), "features[0].x must be left out"),
    (REGRESSION, lambda m: m["targets"][0].update(x=1), "targets[0].x must be left out"),
    (REGRESSION, lambda m: m.update(task="ranking"), "task must be one of 'classification'"),
    (REGRESSION, lambda m: m.pop("inputs"), "inputs must be an array of at most 1000 tensors"),
    (REGRESSION, lambda m: m.update(outputs=[]), "outputs must be an array of 1 to 1000 tensors"),
    (REGRESSION, lambda m: m.pop("golden"), "golden must be named like a plain file"),
    (REGRESSION, lambda m: m.update(golden="../x"), "golden must be named like a plain file"),
    (REGRESSION, lambda m: m.update(golden="x.npz"), "golden names 'x.npz', which files doesn't"),
    (REGRESSION, lambda m: m.update(reference="r.json"), "reference names 'r.json', which files"),
    (REGRESSION, lambda m: m.update(tolerances={"x": {}}), "tolerances has 'x', which is not one"),
    (
        REGRESSION,
        lambda m: m.update(tolerances={"leaf": {"relative": 2}}),
        "tolerances.leaf.relative must be a finite number from 0",
    ),
    # its tensors
    (REGRESSION, lambda m: m["inputs"][0].update(datatype="FP8"), "inputs[0].datatype must be on"),
    (REGRESSION, lambda m: m["inputs"][0].update(shape=[-2]), "inputs[0].shape[0] must be"),
    (REGRESSION, lambda m: m["inputs"][0].update(name=""), "inputs[0].name must be a string of 1"),
    (REGRESSION, lambda m: m["outputs"][1].update(role="x"), "outputs[1].role must be one of"),
    (REGRESSION, lambda m: m["inputs"].append(m["inputs"][0]), "inputs must be unique; repeated"),
    (REGRESSION, lambda m: m["outputs"].append(m["outputs"][1]), "outputs must be unique"),
    (REGRESSION, lambda m: m["features"].append(m["features"][0]), "features must be unique"),
    (CLASSIFIER, lambda m: m.update(classes=["a", "a"]), "classes must be unique; repeated: a."),
    (CLASSIFIER, lambda m: m.update(classes=["a", "b" * 257]), "classes[1] is a name of 257"),
    (MULTILABEL, lambda m: m.update(labels=["a", "a"]), "labels must be unique; repeated: a."),
    (
        TENSORS,
        lambda m: m["outputs"][0].update(shape=[2**16, 2**15, -1, 0]),
        "outputs: 'found' would have 2,147,483,648 values, which exceeds the limit of",
    ),
    (
        TENSORS,
        lambda m: m["inputs"][0].update(shape=[2**31 - 1] * 32),
        "inputs: 'text' would have",
    ),
    # its handler
    (HANDLER, lambda m: m["handler"].update(file="x.py"), "handler names 'x.py', which files doe"),
    (HANDLER, lambda m: m["handler"].update(file="golden.npz"), "handler.file must be the name of"),
    (HANDLER, lambda m: m["handler"].update(file="../x.py"), "handler.file must be named like a p"),
    (HANDLER, lambda m: m["handler"].update(files=["x"]), "handler names 'x', which files doesn't"),
    (HANDLER, lambda m: m["handler"].update(files=["handler.py"]), "handler.files must be unique;"),
    (HANDLER, lambda m: m["handler"].update(interface="x"), "handler.interface must be one of 'la"),
    (HANDLER, lambda m: m["handler"].update(golden="x"), "handler names 'x', which files doesn't"),
    (HANDLER, lambda m: m["handler"].update(x=1), "handler.x must be left out"),
    (HANDLER, lambda m: m["handler"].pop("file"), "handler.file must be named like a plain file"),
    (HANDLER, lambda m: m.pop("handler"), "outputs must be an array of 1 to 1000 tensors"),
    (HANDLER, lambda m: m.update(task="embedding"), "task must be 'tensors' where there are no ou"),
    (HANDLER, lambda m: m.update(golden="golden.npz"), "golden is for a network, and there are no"),
    (
        HANDLER,
        lambda m: m.update(inputs=[{"name": "x", "datatype": "FP32", "shape": []}]),
        "inputs is for a network, and there are no outputs of one.",
    ),
    # rows
    (REGRESSION, lambda m: m.update(batch=False), "batch must be true where there are features"),
    (TENSORS, lambda m: m.update(batch=True), "inputs: 'state' must have -1 as its"),
    (TENSORS, lambda m: m.update(batch=True, inputs=[]), "batch must be false where there are no"),
    (REGRESSION, lambda m: m["outputs"][1].update(shape=[3]), "outputs: 'leaf' must have -1"),
    # its task
    (REGRESSION, lambda m: m.update(task="embedding"), "targets is for the task 'regression', and"),
    (CLASSIFIER, lambda m: m.update(labels=["a"]), "labels is for the task 'multilabel', and the"),
    (REGRESSION, lambda m: m.update(classes=["a", "b"]), "classes is for the task"),
    (REGRESSION, lambda m: m.pop("targets"), "targets is missing, which the task 'regression'"),
    (MULTILABEL, lambda m: m.pop("labels"), "labels is missing, which the task 'multilabel'"),
    (CLASSIFIER, lambda m: m.pop("classes"), "classes is missing, which the task"),
    (CLASSIFIER, lambda m: m.update(classes=["a"]), "classes must be two or more."),
    (CLASSIFIER, lambda m: m.update(classes=["a", "b", "c"]), "outputs: 'probabilities' must be o"),
    (
        CLASSIFIER,
        lambda m: m["outputs"][0].update(role="tensor"),
        "outputs must have exactly one of the role 'probabilities' or 'scores' for the task "
        "'classification'; 0 have it.",
    ),
    (
        CLASSIFIER,
        lambda m: m["outputs"][2].update(role="scores"),
        "outputs must have exactly one of the role 'probabilities' or 'scores'",
    ),
    (
        CLASSIFIER,
        lambda m: m["outputs"][2].update(role="label"),
        "outputs must have at most one of the role 'label'",
    ),
    (TENSORS, lambda m: m["outputs"][0].update(role="values"), "outputs must have the role 'tenso"),
    (
        REGRESSION,
        lambda m: m["outputs"][1].update(role="label", shape=[-1]),
        "outputs: 'leaf' is a label, and the task is 'regression'.",
    ),
    (
        CLASSIFIER,
        lambda m: m["outputs"][0].update(datatype="FP64"),
        "outputs: 'probabilities' must be FP32, not FP64.",
    ),
    (CLASSIFIER, lambda m: m["outputs"][1].update(datatype="BYTES"), "outputs: 'own label' must b"),
    (CLASSIFIER, lambda m: m["outputs"][1].update(shape=[-1, 1]), "outputs: 'own label' must be"),
    (
        MULTILABEL,
        lambda m: m["outputs"][1].update(shape=[-1, 3]),
        "outputs: 'own label' must be INT64 of shape [-1, 2], as labels are.",
    ),
    (EMBEDDING, lambda m: m["outputs"][0].update(shape=[-1]), "outputs: 'vector' must be of shape"),
    (EMBEDDING, lambda m: m["outputs"][0].update(shape=[-1, -1]), "outputs: 'vector' must be of"),
    (EMBEDDING, lambda m: m["outputs"][0].update(shape=[-1, 0]), "outputs: 'vector' must be of"),
    *(
        (
            CLASSIFIER,
            lambda m, name=name: m["outputs"][2].update(name=name),
            f"outputs: '{name}' is the name of an output of the task; give that of the role",
        )
        for name in ("prediction", "label")
    ),
    (
        REGRESSION,
        lambda m: [m["outputs"][0].update(name="own"), m["outputs"][1].update(name="values")],
        "outputs: 'values' is the name of an output of the task",
    ),
]  # fmt: skip


def of_feature(name: str, **members: Any) -> Edit:
    def edit(document: Document) -> None:
        [feature] = [each for each in document["features"] if each["name"] == name]
        feature.update(members)

    return edit


def without(name: str, *members: str) -> Edit:
    def edit(document: Document) -> None:
        [feature] = [each for each in document["features"] if each["name"] == name]
        for member in members:
            del feature[member]

    return edit


FEATURES_REFUSED: list[tuple[Edit, str]] = [
    (of_feature("age", tensor="x"), "features[1] ('age'): its tensor 'x' is not one of the inputs"),
    (of_feature("age", column=2), "features[1] ('age'): 'numbers' has no column 2."),
    (of_feature("age", column=1), "features[6] ('income') has the column of 'age'."),
    (of_feature("age", column=-1), "features[1].column must be an integer of at least 0"),
    (
        lambda m: [
            m.update(features=m["features"][:2]),
            m["features"][0].update(name="b", tensor="a", column=0),
            m["features"][1].update(name="a", tensor="b", column=0),
            m.update(
                inputs=[
                    {"name": "b", "datatype": "FP32", "shape": [-1, 1]},
                    {"name": "a", "datatype": "BYTES", "shape": [-1, 1]},
                ]
            ),
        ],
        "features: 'b' is the name of another input than its tensor 'a'",
    ),
    (without("age", "column"), "features[1] ('age'): column is missing; 'numbers' has 2."),
    (
        lambda m: m["inputs"][0].update(shape=[-1, 3]),
        "inputs: no feature is the column 2 of 'numbers', whose shape is [-1, 3].",
    ),
    (
        lambda m: m["inputs"].append({"name": "y", "datatype": "FP32", "shape": [-1, 2, 2]}),
        "inputs: no feature is the column 0 of 'y', whose shape is [-1, 2, 2].",
    ),
    (
        lambda m: m["inputs"][0].update(shape=[-1, 2, 1]),
        "features[1] ('age'): 'numbers' must be of shape [-1] or [-1, columns]",
    ),
    (of_feature("age", kind="real"), "features[1].kind must be one of 'number', 'integer'"),
    (of_feature("visits", kind="number"), "features[4] ('visits'): 'number' can't be a column of"),
    (of_feature("age", kind="category"), "features[1] ('age'): minimum and maximum are for number"),
    (of_feature("member", minimum=0), "features[3] ('member'): minimum and maximum are for number"),
    (of_feature("age", minimum=91), "features[1] ('age'): minimum must be at most the maximum."),
    (of_feature("age", minimum=1e39), "features[1].minimum must be a number that is finite as a 3"),
    (of_feature("age", categories=["a"]), "features[1] ('age'): categories and unknown are for"),
    (of_feature("age", unknown="pass"), "features[1] ('age'): categories and unknown are for"),
    (of_feature("city", categories=["a", "a"]), "features[0] ('city'): categories must be unique."),
    (of_feature("city", categories=["a" * 257]), "features[0] ('city'): categories[0] is a string"),
    (without("city", "categories"), "features[0] ('city'): categories is missing: the strings"),
    (of_feature("plan", unknown="pass"), "features[2] ('plan'): unknown can't be 'pass' where"),
    (of_feature("city", nullable=True), "features[0] ('city'): it is nullable, and BYTES can't ho"),
    (of_feature("city", nullable=True, null_as=1), "null_as must say, as a string, what null beco"),
    (of_feature("member", nullable=True, null_as=1), "null_as must say, as true or false, what nu"),
    (of_feature("floor", null_as=True), "null_as must say, as an integer, what null becomes"),
    (of_feature("floor", null_as=2**31), "null_as must be from -2,147,483,648 to 2,147,483,647, i"),
    (of_feature("income", null_as=0), "features[6] ('income'): null_as is for a nullable feature"),
    (of_feature("age", null_as=0), "features[1] ('age'): null_as is for a nullable feature whose"),
    (of_feature("age", example="40"), "features[1] ('age'): example must be a number, not a strin"),
    (of_feature("visits", example=2.5), "features[4] ('visits'): example must be an integer."),
    (of_feature("visits", example=2**63), "features[4] ('visits'): example must be from"),
    (of_feature("member", example=1), "features[3] ('member'): example must be true or false, not"),
    (of_feature("plan", example="gold"), "features[2] ('plan'): example is not one of the feature"),
    (
        of_feature("plan", categories=[str(i) for i in range(MAX_CATEGORIES + 1)]),
        "features[2].categories must be an array of at most 10,000 strings.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("manifest", "edit", "said"),
    [*REFUSED, *((CLASSIFIER, edit, said) for edit, said in FEATURES_REFUSED)],
)
def test_what_does_not_fit_is_refused_by_its_place(
    manifest: Manifest, edit: Edit, said: str, tmp_path: Path
) -> None:
    assert said in refused(manifest, edit, tmp_path)


@pytest.mark.parametrize(("datatype", "most"), [("INT8", 128), ("UINT8", 256), ("FP16", 2049)])
def test_categories_beyond_the_codes_of_their_datatype_are_refused(
    datatype: str, most: int, tmp_path: Path
) -> None:
    def of_categories(count: int) -> Manifest:
        categories = tuple(map(str, range(count)))
        return manifest_of(
            features=(Feature("x", kind="category", tensor="t", categories=categories),),
            inputs=(TensorSpec("t", datatype, (-1,)),),
        )

    assert read_manifest(written(of_categories(most), tmp_path)) == of_categories(most)
    said = refused(of_categories(most + 1), lambda _: None, tmp_path)
    assert f"{most + 1:,} categories have no codes in {datatype}" in said


def test_an_extra_output_may_have_any_other_name(tmp_path: Path) -> None:
    outputs = (
        OutputSpec("own values", "FP32", (-1, 1), "values"),
        OutputSpec("probabilities", "FP32", (-1, 4)),
    )
    read_manifest(written(manifest_of(outputs=outputs), tmp_path))


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
some_names = st.lists(names, min_size=2, max_size=5, unique=True).map(tuple)


@st.composite
def features_of(draw: st.DrawFn, kind: Any, nullable: bool) -> Feature:
    low, high = sorted(draw(st.tuples(st.integers(-99, 99), st.integers(-99, 99))))
    is_text = kind == "category"
    is_number = kind in ("number", "integer")
    categories = draw(some_names) if is_text else ()
    return Feature(
        "",
        draw(names),
        draw(names),
        float(low) if is_number else None,
        float(high) if is_number else None,
        nullable,
        {"number": high + 0.5, "integer": high, "boolean": True}.get(kind, (*categories, "")[0]),
        kind,
        categories=categories,
        unknown=draw(st.sampled_from(["refuse", "pass"])) if is_text else "refuse",
    )


DATATYPES = {"number": "FP32", "integer": "INT64", "boolean": "BOOL", "category": "BYTES"}


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Manifests of classifiers of features of all kinds, each in a column of its own tensor."""
    kinds = draw(st.lists(st.sampled_from([*DATATYPES]), min_size=1, max_size=6))
    classes = draw(some_names)
    features, inputs = [], []
    for index, (kind, name) in enumerate(zip(kinds, string.ascii_letters, strict=False)):
        nullable = draw(st.booleans())
        feature = draw(features_of(kind, nullable))
        null_as = {"integer": -1, "boolean": False, "category": "?"}.get(kind)
        column = draw(st.sampled_from([None, 0]))
        features.append(
            replace(
                feature,
                name=f"{name}{index} {draw(names)}",
                tensor=name,
                column=column,
                null_as=null_as if nullable else None,
            )
        )
        inputs.append(TensorSpec(name, DATATYPES[kind], (-1, 1) if column == 0 else (-1,)))
    role = draw(st.sampled_from(["probabilities", "scores"]))
    return manifest_of(
        task="classification",
        name=draw(names),
        description=draw(st.text(st.characters(exclude_categories=["Cs"]))),
        features=tuple(features),
        inputs=tuple(inputs),
        outputs=(OutputSpec(draw(names), "FP32", (-1, len(classes)), role),),  # type: ignore[arg-type]
        classes=classes,
        targets=(),
        training=draw(st.dictionaries(names, st.integers(-5, 5) | st.booleans() | names)),
        tolerances={},
    )


@settings(max_examples=60)
@given(manifest=manifests())
def test_any_manifest_is_read_as_it_was_written(
    manifest: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(manifest, tmp_path_factory.mktemp("manifest"))
    assert read_manifest(path) == manifest


def of_many_features(count: int) -> Manifest:
    return manifest_of(
        features=tuple(Feature(f"feature {i}", column=i) for i in range(count)),
        inputs=(TensorSpec("features", "FP32", (-1, count)),),
    )


def calls_to_read(manifest: Manifest, directory: Path) -> int:
    """Return how many functions are called, and generators resumed, to read a manifest."""
    path, calls = written(manifest, directory), 0

    def count(_frame: Any, event: str, _function: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        read_manifest(path)
    finally:
        sys.setprofile(None)
    return calls


def test_the_work_for_a_manifest_grows_as_its_features_do(tmp_path: Path) -> None:
    few, many = (calls_to_read(of_many_features(count), tmp_path) for count in (100, 1_000))
    assert 1_000 < many < 11 * few


HOSTILE: list[tuple[str, str, str]] = [
    ("deep", '{"format": 2, "training": ' + "[" * 500 + "]" * 500 + "}", "is nested too deeply"),
    ("deeper", "[" * 5000 + "]" * 5000, "is not JSON: depth limit exceeded"),
    ("an array", "[" + "1," * 100_000 + "1]", "the document must be an object"),
    ("a long format", '{"format": "' + "x" * 10**6 + '"}', "format must be 1 or 2 (it is 'xxx"),
    ("a number", '{"format": ' + "1" * 10**5 + "}", "is not JSON"),
    ("a lone surrogate", '{"format": 2, "name": "\\ud800"}', "is not JSON"),
    ("NaN", '{"format": NaN}', "is not JSON"),
]


@pytest.mark.parametrize(
    ("text", "said"), [each[1:] for each in HOSTILE], ids=[each[0] for each in HOSTILE]
)
def test_a_hostile_file_is_refused_in_a_short_sentence(
    text: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(BundleError) as refusal:
        read_manifest(path)
    assert said in str(refusal.value)
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m["features"][0].update(name="x" * 10**6),
        lambda m: m["features"][0].update(tensor="x" * 10**6),
        lambda m: m.update({"x" * 10**6: 1}),
        lambda m: m.update(task="x" * 10**6),
        lambda m: m["files"].update({"x" * 10**6 + "/": {}}),
        lambda m: m["inputs"].extend([m["inputs"][0]] * MAX_TENSORS),
        lambda m: m["features"].extend([m["features"][0]] * 10_000),
        lambda m: m["inputs"][0].update(shape=[-1, 2**31 - 1]),
        lambda m: m.update(targets=[{"name": f"{i}"} for i in range(10_000)]),
    ],
)
def test_hostile_members_are_refused_in_a_short_sentence(edit: Edit, tmp_path: Path) -> None:
    assert len(refused(REGRESSION, edit, tmp_path)) < 700


def test_a_manifest_of_the_largest_size_is_read_and_a_larger_one_is_not(tmp_path: Path) -> None:
    path = written(REGRESSION, tmp_path)
    document = json.loads(path.read_text())
    room = LARGEST_FILE - len(json.dumps(document | {"description": ""}))
    path.write_text(json.dumps(document | {"description": "x" * room}))
    assert len(read_manifest(path).description) == room
    path.write_text(json.dumps(document | {"description": "x" * (room + 1)}))
    with pytest.raises(BundleError, match="exceeds the limit of 16,777,216"):
        read_manifest(path)


def test_the_manifest_of_the_example_says_nothing_twice() -> None:
    manifest = read_manifest(BUNDLE / "manifest.json")
    document = json.loads((BUNDLE / "manifest.json").read_text())
    assert [feature["column"] for feature in document["features"]] == [0, 1, 2, 3, 4, 5]
    assert not {"categories", "unknown", "null_as"} & {*document["features"][0]}
    assert manifest.golden is None
