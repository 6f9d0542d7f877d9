"""Reading graphs: those of other libraries as they come, and what each operator says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.model.errors import BundleError
from app.model.signature import DTYPES, Tensors, TensorSpec
from app.packing.graphs.file import open_graph
from app.packing.graphs.forms import as_fp32, as_vector, editing, finished, label_index
from app.packing.graphs.index import GraphIndex
from app.packing.graphs.reading import read_graph
from app.packing.source import GraphOutput, GraphSource

CASES = Path(__file__).parent.parent / "cases"
ML = "ai.onnx.ml"
node = helper.make_node
THREE = ("setosa", "versicolor", "virginica")
TUMOURS = ("benign", "malignant")
CLASSIFIERS: dict[str, tuple[tuple[Any, ...], str]] = {
    "boosting": (THREE, "probabilities"),
    "calibrated": ((0, 1), "probabilities"),
    "catboost": (TUMOURS, "probabilities"),
    "discriminant": (THREE, "probabilities"),
    "float64": (THREE, "probabilities"),
    "forest": ((0, 1), "probabilities"),
    "lightgbm": (THREE, "probabilities"),
    "naive_bayes": (THREE, "probabilities"),
    "negative_label": ((-1, 1), "probabilities"),
    "neighbours": (THREE, "probabilities"),
    "one_vs_rest": (THREE, "probabilities"),
    "perceptron": (TUMOURS, "probabilities"),
    "stacking": (THREE, "probabilities"),
    "stacking_numbers": ((1, 2, 3), "probabilities"),
    "string_columns": (THREE, "probabilities"),
    "svc": (THREE, "scores"),
    "svc_two_classes": (("a", "b"), "scores"),
    "svc_probability": (THREE, "probabilities"),
    "tree": (TUMOURS, "probabilities"),
    "xgboost": ((0, 1, 2), "probabilities"),
}


def case(name: str) -> tuple[GraphSource, Tensors, dict[str, Any]]:
    """Return a graph, rows for its inputs, and its library's answers."""
    source = read_graph(CASES / f"{name}.onnx")
    with np.load(CASES / f"{name}.npz") as arrays:
        answers = dict(arrays)
    rows = {
        spec.name: answers[f"in_{spec.name}" if "in_" not in answers else "in_"].astype(
            DTYPES[spec.datatype]
        )
        for spec in source.inputs
    }
    return source, rows, answers


def run(content: bytes, rows: Tensors) -> dict[str, Any]:
    session = open_graph(onnx.load_from_string(content), Path("served"))
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(rows)), strict=True))


def of_kind(source: GraphSource, *kinds: str) -> GraphOutput:
    (output,) = (each for each in source.outputs if each.kind in kinds)
    return output


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_is_read_with_the_names_of_its_classes(name: str) -> None:
    source, rows, library = case(name)
    labels, kind = CLASSIFIERS[name]
    columns, label = of_kind(source, "probabilities", "scores"), of_kind(source, "label")
    assert (columns.labels, columns.kind, label.labels) == (labels, kind, labels)
    original, served = source.ask(rows), run(source.graph.SerializeToString(), rows)
    for output in source.outputs:
        answer = served[output.spec.name]
        assert output.spec.accepts(answer.shape) or name == "discriminant"  # a label of (1, n)
        assert answer.dtype == original[output.spec.name].dtype == DTYPES[output.spec.datatype]
        if answer.dtype.kind == "f":
            assert answer == pytest.approx(original[output.spec.name], abs=1e-6)
        else:
            assert answer.tolist() == original[output.spec.name].tolist()
    if "proba" in library:
        assert served[columns.spec.name] == pytest.approx(library["proba"], abs=1e-5)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_is_served_as_its_library_answers(name: str) -> None:
    source, rows, library = case(name)
    columns, label = of_kind(source, "probabilities", "scores"), of_kind(source, "label")
    matrix = TensorSpec("probabilities", "FP32", (-1, len(columns.labels)))
    editor = editing(source)
    vector = as_vector(editor, label.spec.name)
    index = label_index(editor, vector, label.labels, label.spec.datatype)
    editor.set_outputs(
        [
            (as_fp32(editor, columns.spec.name), matrix),
            (index, TensorSpec("label", "INT64", (-1,))),
        ]
    )
    served = run(finished(editor), rows)
    assert list(served) == ["probabilities", "label"]
    assert served["label"].dtype == np.int64
    found = [str(label.labels[index]) for index in served["label"]]
    assert found == [str(each) for each in library["label"].ravel()]
    if "proba" in library:
        assert served["probabilities"] == pytest.approx(library["proba"], abs=1e-5)


