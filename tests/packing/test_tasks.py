"""From a file to answers by name: every task, kind of input and form of output, packed and loaded
as a worker does it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.model.errors import BundleError
from app.model.features import Feature
from app.model.manifest import Target
from app.model.model import Model
from app.model.reference import Reference, read_reference
from app.model.signature import TensorSpec
from app.packing.description import ModelDescription
from app.packing.file import Packed, pack_file
from app.packing.material import gather
from app.packing.statement import Statement, read_outputs
from app.registry.loading import ModelSource, load_model

CASES = Path(__file__).parent / "cases"
FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64
BOOL, STRING = TensorProto.BOOL, TensorProto.STRING
Value = tuple[str, int, Sequence[Any]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "models" / "mine" / "1"


def node(operator: str, given: str, made: str, **attributes: Any) -> onnx.NodeProto:
    """Return a node; names are separated by spaces."""
    return helper.make_node(operator, given.split(), made.split(), **attributes)


def save(
    directory: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    **weights: Any,
) -> Path:
    path = directory / "model.onnx"
    values = [
        [helper.make_tensor_value_info(*value) for value in each] for each in (inputs, outputs)
    ]
    constants = [numpy_helper.from_array(np.asarray(w), name) for name, w in weights.items()]
    graph = helper.make_graph(nodes, "g", *values, constants)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def said(task: Any = None, *outputs: str, names: str = "", **more: Any) -> Statement:
    """Return what the command line's options would be read as."""
    role, roles = read_outputs(outputs)
    return Statement(task, role, roles, tuple(names.split(",")) if names else (), **more)


def csv(directory: Path, header: str, rows: Sequence[Sequence[Any]]) -> Path:
    path = directory / "samples.csv"
    lines = [header, *(",".join("" if v is None else str(v) for v in row) for row in rows)]
    path.write_text("\n".join(lines))
    return path


def described(*features: Feature, **more: Any) -> ModelDescription:
    return ModelDescription(features, **more)


def packed(
    source: Path,
    out: Path,
    samples: Path | None,
    statement: Statement,
    description: ModelDescription | None = None,
) -> tuple[Model, Packed]:
    made = pack_file(
        source,
        out,
        samples=samples,
        statement=statement,
        description=description or ModelDescription(),
    )
    return load_model(ModelSource(out)), made


def refusal(*arguments: Any) -> str:
    with pytest.raises(BundleError) as error:
        packed(*arguments)
    return str(error.value)


def case(name: str) -> dict[str, Any]:
    with np.load(CASES / f"{name}.npz") as arrays:
        return dict(arrays)


def samples_of_case(directory: Path, name: str) -> Path:
    rows = case(name)["in_"]
    header = ",".join(f"f{i}" for i in range(rows.shape[1]))
    return csv(directory, header, [[repr(v) for v in row] for row in rows.tolist()])


ROWS = [[0.5, 1.0], [1.5, -2.0], [-1.0, 3.0], [2.0, 0.25]]
MATRIX: Value = ("x", FLOAT, ["n", 2])
WEIGHT = np.array([[1.0, -1.0, 0.5], [0.5, 2.0, -1.0]], np.float32)


