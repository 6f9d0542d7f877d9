"""Steps in the features file: from pictures and texts to a bundle that takes them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from app.model.errors import BundleError
from app.model.golden import read_golden
from app.model.manifest import Manifest
from app.model.steps.declaration import Resize, Sample, Size
from app.model.steps.encoder import StepEncoder
from app.packing import description as descriptions
from app.packing.description import ModelDescription, read_description
from app.packing.file import Packed, pack_file
from app.packing.statement import Statement, read_outputs
from app.registry.loading import ModelSource, load_model
from tests.step_models import COLOURS, TOPICS, picture, tokenizer

node = helper.make_node
IMAGES = """
classes = ["red", "green", "blue"]
top = 2

[[steps]]
kind = "image"
input = "pixels"
resize = {shorter = 20}
crop = {width = 16, height = 16}
scale = 0.00392156862745098
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""
TEXTS = """
classes = ["billing", "delivery", "account"]

[[steps]]
kind = "text"
tokenizer = "tokeniser/words.json"
max_length = 32
input_ids = "input_ids"
attention_mask = "attention_mask"
"""
SENTENCES = (
    "where is my parcel",
    "i was charged twice for one order and want my money back",
    "cannot log in",
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "models" / "mine" / "1"


def described(directory: Path, text: str) -> ModelDescription:
    path = directory / "steps.toml"
    path.write_text(text)
    (directory / "tokeniser").mkdir(exist_ok=True)
    (directory / "tokeniser" / "words.json").write_bytes(tokenizer())
    return read_description(path)


def of_images(directory: Path, *, shape: Sequence[Any] = ("n", 3, 16, 16)) -> Path:
    """Write a network that returns the means of the channels as logits."""
    nodes = [node("ReduceMean", ["pixels"], ["logits"], axes=[2, 3], keepdims=0)]
    value = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)
    return written(directory, nodes, [value], {}, rows=shape[0])


def of_texts(directory: Path, *, masked: bool = True) -> Path:
    """Write a network that returns the mean of a vector for each token as logits."""
    table = np.random.default_rng(7).normal(size=(131, 3)).astype(np.float32)
    nodes = [
        node("Gather", ["table", "input_ids"], ["vectors"]),
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "last"], ["seen"]),
        node("Max" if masked else "Sum", ["seen"] if masked else ["seen", "one"], ["column"]),
        node("Mul", ["vectors", "column"], ["kept"]),
        node("ReduceSum", ["kept", "second"], ["sum"], keepdims=0),
        node("ReduceSum", ["column", "second"], ["count"], keepdims=0),
        node("Div", ["sum", "count"], ["logits"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    constants = {
        "table": table,
        "last": np.array([-1]),
        "second": np.array([1]),
        "one": np.array(1.0, np.float32),
    }
    return written(directory, nodes, values, constants)


def written(
    directory: Path, nodes: Any, inputs: Any, constants: dict[str, Any], rows: Any = "n"
) -> Path:
    answer = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [rows, 3])
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "graph", inputs, [answer], initializers)
    path = directory / "model.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def pictures(directory: Path) -> Path:
    """Write pictures of three colours and sizes into a directory."""
    made = directory / "pictures"
    made.mkdir()
    for name, colour, size, form in (
        ("a.png", (200, 40, 40), (40, 30), "PNG"),
        ("b.jpg", (10, 190, 60), (20, 33), "JPEG"),
        ("c.webp", (20, 30, 180), (9, 9), "WEBP"),
    ):
        (made / name).write_bytes(picture(colour, size, form))
    return made


def pack(source: Path, out: Path, samples: Path, description: Any, **said: Any) -> Packed:
    role, roles = read_outputs(("logits",))
    return pack_file(
        source,
        out,
        samples=samples,
        description=description,
        statement=Statement(role=role, roles=roles, **said),
    )


def refusal(*arguments: Any, **said: Any) -> str:
    with pytest.raises(BundleError) as error:
        pack(*arguments, **said)
    return str(error.value)


def rows_of(manifest: Manifest, out: Path, samples: Sequence[Sample]) -> Any:
    encoder = StepEncoder(manifest.steps, manifest.inputs, lambda name: (out / name).read_bytes())
    return encoder.encode(samples)