def test_several_labels_are_columns_of_one_matrix() -> None:
    source, rows, library = case("multilabel")
    columns, label = of_kind(source, "probabilities"), of_kind(source, "label")
    assert columns == GraphOutput(
        TensorSpec("probabilities", "FP32", (-1, 3)), kind="probabilities"
    )
    assert label == GraphOutput(TensorSpec("label", "BYTES", (-1, 3)), ("no", "yes"), "label")
    assert "became one matrix" in source.notes[0]
    for answers in (source.ask(rows), run(source.graph.SerializeToString(), rows)):
        assert answers["probabilities"] == pytest.approx(library["proba"], abs=1e-5)
        assert answers["label"].tolist() == library["label"].tolist()


def test_a_regressor_has_values_for_each_target() -> None:
    source, rows, library = case("two_targets")
    (output,) = source.outputs
    assert output == GraphOutput(TensorSpec("variable", "FP32", (-1, 2)), kind="values")
    assert source.ask(rows)["variable"] == pytest.approx(library["values"], rel=1e-5)


def test_one_score_of_two_classes_is_that_of_the_second() -> None:
    source, rows, library = case("linear_svc")
    assert of_kind(source, "scores").spec.shape == (-1, 1)
    assert of_kind(source, "label").labels == (0, 1)
    answer = source.ask(rows)["probabilities"].ravel()
    assert answer == pytest.approx(library["scores"], rel=1e-3)


# What each operator says, in graphs of a few nodes.


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    outputs: Sequence[onnx.ValueInfoProto | str],
    *,
    constants: dict[str, Any] | None = None,
    opset: int = 18,
    ml: int = 3,
    rows: Any = "n",
    dtype: int = TensorProto.FLOAT,
) -> Path:
    """Write a graph of ``x``, a matrix of three columns; outputs are matrices unless given."""
    values = [
        helper.make_tensor_value_info(each, dtype, None) if isinstance(each, str) else each
        for each in outputs
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", dtype, [rows, 3])],
        values,
        [
            numpy_helper.from_array(np.asarray(array), name)
            for name, array in (constants or {}).items()
        ],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(ML, ml)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def label_info(name: str, dtype: int = TensorProto.INT64) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, [None])


def zipped_info(name: str, key: int = TensorProto.INT64) -> onnx.ValueInfoProto:
    number = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(key, number))
    return helper.make_value_info(name, kind)


def linear(labels: Any, transform: str = "SOFTMAX", names: str = "classlabels_ints") -> Any:
    """A LinearClassifier of ``x``."""
    count = len(labels)
    return node(
        "LinearClassifier",
        ["x"],
        ["label", "p"],
        domain=ML,
        coefficients=np.linspace(-1, 1, 3 * count).tolist(),
        intercepts=[0.0] * count,
        post_transform=transform,
        **{names: labels},
    )


def normalizer(value: str, norm: str) -> Any:
    return node("Normalizer", [value], ["y"], domain=ML, norm=norm)


def beside(one: str, other: str) -> Any:
    return node("Concat", [one, other], ["y"], axis=1)