def product(directory: Path, *, columns: int = 3, rows: Any = "n", kind: int = FLOAT) -> Path:
    """``y``: a product with a matrix, of which nothing says what it is."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    return save(
        directory,
        [node("MatMul", "x w", "y")],
        [("x", kind, [rows, 2])],
        [("y", kind, [rows, columns])],
        w=WEIGHT[:, :columns].astype(dtype),
    )


def values(rows: Any = ROWS, columns: int = 3) -> Any:
    return np.array(rows, np.float32) @ WEIGHT[:, :columns]


# Every task


def test_a_classifier_of_logits_answers_probabilities_by_name(tmp_path: Path, out: Path) -> None:
    samples = csv(tmp_path, "a,b", ROWS)
    model, made = packed(
        product(tmp_path), out, samples, said("classification", "logits", names="p,q,r")
    )
    exponents = np.exp(values())
    expected = exponents / exponents.sum(axis=1, keepdims=True)
    batch = model.predict_batch(model.encoder.encode_batch(as_samples("a,b", ROWS)))
    np.testing.assert_allclose(batch.answers, expected, atol=1e-6)
    assert model.manifest.classes == ("p", "q", "r")
    assert "A softmax was added after 'y', which has logits." in made.notes
    assert any(note.startswith("Golden sample 2 of 4 -> ") for note in made.notes)


def as_samples(header: str, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(header.split(","), row, strict=True)) for row in rows]


def test_a_regression_has_targets_with_units(tmp_path: Path, out: Path) -> None:
    targets = (Target("price", "euros"), Target("area", "m2"))
    description = described(Feature("a"), Feature("b"), targets=targets)
    source = product(tmp_path, columns=2)
    model, _ = packed(source, out, csv(tmp_path, "a,b", ROWS), said("regression"), description)
    batch = model.predict_batch(model.encoder.encode_batch(as_samples("a,b", ROWS)))
    np.testing.assert_allclose(batch.answers, values(columns=2), rtol=1e-6)
    assert model.manifest.targets == targets


def test_several_labels_are_probabilities_of_their_own(tmp_path: Path, out: Path) -> None:
    statement = said("multilabel", "logits", names="red,round,soft")
    model, _ = packed(product(tmp_path), out, csv(tmp_path, "a,b", ROWS), statement)
    batch = model.predict_batch(model.encoder.encode_batch(as_samples("a,b", ROWS)))
    np.testing.assert_allclose(batch.answers, 1 / (1 + np.exp(-values())), atol=1e-6)
    assert model.manifest.labels == ("red", "round", "soft")


def test_an_embedding_may_have_any_rank(tmp_path: Path, out: Path) -> None:
    source = save(
        tmp_path,
        [node("Reshape", "x s", "y")],
        [("x", FLOAT, ["n", 4])],
        [("y", FLOAT, ["n", 2, 2])],
        s=np.array([-1, 2, 2]),
    )
    rows = [[1, 2, 3, 4], [5, 6, 7, 8]]
    model, _ = packed(source, out, csv(tmp_path, "a,b,c,d", rows), said("embedding"))
    batch = model.predict_batch(model.encoder.encode_batch(as_samples("a,b,c,d", rows)))
    assert batch.answers.tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert [tuple(spec.shape) for spec in model.manifest.outputs] == [(-1, 2, 2)]


def test_tensors_need_nothing_but_the_file(tmp_path: Path, out: Path) -> None:
    model, made = packed(product(tmp_path), out, None, said("tensors"))
    np.testing.assert_allclose(model.run({"x": np.array(ROWS, np.float32)})["y"], values())
    assert made.manifest.batch


def test_what_a_model_is_for_is_asked_with_the_option_that_says_it(
    tmp_path: Path, out: Path
) -> None:
    source, samples = product(tmp_path), csv(tmp_path, "a,b", ROWS)
    text = refusal(source, out, samples, said())
    assert "give --task classification|multilabel|regression|embedding|tensors" in text
    text = refusal(source, out, samples, said("classification", names="p,q,r"))
    assert "give --outputs probabilities or --outputs logits or --outputs scores" in text
    text = refusal(source, out, samples, said("classification", "logits"))
    assert "--classes a,b,..." in text
    packed(source, out, samples, said("classification", "logits", names="p,q,r"))


def test_one_score_is_that_of_the_second_class(tmp_path: Path, out: Path) -> None:
    statement = said("classification", "scores", names="no,yes")
    source = product(tmp_path, columns=1)
    model, made = packed(source, out, csv(tmp_path, "a,b", ROWS), statement)
    batch = model.predict_batch(model.encoder.encode_batch(as_samples("a,b", ROWS)))
    score = values(columns=1)
    np.testing.assert_allclose(batch.answers, np.concatenate([-score, score], axis=1), rtol=1e-6)
    assert batch.class_indices.tolist() == (score[:, 0] > 0).astype(int).tolist()
    assert "'y' has one value a row, the score of 'yes'." in made.notes


# What the graph itself says


def test_a_label_that_is_not_the_most_probable_class_is_served_as_its_library_says(
    tmp_path: Path, out: Path
) -> None:
    """Which calibrated support vector machines have."""
    name, wanted = "svc_probability", case("svc_probability")
    samples = samples_of_case(tmp_path, name)
    model, _ = packed(CASES / f"{name}.onnx", out, samples, said("classification"))
    batch = model.predict_batch({"X": wanted["in_"]})
    labels = [model.manifest.classes[index] for index in batch.class_indices]
    assert labels == wanted["label"].tolist()
    np.testing.assert_allclose(batch.answers, wanted["proba"], atol=1e-5)


def test_the_scores_of_a_support_vector_machine_are_those_of_its_two_classes(
    tmp_path: Path, out: Path
) -> None:
    """ONNX Runtime has the score of each in the column of the other."""
    name, wanted = "svc_two_classes", case("svc_two_classes")
    samples = samples_of_case(tmp_path, name)
    model, made = packed(CASES / f"{name}.onnx", out, samples, said())
    batch = model.predict_batch({"X": wanted["in_"]})
    score = wanted["scores"][:, np.newaxis]  # positive for the second class
    np.testing.assert_allclose(
        batch.answers, np.concatenate([-score, score], axis=1), rtol=1e-4, atol=1e-5
    )
    assert [model.manifest.classes[i] for i in batch.class_indices] == wanted["label"].tolist()
    assert any(
        note.startswith("The columns of 'probabilities' change places") for note in made.notes
    )


def test_the_scores_of_two_classes_stay_in_place_as_tensors(out: Path) -> None:
    wanted = case("svc_two_classes")
    model, _ = packed(CASES / "svc_two_classes.onnx", out, None, said("tensors"))
    scores = model.run({"X": wanted["in_"]})["probabilities"]
    np.testing.assert_allclose(scores[:, 0], wanted["scores"], rtol=1e-4, atol=1e-5)


def test_a_label_in_a_column_of_its_own_is_a_label(tmp_path: Path, out: Path) -> None:
    name, wanted = "one_vs_one", case("one_vs_one")
    statement = said("classification", "scores", names="0,1,2")
    samples = samples_of_case(tmp_path, name)
    model, _ = packed(CASES / f"{name}.onnx", out, samples, statement)
    batch = model.predict_batch({"X": wanted["in_"]})
    assert batch.class_indices.tolist() == wanted["label"].tolist()
    np.testing.assert_allclose(batch.answers, wanted["scores"], rtol=1e-4, atol=1e-5)


def test_labels_of_which_nothing_is_known_stay_beside_the_answer(tmp_path: Path, out: Path) -> None:
    name, wanted = "one_vs_rest_labels", case("one_vs_rest_labels")
    samples = samples_of_case(tmp_path, name)
    statement = said("multilabel", names="long,wide")
    model, _ = packed(CASES / f"{name}.onnx", out, samples, statement)
    answers = model.predict_batch({"X": wanted["in_"]}).answers
    np.testing.assert_allclose(answers, wanted["proba"], atol=1e-5)
    assert [spec.name for spec in model.manifest.outputs] == ["probabilities", "label_"]


def test_a_support_vector_machine_of_one_class_has_a_score(tmp_path: Path, out: Path) -> None:
    name, wanted = "one_class", case("one_class")
    statement = said("classification", "scores", names="outlier,inlier")
    samples = samples_of_case(tmp_path, name)
    model, _ = packed(CASES / f"{name}.onnx", out, samples, statement)
    batch = model.predict_batch({"X": wanted["in_"]})
    np.testing.assert_allclose(batch.answers[:, 1], wanted["scores"], rtol=1e-3, atol=1e-4)
    assert batch.class_indices.tolist() == (wanted["label"] > 0).astype(int).tolist()


def test_a_label_against_the_probabilities_is_not_corrected(tmp_path: Path, out: Path) -> None:
    source = save(
        tmp_path,
        [
            node("Softmax", "x", "p", axis=1),
            node("ArgMin", "x", "i", axis=1, keepdims=0),
            node(
                "LabelEncoder",
                "i",
                "l",
                domain="ai.onnx.ml",
                keys_int64s=[0, 1],
                values_strings=["stays", "churns"],
                default_string="?",
            ),
        ],
        [MATRIX],
        [("l", STRING, ["n"]), ("p", FLOAT, ["n", 2])],
    )
    samples = csv(tmp_path, "a,b", ROWS)
    statement = said("classification", names="stays,churns")
    model, made = packed(source, out, samples, statement)
    batch = model.predict_batch({"x": np.array(ROWS, np.float32)})
    assert batch.class_indices.tolist() == np.argmin(ROWS, axis=1).tolist()
    assert any("rows tried, the label is not the class with the largest" in n for n in made.notes)
    text = refusal(
        source, out.with_name("2"), samples, said("classification", names="stays,leaves")
    )
    assert "'l' is 'churns' for line 3 of samples.csv, which is not one of the classes" in text
    advised = said("classification", "l=tensor", names="stays,leaves")
    packed(source, out.with_name("3"), samples, advised)


def test_classes_in_another_order_than_the_graphs_are_taken_over_and_said(
    tmp_path: Path, out: Path
) -> None:
    name, wanted = "forest", case("forest")
    own = [str(each) for each in wanted["classes"]]
    source, samples = CASES / f"{name}.onnx", samples_of_case(tmp_path, name)
    description = described(
        *(Feature(f"f{i}") for i in range(wanted["in_"].shape[1])), classes=tuple(reversed(own))
    )
    model, made = packed(source, out, samples, said("classification"), description)
    assert [*model.manifest.classes] == own
    assert any("in the order of the graph" in note for note in made.notes)
    (spec,) = model.manifest.inputs
    batch = model.predict_batch({spec.name: wanted["in_"]})
    named = [model.manifest.classes[index] for index in batch.class_indices]
    assert named == [str(each) for each in wanted["label"]]


def test_classes_that_the_graph_does_not_have_are_refused(tmp_path: Path, out: Path) -> None:
    source, samples = CASES / "svc_probability.onnx", samples_of_case(tmp_path, "svc_probability")
    text = refusal(source, out, samples, said("classification", names="a,b,c"))
    assert "the graph's own are setosa, versicolor, virginica: give those" in text
    packed(source, out, samples, said("classification", names="virginica,setosa,versicolor"))


# Inputs of every kind


def test_float64_is_fed_float64(tmp_path: Path, out: Path) -> None:
    """Seconds since 1970 that float32 would merge lie on both sides of a tree's threshold."""
    start = 1_700_000_000
    source = save(
        tmp_path,
        [node("Greater", "x t", "g"), node("Cast", "g", "y", to=DOUBLE)],
        [("x", DOUBLE, ["n", 1])],
        [("y", DOUBLE, ["n", 1])],
        t=np.array([start + 10], np.float64),
    )
    samples = csv(tmp_path, "seconds", [[start + 9], [start + 11], [start]])
    assert np.float32(start + 9) == np.float32(start + 11)
    model, _ = packed(source, out, samples, said("regression", names="late"))
    rows = model.encoder.encode_batch([{"seconds": start + 9}, {"seconds": start + 11}])
    assert model.predict_batch(rows).answers.tolist() == [[0], [1]]