def test_a_directory_of_pictures_becomes_golden_data(tmp_path: Path, out: Path) -> None:
    source, samples = of_images(tmp_path), pictures(tmp_path)
    (samples / "notes.txt").write_text("not a picture")
    packed = pack(source, out, samples, described(tmp_path, IMAGES))
    manifest = packed.manifest
    (step,) = manifest.steps
    assert (step.inputs, manifest.top, manifest.batch) == (("pixels",), 2, True)
    assert manifest.classes == COLOURS
    golden = read_golden(out / "golden.npz", manifest.signature, in_rows=True, steps=manifest.steps)
    files = [samples / name for name in ("a.png", "b.jpg", "c.webp")]
    assert [sample.image for sample in golden.samples] == [file.read_bytes() for file in files]
    original = onnxruntime.InferenceSession(source)
    (logits,) = original.run(None, dict(golden.inputs))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        golden.outputs["probabilities"], powers / powers.sum(axis=1, keepdims=True), atol=1e-6
    )
    assert any(note.startswith("b.jpg -> green 0.") for note in packed.notes)
    assert "No pictures, and left out of the samples: notes.txt." in packed.notes
    load_model(ModelSource(out))  # which runs the steps and the network again


def test_a_line_of_a_text_file_is_a_sample(tmp_path: Path, out: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n\n".join(SENTENCES) + "\n")
    packed = pack(of_texts(tmp_path), out, tmp_path / "texts.txt", described(tmp_path, TEXTS))
    manifest = packed.manifest
    assert manifest.classes == TOPICS
    assert (out / "tokenizer.json").read_bytes() == tokenizer()
    assert "tokenizer.json" in manifest.files
    golden = read_golden(out / "golden.npz", manifest.signature, in_rows=True, steps=manifest.steps)
    assert [sample.text for sample in golden.samples] == list(SENTENCES)
    assert any(note.startswith("line 3 of texts.txt -> ") for note in packed.notes)
    model = load_model(ModelSource(out))
    rows = rows_of(manifest, out, [Sample(text="where is my parcel")])
    assert model.predict(rows).label in TOPICS


def test_a_table_has_paths_texts_pairs_and_what_is_true(tmp_path: Path, out: Path) -> None:
    table = tmp_path / "samples.csv"
    table.write_text(
        'id,topic,text,pair\n1,account,cannot log in,my password is wrong\n2,billing,"a, b",\n'
    )
    packed = pack(of_texts(tmp_path), out, table, described(tmp_path, TEXTS), truth="topic")
    golden = read_golden(
        out / "golden.npz",
        packed.manifest.signature,
        in_rows=True,
        steps=packed.manifest.steps,
    )
    assert [(s.text, s.pair) for s in golden.samples] == [
        ("cannot log in", "my password is wrong"),
        ("a, b", None),
    ]
    (right,) = [note for note in packed.notes if "The model is right for" in note]
    assert right.endswith("of 2 golden samples.")


def test_paths_in_a_table_are_relative_to_it(tmp_path: Path, out: Path) -> None:
    samples = pictures(tmp_path)
    (samples / "list.csv").write_text("image\nc.webp\na.png\n")
    packed = pack(of_images(tmp_path), out, samples / "list.csv", described(tmp_path, IMAGES))
    assert any(note.startswith("line 2 of list.csv -> blue") for note in packed.notes)


def test_a_network_for_one_picture_serves_several(tmp_path: Path, out: Path) -> None:
    source = of_images(tmp_path, shape=(1, 3, 16, 16))
    manifest = pack(source, out, pictures(tmp_path), described(tmp_path, IMAGES)).manifest
    assert manifest.inputs[0].shape == (-1, 3, 16, 16)
    rows = rows_of(manifest, out, [Sample(image=picture())] * 3)
    assert len(list(load_model(ModelSource(out)).predict_batch(rows))) == 3


def test_only_so_many_pictures_are_read(tmp_path: Path, out: Path) -> None:
    samples = tmp_path / "many"
    samples.mkdir()
    for index in range(30):
        (samples / f"{index:02}.png").write_bytes(picture((index * 8, 100, 50)))
    (samples / "05.png").write_bytes(b"no picture, and not among those that are spread over all")
    manifest = pack(of_images(tmp_path), out, samples, described(tmp_path, IMAGES)).manifest
    golden = read_golden(out / "golden.npz", manifest.signature, in_rows=True, steps=manifest.steps)
    assert golden.rows == 8


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (("n", 3, 32, 32), "steps[0] makes [-1, 3, 16, 16], and 'pixels' is of shape [-1, 3, 32"),
        (("n", 16, 16, 3), "steps[0] makes [-1, 3, 16, 16], and 'pixels' is of shape [-1, 16, 1"),
    ],
)
def test_steps_that_contradict_the_graph_are_refused(
    tmp_path: Path, out: Path, shape: Any, said: str
) -> None:
    source = of_images(tmp_path, shape=shape)
    assert said in refusal(source, out, pictures(tmp_path), described(tmp_path, IMAGES))
    assert not out.exists()