@pytest.mark.parametrize(
    ("nodes", "kind"),
    [
        ([node("Softmax", ["x"], ["y"], axis=1)], "probabilities"),
        ([node("Softmax", ["x"], ["y"])], "probabilities"),
        ([node("Softmax", ["x"], ["y"], axis=0)], ""),
        ([node("LogSoftmax", ["x"], ["y"], axis=-1)], "logits"),
        ([node("Sigmoid", ["x"], ["y"])], "probabilities"),
        ([node("Softmax", ["x"], ["a"]), node("Identity", ["a"], ["y"])], "probabilities"),
        ([node("Softmax", ["x"], ["a"]), node("Mul", ["a", "one"], ["y"])], "probabilities"),
        ([node("Softmax", ["x"], ["a"]), node("Mul", ["a", "two"], ["y"])], ""),
        ([node("Softmax", ["x"], ["a"]), node("Log", ["a"], ["y"])], ""),
        ([node("Softmax", ["x"], ["a"]), node("Gather", ["a", "column"], ["y"], axis=1)], ""),
        ([node("Relu", ["x"], ["a"]), normalizer("a", "L1")], "probabilities"),
        ([normalizer("x", "L1")], ""),
        ([node("Relu", ["x"], ["a"]), normalizer("a", "L2")], ""),
        ([node("Sub", ["one", "x"], ["a"]), beside("a", "x")], "probabilities"),
        ([node("Sub", ["two", "x"], ["a"]), beside("a", "x")], ""),
        ([node("ReduceSum", ["x", "axis"], ["a"]), node("Div", ["x", "a"], ["y"])], ""),
        (
            [
                node("Exp", ["x"], ["e"]),
                node("ReduceSum", ["e", "axis"], ["a"]),
                node("Div", ["e", "a"], ["y"]),
            ],
            "probabilities",
        ),
        ([node("Tanh", ["x"], ["y"])], ""),
        ([node("MatMul", ["x", "weights"], ["y"])], ""),
    ],
)
def test_a_kind_is_what_the_last_operators_say(tmp_path: Path, nodes: Any, kind: str) -> None:
    constants = {
        "one": np.float32(1),
        "two": np.float32(2),
        "axis": np.array([1]),
        "column": np.array([1]),
        "weights": np.eye(3, dtype=np.float32),
    }
    (output,) = read_graph(save(tmp_path / "g.onnx", nodes, ["y"], constants=constants)).outputs
    assert output.kind == kind


@pytest.mark.parametrize(
    ("labels", "transform", "kind"),
    [
        ([0, 1, 2], "SOFTMAX", "probabilities"),
        ([0, 1, 2], "LOGISTIC", "scores"),  # of each class for itself
        ([0, 1], "LOGISTIC", "probabilities"),
        ([0, 1, 2], "NONE", "scores"),
    ],
)
def test_a_classifier_says_what_its_columns_are(
    tmp_path: Path, labels: list[int], transform: str, kind: str
) -> None:
    path = save(tmp_path / "g.onnx", [linear(labels, transform)], [label_info("label"), "p"])
    label, columns = read_graph(path).outputs
    assert (label.kind, label.labels) == ("label", tuple(labels))
    assert (columns.kind, columns.labels) == (kind, tuple(labels))


def forest(weights: list[float], ids: list[int]) -> Any:
    """A TreeEnsembleClassifier of one tree with two leaves."""
    leaves = len(weights) // 2
    return node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "p"],
        domain=ML,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.0, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        class_treeids=[0] * len(weights),
        class_nodeids=[1] * leaves + [2] * leaves,
        class_ids=ids,
        class_weights=weights,
        classlabels_int64s=[0, 1],
        post_transform="NONE",
    )