def test_integers_booleans_and_strings_are_columns(tmp_path: Path, out: Path) -> None:
    source = save(
        tmp_path,
        [
            node("Cast", "count", "c", to=FLOAT),
            node("Cast", "member", "m", to=FLOAT),
            node(
                "LabelEncoder",
                "plan",
                "p",
                domain="ai.onnx.ml",
                keys_strings=["basic", "plus"],
                values_floats=[10.0, 20.0],
                default_float=-1.0,
            ),
            node("Sum", "c m p", "y"),
        ],
        [("plan", STRING, ["n", 1]), ("count", INT64, ["n", 1]), ("member", BOOL, ["n", 1])],
        [("y", FLOAT, ["n", 1])],
    )
    header = "count,member,plan"
    rows = [[2**24 + 1, True, "basic"], [3, False, "plus"]]
    plan = Feature("plan", kind="category", categories=("basic", "plus"))
    description = described(Feature("count"), Feature("member"), plan)  # in another order
    samples = csv(tmp_path, header, rows)
    model, _ = packed(source, out, samples, said("regression", names="y"), description)
    assert [f.kind for f in model.manifest.features] == ["integer", "boolean", "category"]
    encoded = model.encoder.encode_batch(as_samples(header, rows))
    assert encoded["count"].tolist() == [[2**24 + 1], [3]]
    assert model.predict_batch(encoded).answers[1].tolist() == [23.0]