def test_steps_of_another_input_are_refused(tmp_path: Path, out: Path) -> None:
    description = described(tmp_path, IMAGES.replace('"pixels"', '"image"'))
    said = refusal(of_images(tmp_path), out, pictures(tmp_path), description)
    assert "steps[0] fills 'image', which is not one of the inputs: pixels" in said


def test_a_network_that_reads_the_padding_is_refused(tmp_path: Path, out: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES))
    source = of_texts(tmp_path, masked=False)
    said = refusal(source, out, tmp_path / "texts.txt", described(tmp_path, TEXTS))
    assert "alone and together with others" in said
    assert "attention_mask" in said


def test_steps_are_for_a_task_with_an_answer(tmp_path: Path, out: Path) -> None:
    description = described(tmp_path, IMAGES)
    with pytest.raises(BundleError, match="the task is tensors: give another --task"):
        pack_file(
            of_images(tmp_path),
            out,
            samples=pictures(tmp_path),
            description=description,
            statement=Statement("tensors"),
        )


def samples_of(directory: Path, name: str, content: str | bytes | None) -> Path:
    path = directory / name
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("text", "name", "content", "said"),
    [
        (IMAGES, "none", None, "none must be a directory of pictures, a picture (.jpg"),
        (IMAGES, "x.png", b"nothing", "x.png: the image is no image of these formats: JPEG"),
        (IMAGES, "x.txt", "a text", "must be a directory of pictures"),
        (IMAGES, "x.png", None, "x.png can't be read: No such file"),
        (IMAGES, "x.csv", "picture\na.png\n", "x.csv: the column 'image' is missing"),
        (IMAGES, "x.csv", "image\n", "x.csv: there is no row below the header"),
        (IMAGES, "x.csv", "image\nno.png\n", "line 2 of x.csv:"),
        (IMAGES, "x.csv", "image,a\n ,b\n", "x.csv: line 2: the column image is blank"),
        (IMAGES, "x.csv", "image,a\nb\n", "x.csv: line 2 has 1 cells, but the header has 2"),
        (TEXTS, "x.txt", "\n \n", "x.txt has no text"),
        (TEXTS, "x.txt", b"\xff\xfe", "x.txt is UTF-16, not UTF-8; save it in UTF-8"),
        (TEXTS, "x.png", b"", "x.png must be a .txt with a text on each line, or a .csv"),
    ],
)
def test_samples_that_are_none_are_named(
    *, tmp_path: Path, out: Path, text: str, name: str, content: Any, said: str
) -> None:
    source = of_images(tmp_path) if text is IMAGES else of_texts(tmp_path)
    samples = samples_of(tmp_path, name, content)
    assert said in refusal(source, out, samples, described(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TEXTS.replace("words.json", "no.json"), "steps[0].tokenizer: "),
        (IMAGES.replace("image", "picture", 1), "steps[0].kind must be one of 'image', 'text'"),
        (IMAGES.replace('kind = "image"', ""), "steps[0].kind is missing"),
        (IMAGES.replace("crop", "crob"), "steps[0]: 'crob' is not a key here; did you mean 'crop'"),
        (IMAGES.replace("shorter = 20", "shorter = 0"), "steps[0].resize.shorter must be a number"),
        (IMAGES + '[[features]]\nname = "x"', "features and steps exclude each other"),
        ("steps = 3", "steps must be tables: [[steps]]"),
        ("top = -1", "top must be an integer"),
    ],
)
def test_steps_that_are_none_are_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BundleError) as error:
        described(tmp_path, text)
    assert said in str(error.value)


def test_the_steps_in_the_documentation_are_those_of_a_features_file(tmp_path: Path) -> None:
    assert descriptions.__doc__
    example = textwrap.dedent(descriptions.__doc__.rpartition("::\n")[2])
    (tmp_path / "tokenizer.json").write_bytes(tokenizer())
    (tmp_path / "features.toml").write_text(example)
    image, text = read_description(tmp_path / "features.toml").steps
    assert (image.inputs, text.inputs) == (("pixels",), ("input_ids", "attention_mask"))
    assert getattr(image, "resize", None) == Resize(shorter=256)
    assert getattr(image, "crop", None) == Size(224, 224)