@pytest.mark.parametrize(
    ("weights", "ids", "kind"),
    [
        ([0.25, 0.75, 1, 0], [0, 1, 0, 1], "probabilities"),
        ([0.25, 0.75, 1, 1], [0, 1, 0, 1], ""),
        ([-0.25, 1.25, 1, 0], [0, 1, 0, 1], ""),
        ([0.25, 1], [0, 0], "probabilities"),
        ([0.25, 3], [0, 0], ""),
    ],
)
def test_a_forest_answers_probabilities_where_its_leaves_prove_it(
    tmp_path: Path, weights: list[float], ids: list[int], kind: str
) -> None:
    path = save(tmp_path / "g.onnx", [forest(weights, ids)], [label_info("label"), "p"])
    source = read_graph(path)
    assert source.outputs[1].kind == kind
    if kind:
        answers = source.ask({"x": np.array([[-1, 0, 0], [1, 0, 0]], np.float32)})["p"]
        assert answers.sum(axis=1) == pytest.approx(1)
        assert (answers >= 0).all()


def test_a_label_encoder_names_the_labels(tmp_path: Path) -> None:
    encode = node(
        "LabelEncoder",
        ["label"],
        ["name"],
        domain=ML,
        keys_int64s=[2, 0, 1],
        values_strings=["c", "a", "b"],
    )
    path = save(
        tmp_path / "g.onnx",
        [linear([0, 1, 2]), encode],
        [label_info("name", TensorProto.STRING), "p"],
    )
    label, columns = read_graph(path).outputs
    assert label.labels == columns.labels == ("a", "b", "c")


def test_the_index_of_the_largest_column_is_named_by_an_encoder(tmp_path: Path) -> None:
    nodes = [
        node("Softmax", ["x"], ["p"]),
        node("ArgMax", ["p"], ["best"], axis=1, keepdims=0),
        node(
            "LabelEncoder",
            ["best"],
            ["name"],
            domain=ML,
            keys_int64s=[0, 1, 2],
            values_strings=["a", "b", "c"],
        ),
        node(
            "LabelEncoder",
            ["unknown"],
            ["other"],
            domain=ML,
            keys_int64s=[0, 1],
            values_strings=["no", "yes"],
        ),
        node("Cast", ["best"], ["double"], to=TensorProto.DOUBLE),
        node("Mul", ["double", "double"], ["square"]),
        node("Cast", ["square"], ["unknown"], to=TensorProto.INT64),
    ]
    outputs = [label_info(name, TensorProto.STRING) for name in ("name", "other")]
    name, other, columns = read_graph(save(tmp_path / "g.onnx", nodes, [*outputs, "p"])).outputs
    assert name.labels == columns.labels == ("a", "b", "c")
    assert (other.kind, other.labels) == ("label", ())


def test_two_classes_of_one_name_have_none(tmp_path: Path) -> None:
    encode = node(
        "LabelEncoder",
        ["label"],
        ["name"],
        domain=ML,
        keys_int64s=[0, 1, 2],
        values_strings=["a", "b", "a"],
    )
    outputs = [label_info("name", TensorProto.STRING), "p"]
    path = save(tmp_path / "g.onnx", [linear([0, 1, 2]), encode], outputs)
    label, columns = read_graph(path).outputs
    assert (label.kind, label.labels, columns.labels) == ("label", (), (0, 1, 2))


def test_the_index_of_the_largest_column_is_a_label_without_names(tmp_path: Path) -> None:
    nodes = [node("ArgMax", ["x"], ["best"], axis=1, keepdims=0), node("Softmax", ["x"], ["p"])]
    label, columns = read_graph(save(tmp_path / "g.onnx", nodes, [label_info("best"), "p"])).outputs
    assert (label.kind, label.labels, columns.labels) == ("label", (), ())


@pytest.mark.parametrize(("keys", "labels"), [([1, 0], [0, 1]), ([0, 2], [0, 1])])
def test_labels_that_contradict_each_other_are_refused(
    tmp_path: Path, keys: list[int], labels: list[int]
) -> None:
    zipmap = node("ZipMap", ["p"], ["z"], domain=ML, classlabels_int64s=keys)
    path = save(
        tmp_path / "g.onnx", [linear(labels), zipmap], [label_info("label"), zipped_info("z")]
    )
    with pytest.raises(BundleError) as error:
        read_graph(path)
    said = str(error.value)
    assert f"its ZipMap has the labels {keys[0]}, {keys[1]}" in said
    assert "its LinearClassifier has 0, 1" in said
    assert "'z'" in said