def test_categories_may_be_codes(tmp_path: Path, out: Path) -> None:
    """An embedding that has no row for other codes than those: noise must not make any."""
    source = save(
        tmp_path,
        [node("Gather", "table x", "y", axis=0), node("Squeeze", "y one", "z")],
        [("x", INT64, ["n", 1])],
        [("z", FLOAT, ["n", 2])],
        table=np.array([[1, 2], [3, 4], [5, 6]], np.float32),
        one=np.array([1]),
    )
    plan = Feature("plan", kind="category", categories=("basic", "plus", "pro"))
    samples = csv(tmp_path, "plan", [["basic"], ["pro"], ["plus"]])
    statement = said("regression", names="u,v")
    model, _ = packed(source, out, samples, statement, described(plan))
    rows = model.encoder.encode_batch([{"plan": "pro"}])
    assert model.predict_batch(rows).answers.tolist() == [[5, 6]]


def string_lengths(directory: Path) -> Path:
    """1 for "known", 0 for any other string."""
    return save(
        directory,
        [
            node(
                "LabelEncoder",
                "x",
                "y",
                domain="ai.onnx.ml",
                keys_strings=["known"],
                values_floats=[1.0],
                default_float=0.0,
            )
        ],
        [("x", STRING, ["n", 1])],
        [("y", FLOAT, ["n", 1])],
    )


