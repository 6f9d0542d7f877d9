"""What is missing or wrong is told at once, as far as it can be known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from app.model.errors import BundleError
from app.model.features import Feature
from app.model.signature import TensorSpec
from app.packing.description import ModelDescription
from app.packing.faults import Faults
from app.packing.file import pack_file
from app.packing.placement import placed
from app.packing.roles import roles_of
from app.packing.source import GraphOutput
from app.packing.statement import Statement, read_outputs
from tests.tensor_graphs import write_graph

LOGITS = GraphOutput(TensorSpec("out", "FP32", (-1, 3)))
OTHER = GraphOutput(TensorSpec("other", "FP32", (-1, 3)))


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A graph of two inputs, of which nobody knows what it answers."""
    return write_graph(
        tmp_path / "model.onnx",
        [
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Identity", ["text"], ["same"]),
        ],
        [
            ("a", TensorProto.FLOAT, ["n", 2]),
            ("b", TensorProto.FLOAT, ["n", 2]),
            ("text", TensorProto.STRING, ["n", 2]),
        ],
        [("sum", TensorProto.FLOAT, ["n", 2]), ("same", TensorProto.STRING, ["n", 2])],
    )


def faults_of_packing(graph: Path, **said: Any) -> list[str]:
    """Return the faults that one run tells, as they are numbered."""
    samples = graph.parent / "samples.csv"
    samples.write_text("p,q\n1,2\n")
    options: dict[str, Any] = {"samples": samples} | said
    with pytest.raises(BundleError) as error:
        pack_file(graph, graph.parent / "models" / "m" / "1", **options)
    text = str(error.value).removeprefix(f"{graph}: ")
    if not text.startswith("(1 of "):
        return [text]
    count = int(text[len("(1 of ") :].split(")")[0])
    for index in range(1, count + 1):
        text = text.replace(f"({index} of {count}) ", "\n")
    return [line.strip() for line in text.strip().split("\n")]


def check(faults: list[str], *beginnings: str) -> None:
    assert len(faults) == len(beginnings), faults
    for fault, beginning in zip(faults, beginnings, strict=True):
        assert fault.startswith(beginning), faults


def test_without_a_task_all_is_asked_that_any_task_needs(graph: Path) -> None:
    features = ModelDescription((Feature("p", tensor="a"), Feature("q")))
    stated = Statement(roles={"total": "logits"})
    found = faults_of_packing(graph, description=features, statement=stated)
    check(
        found,
        "What the model is for can't be known from the file: give --task classification|",
        "--outputs names 'total', and the model's outputs are sum, same.",
        "feature 'q': tensor is missing",
        "For the task that you give there is more to say: classification takes --classes a,b,...; "
        "multilabel takes --labels a,b,...; regression takes --targets a,b,....",
    )


def test_with_a_task_its_options_and_the_places_of_features_are_asked(graph: Path) -> None:
    found = faults_of_packing(
        graph,
        description=ModelDescription((Feature("p"), Feature("q"))),
        statement=Statement("classification"),
    )
    check(
        found,
        "The model has 3 inputs:",
        "What the model's outputs are can't be known from the file: give --outputs probabilities "
        "or --outputs logits or --outputs scores.",
        "classes is missing:",
    )


def test_tensors_have_neither_features_nor_a_table(graph: Path) -> None:
    found = faults_of_packing(
        graph,
        description=ModelDescription((Feature("p"), Feature("q"))),
        statement=Statement("tensors"),
    )
    check(found, "The task tensors has no features", f"{graph.parent}/samples.csv must be a")


def test_one_fault_alone_has_no_number(tmp_path: Path) -> None:
    path = write_graph(
        tmp_path / "model.onnx",
        [helper.make_node("Softmax", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, ["n", 2])],
        [("y", TensorProto.FLOAT, ["n", 2])],
    )
    found = faults_of_packing(path, statement=Statement("classification"))
    check(found, "classes is missing:")


def refusal(act: Any, *arguments: Any) -> str:
    with pytest.raises(BundleError) as error:
        act(*arguments)
    return str(error.value)


def test_the_role_and_the_names_of_an_answer_are_asked_together() -> None:
    said = refusal(roles_of, "classification", Statement("classification"), (), [LOGITS])
    assert said.startswith("(1 of 2) What the output 'out' is can't be known from the file")
    assert "(2 of 2) classes is missing" in said
    said = refusal(roles_of, "multilabel", Statement("multilabel"), (), [LOGITS, OTHER])
    assert said.startswith("(1 of 2) The model has 2 outputs that could be the answer")
    assert "(2 of 2) labels is missing" in said


def test_a_wrong_role_and_wrong_names_are_told_together() -> None:
    forest = GraphOutput(TensorSpec("p", "FP32", (-1, 2)), ("a", "b"), "probabilities")
    stated = Statement("classification", "logits")
    said = refusal(roles_of, "classification", stated, ("a", "x"), [forest])
    assert "(1 of 2) 'p' is said to be logits, but the graph ends in a softmax" in said
    assert "(2 of 2) The classes given are a, x" in said


def test_every_wrong_option_is_named() -> None:
    said = refusal(read_outputs, ["a=probs", "b=logit", "c=values"])
    assert "--outputs 'probs'" in said
    assert "--outputs 'logit'" in said
    stated = Statement("tensors", "values", {"out": "logits"})
    said = refusal(roles_of, "tensors", stated, (), [LOGITS])
    assert "(1 of 2) --outputs values has no meaning" in said
    assert "(2 of 2) --outputs NAME=logits has no meaning" in said
    stated = Statement(roles={"x": "tensor", "y": "tensor"})
    said = refusal(roles_of, "regression", stated, (), [LOGITS])
    assert said == "--outputs names 'x', 'y', and the model's outputs are out."


def test_every_fault_of_the_places_of_features_is_told() -> None:
    inputs = [TensorSpec("text", "BYTES", (-1, 3)), TensorSpec("numbers", "FP32", (-1, 2))]

    def place(*features: Feature) -> str:
        stated = ModelDescription(features).stated_of_each()
        return refusal(placed, features, stated, inputs)

    said = place(
        Feature("a", tensor="text"),
        Feature("b", tensor="text"),
        Feature("c", tensor="numbers"),
    )
    assert "(1 of 3) The input 'text' has 3 columns" in said
    assert "(2 of 3) The input 'numbers' has 2 columns" in said
    assert "(3 of 3) features 'a', 'b': the model's input 'text' takes strings" in said
    said = place(Feature("a", tensor="texts"), Feature("b", tensor="number"), Feature("c"))
    assert "(1 of 3) feature 'c': tensor is missing" in said
    assert "(2 of 3) feature 'a': tensor 'texts' is not an input of the model" in said
    assert "(3 of 3) feature 'b': tensor 'number'" in said


def test_every_column_is_named_that_samples_lack(tmp_path: Path) -> None:
    path = write_graph(
        tmp_path / "model.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, ["n", 40])],
        [("y", TensorProto.FLOAT, ["n", 40])],
    )
    features = tuple(Feature(f"f{index}") for index in range(40))
    found = faults_of_packing(
        path, description=ModelDescription(features), statement=Statement("embedding")
    )
    text = json.dumps(found)
    assert "(1 of 10) the column 'f0' is missing" in text  # no more than can be read
    assert "(10 of 10) the column 'f9' is missing" in text


def test_a_fault_is_told_once() -> None:
    faults = Faults()
    faults.add("x")
    faults.add("x")
    assert refusal(faults.check) == "x"
    assert not Faults()
    Faults().check()