def test_a_label_in_another_order_than_the_columns_is_refused(tmp_path: Path) -> None:
    nodes = [
        linear(["a", "b"], names="classlabels_strings"),
        node("ArgMax", ["p"], ["best"], axis=1),
        node("ArrayFeatureExtractor", ["names", "best"], ["name"], domain=ML),
    ]
    path = save(
        tmp_path / "g.onnx",
        nodes,
        [label_info("name", TensorProto.STRING), "p"],
        constants={"names": np.array(["b", "a"], object)},
    )
    with pytest.raises(BundleError, match=r"contradicts itself about 'p'.*'a', 'b'.*'b', 'a'"):
        read_graph(path)


def test_a_map_becomes_a_matrix_for_other_uses_too(tmp_path: Path) -> None:
    zipmap = node("ZipMap", ["p"], ["z"], domain=ML, classlabels_int64s=[3, 4])
    path = save(
        tmp_path / "g.onnx", [linear([3, 4]), zipmap], [zipped_info("z"), "p"], opset=9, ml=1
    )
    source = read_graph(path)
    assert [each.spec.name for each in source.outputs] == ["z", "p"]
    assert not any(each.op_type == "ZipMap" for each in source.graph.graph.node)
    answers = source.ask({"x": np.ones((2, 3), np.float32)})
    assert answers["z"].tolist() == answers["p"].tolist()


def sequence(path: Path, *labels: list[int]) -> Path:
    nodes = []
    for place, names in enumerate(labels):
        classifier = linear(names, "SOFTMAX")
        classifier.output[:] = [f"label{place}", f"p{place}"]
        nodes.append(classifier)
    nodes.append(node("SequenceConstruct", [f"p{i}" for i in range(len(labels))], ["all"]))
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    output = helper.make_value_info("all", helper.make_sequence_type_proto(kind))
    return save(path, nodes, [output])


def test_a_sequence_of_more_classes_than_two_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"'all' is a sequence of 2 tensors, and one has 3"):
        read_graph(sequence(tmp_path / "g.onnx", [0, 1], [0, 1, 2]))


@pytest.mark.parametrize("parts", [1, 2])
def test_two_labels_are_not_taken_for_two_classes(tmp_path: Path, parts: int) -> None:
    (output,) = read_graph(sequence(tmp_path / "g.onnx", *[[0, 1]] * parts)).outputs
    assert output == GraphOutput(TensorSpec("all", "FP32", (-1, parts)), (), "probabilities")


def test_a_map_of_doubles_is_taken_out_though_no_runtime_takes_it(tmp_path: Path) -> None:
    """As skl2onnx writes it by default for float64."""
    nodes = [
        node("Softmax", ["x"], ["p"]),
        node("ZipMap", ["p"], ["z"], domain=ML, classlabels_int64s=[5, 6, 7]),
    ]
    path = save(tmp_path / "g.onnx", nodes, [zipped_info("z")], dtype=TensorProto.DOUBLE)
    source = read_graph(path)
    assert source.outputs == (
        GraphOutput(TensorSpec("z", "FP64", (-1, 3)), (5, 6, 7), "probabilities"),
    )
    assert "doesn't take the file as it came" in source.notes[1]
    assert source.ask({"x": np.zeros((1, 3))})["z"].tolist() == [[1 / 3] * 3]


def test_a_fixed_batch_and_a_double_are_seen(tmp_path: Path) -> None:
    nodes = [node("Softmax", ["x"], ["y"])]
    path = save(tmp_path / "g.onnx", nodes, ["y"], rows=1, dtype=TensorProto.DOUBLE)
    source = read_graph(path)
    assert source.inputs == (TensorSpec("x", "FP64", (1, 3)),)
    assert source.outputs[0].spec == TensorSpec("y", "FP64", (1, 3))