def test_unknown_strings_are_passed_on_where_the_owner_says_so(tmp_path: Path, out: Path) -> None:
    source, samples = string_lengths(tmp_path), csv(tmp_path, "word", [["known"], ["other"]])
    assert 'categories = ["...", ...], or unknown' in refusal(
        source, out, samples, said("regression", names="y")
    )
    word = Feature("word", kind="category", unknown="pass")
    model, _ = packed(source, out, samples, said("regression", names="y"), described(word))
    rows = model.encoder.encode_batch([{"word": "never seen"}, {"word": "known"}])
    assert model.predict_batch(rows).answers.tolist() == [[0], [1]]


def test_null_becomes_what_the_owner_says_where_a_tensor_holds_none(
    tmp_path: Path, out: Path
) -> None:
    source = string_lengths(tmp_path)
    word = Feature("word", kind="category", unknown="pass", nullable=True, null_as="known")
    samples = csv(tmp_path, "word,n", [["other", 1], [None, 2]])
    model, _ = packed(source, out, samples, said("regression", names="y"), described(word))
    rows = model.encoder.encode_batch([{"word": None}, {"word": "else"}])
    assert model.predict_batch(rows).answers.tolist() == [[1], [0]]


def two_inputs(directory: Path) -> Path:
    return save(
        directory,
        [node("Cast", "small", "s", to=DOUBLE), node("Sub", "large s", "y")],
        [("small", FLOAT, ["n", 2]), ("large", DOUBLE, ["n", 2])],
        [("y", DOUBLE, ["n", 2])],
    )


def test_features_of_several_inputs_come_in_any_order(tmp_path: Path, out: Path) -> None:
    header, rows = "a,b,c,d", [[1, 20, 3, 40], [5, 60, 7, 80]]
    source, samples = two_inputs(tmp_path), csv(tmp_path, header, rows)
    features = [Feature(name) for name in "abcd"]
    statement = said("regression", names="u,v")
    text = refusal(source, out, samples, statement, described(*features))
    assert 'add tensor = "small"' in text
    mixed = [
        Feature(name, tensor=tensor)
        for name, tensor in zip("abcd", ("small", "large", "small", "large"), strict=True)
    ]
    model, _ = packed(source, out, samples, statement, described(*mixed))
    batch = model.predict_batch(model.encoder.encode_batch(as_samples(header, rows)))
    assert batch.answers.tolist() == [[19, 37], [55, 73]]
    assert batch.answers.dtype == np.float64