def test_rows_of_a_label_that_the_graph_misstates_vary(tmp_path: Path) -> None:
    label = helper.make_tensor_value_info("label", TensorProto.INT64, [1])
    source = read_graph(save(tmp_path / "g.onnx", [linear([0, 1])], [label, "p"]))
    assert source.outputs[0].spec.shape == (-1,)


def test_what_the_original_refuses_is_said(tmp_path: Path) -> None:
    source = read_graph(save(tmp_path / "g.onnx", [node("Softmax", ["x"], ["y"])], ["y"]))
    with pytest.raises(BundleError, match=r"g\.onnx can't be run: "):
        source.ask({"x": np.ones((1, 4), np.float32)})


def test_a_sequence_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    output = helper.make_value_info("parts", helper.make_sequence_type_proto(kind))
    path = save(tmp_path / "g.onnx", [node("SplitToSequence", ["x"], ["parts"])], [output])
    with pytest.raises(BundleError, match=r"'parts' is seq\(tensor\(float\)\), and only tensors"):
        read_graph(path)


# Files that mean harm.


def test_names_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "g.onnx", [linear([7, 8, 7])], [label_info("label"), "p"])
    with pytest.raises(BundleError, match="LinearClassifier has the label 7 twice"):
        read_graph(path)


def test_a_hostile_graph_is_read_with_bounded_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each Sum doubles the ways back to the first: followed all, there would be 2 ** 60."""
    nodes = [node("Exp", ["x"], ["a0"])]
    nodes += [node("Sum", [f"a{i}", f"a{i}"], [f"a{i + 1}"]) for i in range(60)]
    nodes += [node("ReduceSum", ["a60", "axis"], ["s"]), node("Div", ["a60", "s"], ["y"])]
    nodes += [node("Identity", ["y" if not i else f"i{i}"], [f"i{i + 1}"]) for i in range(5_000)]
    path = save(tmp_path / "g.onnx", nodes, ["y", "i5000"], constants={"axis": np.array([1])})
    lookups = 0
    original = GraphIndex.producer

    def counted(self: GraphIndex, name: str) -> Any:
        nonlocal lookups
        lookups += 1
        return original(self, name)

    monkeypatch.setattr(GraphIndex, "producer", counted)
    assert [each.kind for each in read_graph(path).outputs] == ["", ""]
    assert lookups < 20_000


def test_labels_are_followed_to_a_bounded_depth(tmp_path: Path) -> None:
    encoders = [
        node(
            "LabelEncoder",
            ["label" if not place else f"l{place}"],
            [f"l{place + 1}"],
            domain=ML,
            keys_int64s=[0, 1],
            values_int64s=[1, 0],
        )
        for place in range(500)
    ]
    path = save(
        tmp_path / "g.onnx", [linear([0, 1]), *encoders], [label_info("l2"), label_info("l500")]
    )
    near, far = read_graph(path).outputs
    assert (near.labels, far.labels) == ((0, 1), ())
    assert far.kind == "label"


def test_text_is_lowered_without_a_locale_that_the_system_may_lack(tmp_path: Path) -> None:
    """As the pipelines of scikit-learn with words are exported: ONNX Runtime's default is en_US."""
    lowered = helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action="LOWER")
    text = [helper.make_tensor_value_info(name, TensorProto.STRING, ["n"]) for name in ("x", "y")]
    model = helper.make_model(
        helper.make_graph([lowered], "g", text[:1], text[1:]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    (tmp_path / "g.onnx").write_bytes(model.SerializeToString())
    source = read_graph(tmp_path / "g.onnx")
    given = np.array(["Straße", "ÉTÉ", "Ω"], dtype=object)
    assert source.ask({"x": given})["y"].tolist() == ["straße", "été", "ω"]
    assert b"C.UTF-8" in source.graph.SerializeToString()