def test_medians_replace_null_in_each_input_as_it_is(tmp_path: Path, out: Path) -> None:
    rows = [[1, 20, 3, 40], [5, 60, 7, 80]]
    source, samples = two_inputs(tmp_path), csv(tmp_path, "a,b,c,d", rows)
    features = [
        Feature(name, tensor=tensor, nullable=name in "ad")
        for name, tensor in zip("abcd", ("small", "large", "small", "large"), strict=True)
    ]
    statement = said("regression", names="u,v")
    text = refusal(source, out, samples, statement, described(*features))
    assert "Set its median" in text
    exact = 1_700_000_001.0  # which float32 can't hold
    medians = described(*features, medians={"a": 2.0, "d": exact})
    model, _ = packed(source, out, samples, statement, medians)
    sample = {"a": None, "b": 20, "c": 3, "d": None}
    answers = model.predict_batch(model.encoder.encode_batch([sample])).answers
    assert answers.tolist() == [[18, exact - 3]]


def test_features_are_called_as_the_columns_of_the_samples(tmp_path: Path, out: Path) -> None:
    model, made = packed(
        product(tmp_path), out, csv(tmp_path, "a,b", ROWS), said("regression", names="u,v,w")
    )
    assert [feature.name for feature in model.manifest.features] == ["a", "b"]
    assert "The features are the columns of samples.csv, in their order." in made.notes
    text = refusal(
        product(tmp_path),
        out.with_name("2"),
        csv(tmp_path, "a,b,c", [[1, 2, 3]]),
        said("regression", names="u,v,w"),
    )
    assert "The model takes 2 columns, and samples.csv has 3: a, b, c" in text
    matrix = [TensorSpec("x", "FP32", (-1, 2))]
    found = gather(ModelDescription(), tmp_path / "samples.csv", matrix, truth="c").features
    assert [feature.name for feature in found] == ["a", "b"]


def test_samples_may_be_arrays_beside_features(tmp_path: Path, out: Path) -> None:
    np.savez(tmp_path / "samples.npz", x=np.array(ROWS, np.float32))
    description = described(Feature("a"), Feature("b"))
    model, _ = packed(
        product(tmp_path),
        out,
        tmp_path / "samples.npz",
        said("regression", names="u,v,w"),
        description,
    )
    assert model.manifest.features[0].maximum == 2.0
    sample = model.encoder.encode({"a": 0.5, "b": 1.0})
    np.testing.assert_allclose(model.predict_batch(sample).answers, values(ROWS[:1]))


# Rows


def test_a_graph_for_one_row_is_run_row_by_row_where_it_must_be(tmp_path: Path, out: Path) -> None:
    source = save(
        tmp_path,
        [node("Reshape", "x one", "r"), node("MatMul", "r w", "y")],
        [("x", FLOAT, [1, 2])],
        [("y", FLOAT, [1, 3])],
        one=np.array([1, 2]),
        w=WEIGHT,
    )
    samples = csv(tmp_path, "a,b", ROWS)
    model, _ = packed(source, out, samples, said("regression", names="u,v,w"))
    batch = model.predict_batch({"x": np.array(ROWS, np.float32)})
    np.testing.assert_allclose(batch.answers, values(), rtol=1e-6)
    assert onnx.load(out / "model.onnx").graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_a_graph_only_declared_for_one_row_takes_any(tmp_path: Path, out: Path) -> None:
    source = product(tmp_path, rows=1)
    samples = csv(tmp_path, "a,b", ROWS)
    model, _ = packed(source, out, samples, said("regression", names="u,v,w"))
    np.testing.assert_allclose(
        model.predict_batch({"x": np.array(ROWS, np.float32)}).answers, values(), rtol=1e-6
    )
    rows = onnx.load(out / "model.onnx").graph.input[0].type.tensor_type.shape.dim[0]
    assert not rows.HasField("dim_value")


def test_a_graph_that_only_takes_four_rows_is_refused_with_advice(
    tmp_path: Path, out: Path
) -> None:
    source = save(
        tmp_path,
        [node("Reshape", "x four", "r"), node("MatMul", "r w", "y")],
        [("x", FLOAT, [4, 2])],
        [("y", FLOAT, [4, 3])],
        four=np.array([4, 2]),
        w=WEIGHT,
    )
    text = refusal(source, out, csv(tmp_path, "a,b", ROWS), said("regression", names="u,v,w"))
    assert "It was exported for exactly 4 row(s)." in text
    assert 'dynamic_shapes=({0: torch.export.Dim("rows")},)' in text


@pytest.mark.parametrize(
    ("operator", "batch"), [("Abs", True), ("CumSum", False)], ids=["rows", "no rows"]
)
def test_rows_of_tensors_run_together_only_where_they_may(
    *, tmp_path: Path, out: Path, operator: str, batch: bool
) -> None:
    given = "x axis" if operator == "CumSum" else "x"
    source = save(
        tmp_path, [node(operator, given, "y")], [MATRIX], [("y", FLOAT, ["n", 2])], axis=np.array(0)
    )
    np.savez(tmp_path / "example.npz", x=np.array(ROWS, np.float32))
    _, made = packed(source, out, tmp_path / "example.npz", said("tensors"))
    assert made.manifest.batch is batch


# Other outputs


def test_extra_outputs_and_state_are_served_beside_the_answer(tmp_path: Path, out: Path) -> None:
    source = save(
        tmp_path,
        [node("MatMul", "x w", "y"), node("Abs", "x", "size"), node("Neg", "x", "next")],
        [MATRIX],
        [("y", FLOAT, ["n", 3]), ("size", FLOAT, ["n", 2]), ("next", FLOAT, ["n", 2])],
        w=WEIGHT,
    )
    samples = csv(tmp_path, "a,b", ROWS)
    text = refusal(source, out, samples, said("regression", names="u,v"))
    assert "Say which: --outputs " in text
    statement = said("regression", "y=values", "next=state", names="u,v,w")
    model, made = packed(source, out, samples, statement)
    roles = {spec.name: spec.role for spec in made.manifest.outputs}
    assert roles == {"values": "values", "size": "tensor", "next": "state"}
    outputs = model.predict_batch({"x": np.array(ROWS, np.float32)}).outputs
    np.testing.assert_allclose(outputs["next"], -np.array(ROWS))


def test_tolerances_are_stated_of_every_output_of_floats(tmp_path: Path, out: Path) -> None:
    source = product(tmp_path, kind=DOUBLE)
    statement = said("regression", names="u,v,w")
    _, made = packed(source, out, csv(tmp_path, "a,b", ROWS), statement)
    document = json.loads((out / "manifest.json").read_text())
    assert set(document["tolerances"]) == {"values"}
    assert made.manifest.tolerances["values"].relative == 1e-6
    measured = [note for note in made.notes if "the same within" in note]
    assert len(measured) == 2  # alone and together, original and served


# The reference


def reference(out: Path) -> Reference:
    return read_reference(out / "reference.json")


def many(count: int = 400) -> list[list[Any]]:
    random = np.random.default_rng(0)
    matrix = random.normal(size=(count, 2)).round(4)
    return [
        [*row, ("basic", "plus")[int(row[0] > 0)], "q" if row[1] > row[0] else "p"]
        for row in matrix.tolist()
    ]


def with_plan(directory: Path) -> Path:
    return save(
        directory,
        [
            node("Cast", "plan", "c", to=FLOAT),
            node("Concat", "a b", "x", axis=1),
            node("Mul", "c zero", "nothing"),
            node("Add", "x nothing", "y"),
        ],
        [("a", FLOAT, ["n", 1]), ("b", FLOAT, ["n", 1]), ("plan", INT64, ["n", 1])],
        [("y", FLOAT, ["n", 2])],
        zero=np.array(0, np.float32),
    )


PLAN = Feature("plan", kind="category", categories=("basic", "plus"))


def test_the_reference_describes_the_samples_and_no_row_of_them(tmp_path: Path, out: Path) -> None:
    rows = many()
    rows[3][0] = None
    description = described(Feature("a", nullable=True), Feature("b"), PLAN, medians={"a": 0.0})
    statement = said("classification", "logits", names="p,q", truth="truth")
    samples = csv(tmp_path, "a,b,plan,truth", rows)
    _, made = packed(with_plan(tmp_path), out, samples, statement, description)
    assert "reference.json" in made.manifest.files
    found = reference(out)
    assert found.samples == len(rows)
    assert found.features["a"].nulls == 1
    deciles = found.features["b"].deciles
    assert deciles is not None
    assert set(deciles.counts) == {40}
    plans = [row[2] for row in rows]
    assert found.features["plan"].values == {each: plans.count(each) for each in set(plans)}
    assert sum(found.answers["q"].counts) == len(rows)
    assert sum(each.count for each in found.calibration["q"]) == len(rows)
    assert found.calibration["q"][-1].frequency == 1.0
    known = {tuple(row[:2]) for row in rows}
    background = found.background
    assert background.kind == "centroids"
    assert 10 < len(background.rows) <= 100
    assert not known & {(row["a"], row["b"]) for row in background.rows}


def test_real_rows_stand_for_the_samples_where_the_owner_asks(tmp_path: Path, out: Path) -> None:
    rows = many()
    samples = csv(tmp_path, "a,b,plan,truth", rows)
    statement = said("classification", "logits", names="p,q", real_background=True)
    description = described(Feature("a"), Feature("b"), PLAN)
    packed(with_plan(tmp_path), out, samples, statement, description)
    background = reference(out).background
    assert (background.kind, len(background.rows)) == ("rows", 100)
    known = {(np.float32(row[0]), np.float32(row[1]), row[2]) for row in rows}
    assert {(np.float32(r["a"]), np.float32(r["b"]), r["plan"]) for r in background.rows} <= known


def test_a_true_class_that_is_none_is_named_by_its_line(tmp_path: Path, out: Path) -> None:
    rows = many(30)
    rows[4][3] = "z"
    statement = said("classification", "logits", names="p,q", truth="truth")
    samples = csv(tmp_path, "a,b,plan,truth", rows)
    description = described(Feature("a"), Feature("b"), PLAN)
    text = refusal(with_plan(tmp_path), out, samples, statement, description)
    assert "line 6, column 'truth': 'z' is not one of the classes" in text


def test_probabilities_are_as_exact_as_the_logits_they_are_made_of(
    tmp_path: Path, out: Path
) -> None:
    source = product(tmp_path, kind=TensorProto.FLOAT16)
    statement = said("classification", "logits", names="p,q,r")
    model, _ = packed(source, out, csv(tmp_path, "a,b", ROWS), statement)
    (tolerance,) = model.manifest.tolerances.values()
    assert tolerance.absolute == 1e-3
    batch = model.predict_batch(model.encoder.encode_batch(as_samples("a,b", ROWS)))
    exponents = np.exp(values())
    expected = exponents / exponents.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(batch.answers, expected, atol=2e-3)


def test_an_index_that_is_mostly_of_another_class_is_refused(tmp_path: Path, out: Path) -> None:
    """One that is counted from 1, say, of which the last class is in no sample."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["p"], axis=1),
        helper.make_node("ArgMax", ["x"], ["largest"], axis=1, keepdims=0),
        helper.make_node("Add", ["largest", "one"], ["y"]),
    ]
    outputs = [
        helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 3]),
        helper.make_tensor_value_info("y", TensorProto.INT64, ["n"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        outputs,
        [numpy_helper.from_array(np.array([1]), "one")],
    )
    opsets = [helper.make_opsetid("", 18)]
    source = tmp_path / "g.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), source)
    samples = tmp_path / "samples.csv"
    samples.write_text("a,b,c\n9,1,0\n1,9,0\n8,2,1\n")
    said = Statement("classification", None, {"y": "label"}, ("r", "s", "t"))
    with pytest.raises(BundleError, match="is it counted from 1"):
        pack_file(source, out, samples=samples, statement=said)
