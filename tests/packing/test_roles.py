"""What outputs mean is said by the owner or by the graph, and never concluded from numbers."""

from __future__ import annotations

from typing import Any

import pytest

from app.model.errors import BundleError
from app.model.manifest import Target, TaskName
from app.model.signature import TensorSpec
from app.packing.description import ModelDescription
from app.packing.roles import Roles, roles_of
from app.packing.source import GraphOutput
from app.packing.statement import Statement, names_of_answer, read_outputs, task_of_model

NOTHING = ModelDescription()


def output(
    name: str, *columns: int, datatype: str = "FP32", kind: Any = "", labels: Any = ()
) -> GraphOutput:
    return GraphOutput(TensorSpec(name, datatype, (-1, *columns)), labels, kind)


LOGITS = output("out", 3)
LABEL = output("label", datatype="INT64", kind="label", labels=(0, 1))
NAME = output("label", datatype="BYTES", kind="label", labels=("churns", "stays"))
FOREST = output("probs", 2, kind="probabilities", labels=("churns", "stays"))


def found(
    task: TaskName, *outputs: GraphOutput, said: Any = (), names: tuple[str, ...] = ()
) -> Roles:
    role, roles = read_outputs(said)
    return roles_of(task, Statement(task, role, roles), names, outputs)


def refusal(task: TaskName, *outputs: GraphOutput, **options: Any) -> str:
    with pytest.raises(BundleError) as error:
        found(task, *outputs, **options)
    return str(error.value)


# The task


@pytest.mark.parametrize(
    ("description", "outputs", "task"),
    [
        (ModelDescription(classes=("a", "b")), (LOGITS,), "classification"),
        (ModelDescription(labels=("a",)), (LOGITS,), "multilabel"),
        (ModelDescription(targets=(Target("price"),)), (LOGITS,), "regression"),
        (NOTHING, (LABEL, FOREST), "classification"),
        (NOTHING, (output("v", 1, kind="values"),), "regression"),
    ],
)
def test_the_task_is_what_the_owner_or_the_graph_says(
    description: ModelDescription, outputs: Any, task: str
) -> None:
    assert task_of_model(Statement(), description, outputs)[0] == task
    assert task_of_model(Statement("tensors"), description, outputs)[0] == "tensors"


def test_a_task_that_nobody_says_is_asked_for() -> None:
    with pytest.raises(BundleError, match=r"give --task classification\|multilabel\|regression"):
        task_of_model(Statement(), NOTHING, (LOGITS,))
    both = ModelDescription(classes=("a", "b"), labels=("c",))
    with pytest.raises(BundleError, match="has classes and labels, so say which"):
        task_of_model(Statement(), both, (LOGITS,))


# The roles


@pytest.mark.parametrize("said", ["probabilities", "logits", "scores"])
def test_what_an_owner_says_of_the_only_output_is_believed(said: str) -> None:
    answer = found("classification", LOGITS, said=[said], names=("a", "b", "c")).answer
    assert answer is not None
    assert answer.role == ("probabilities" if said == "logits" else said)
    assert answer.from_logits == (said == "logits")


@pytest.mark.parametrize(
    ("task", "asked"),
    [
        ("classification", "--outputs probabilities or --outputs logits or --outputs scores"),
        ("multilabel", "--outputs probabilities or --outputs logits"),
    ],
)
def test_what_nobody_says_of_an_output_is_asked_for(task: Any, asked: str) -> None:
    assert asked in refusal(task, LOGITS, names=("a", "b", "c"))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("probabilities", "logits"),
        ("probabilities", "scores"),
        ("scores", "probabilities"),
        ("logits", "probabilities"),
        ("label", "probabilities"),
        ("label", "logits"),
    ],
)
def test_a_graph_that_says_otherwise_than_its_owner_is_refused(kind: str, said: str) -> None:
    text = refusal(
        "classification", output("z", 2, kind=kind), said=[f"z={said}"], names=("a", "b")
    )
    assert f"is said to be {said}" in text
    assert f"Give --outputs {kind}" in text


@pytest.mark.parametrize("said", [(), ("logits",), ("probabilities",)])
def test_a_regressor_does_not_classify(said: tuple[str, ...]) -> None:
    values = output("v", 2, kind="values")
    text = refusal("classification", values, said=said, names=("a", "b"))
    assert "the graph ends in a regressor. Give --task regression" in text


def test_a_classifier_has_no_values() -> None:
    text = refusal("regression", NAME, FOREST)
    assert "'probs' is said to be values, but the graph ends in a softmax" in text
    assert "Give --task classification" in text


@pytest.mark.parametrize("task", ["regression", "embedding"])
def test_a_number_between_0_and_1_is_a_number(task: Any) -> None:
    rate = output("rate", 1, kind="probabilities")
    answer = found(task, rate).answer
    assert answer is not None
    assert answer.output == rate


def test_a_string_for_each_label_does_not_say_which_apply() -> None:
    words = output("label", 2, datatype="BYTES", kind="label", labels=("no", "yes"))
    found_roles = found("multilabel", words, output("p", 2, kind="probabilities"), names=("a", "b"))
    assert found_roles.answer is not None
    assert found_roles.answer.label is None
    assert found_roles.others == ((words, "tensor"),)


def test_one_of_several_outputs_is_chosen_by_name_kind_or_columns() -> None:
    risk, probabilities = output("risk", 1), output("p", 2)
    names = ("no", "yes")
    by_columns = found("classification", risk, probabilities, said=["probabilities"], names=names)
    by_name = found("classification", risk, probabilities, said=["p=probabilities"], names=names)
    assert by_columns == by_name
    assert by_name.others == ((risk, "tensor"),)
    by_kind = found("classification", NAME, risk, FOREST)
    assert by_kind.answer is not None
    assert by_kind.answer.output == FOREST
    said = refusal("embedding", risk, probabilities)
    assert "2 outputs that could be the answer: risk (FP32 [-1, 1]), p (FP32 [-1, 2])" in said
    assert "--outputs risk=embedding" in said
    assert "name one" in refusal(
        "embedding", risk, probabilities, said=["risk=embedding", "p=embedding"]
    )


def test_a_matrix_is_asked_for_where_each_class_has_an_output() -> None:
    text = refusal("classification", NAME, output("churns"), output("stays"))
    assert "an output for each class: churns (FP32 [-1]), stays (FP32 [-1])" in text
    assert "options={'zipmap': False}" in text


def test_a_name_or_role_that_is_none_is_refused_with_a_suggestion() -> None:
    assert "the model's outputs are out" in refusal("embedding", LOGITS, said=["ot=embedding"])
    with pytest.raises(BundleError, match="did you mean 'logits'"):
        read_outputs(["logit"])
    with pytest.raises(BundleError, match="says both logits and scores"):
        read_outputs(["logits", "scores"])
    with pytest.raises(BundleError, match="'a' that it is state, too"):
        read_outputs(["a=state", "a=values"])


def test_tensors_mean_what_the_caller_knows() -> None:
    state = output("next", 4)
    roles = found("tensors", LOGITS, state, said=["next=state"])
    assert roles.answer is None
    assert roles.others == ((LOGITS, "tensor"), (state, "state"))
    assert "has no meaning for the task tensors" in refusal("tensors", LOGITS, said=["logits"])
    assert "only state and tensor do" in refusal("tensors", LOGITS, said=["out=values"])


@pytest.mark.parametrize(
    ("said", "note"), [("probabilities", "probability of 'yes'"), ("scores", "score of 'yes'")]
)
def test_one_score_is_that_of_the_second_of_two_classes(said: str, note: str) -> None:
    for one in (output("p", 1), output("p")):
        roles = found("classification", one, said=[said], names=("no", "yes"))
        assert roles.answer is not None
        assert roles.answer.is_one_score
        assert any(note in each for each in roles.notes)
    assert "there are 3 classes" in refusal(
        "classification", output("p", 1), said=[said], names=("a", "b", "c")
    )


# The names


@pytest.mark.parametrize("said", [(), ("churns", "stays"), ("stays", "churns")])
def test_classes_are_in_the_order_of_the_graph(said: tuple[str, ...]) -> None:
    roles = found("classification", FOREST, names=said)
    assert roles.answer is not None
    assert roles.answer.names == ("churns", "stays")
    in_another = "The classes are in the order of the graph: churns, stays"
    assert any(in_another in note for note in roles.notes) == (said == ("stays", "churns"))


def test_other_classes_than_the_graphs_are_refused() -> None:
    text = refusal("classification", FOREST, names=("yes", "no"))
    assert "the graph's own are churns, stays" in text
    assert "3 classes are given, and the graph has 2" in refusal(
        "classification", FOREST, names=("a", "b", "c")
    )


def test_numbers_of_a_graph_are_named_in_their_order_and_that_is_said() -> None:
    matrix = output("p", 2, kind="probabilities")
    roles = found("classification", LABEL, matrix, names=("bad", "good"))
    assert roles.answer is not None
    assert roles.answer.label_values == (0, 1)
    assert "The graph's class 0 is 'bad', 1 is 'good'." in roles.notes


def test_more_classes_than_the_graph_has_may_be_labels() -> None:
    text = refusal(
        "classification", LABEL, output("p", 4, kind="probabilities"), names=tuple("abcd")
    )
    assert "4 classes are given, and the graph has 2: 0, 1." in text
    assert "give --task multilabel" in text


def test_columns_and_labels_of_other_classes_contradict_each_other() -> None:
    other = output("label", datatype="BYTES", kind="label", labels=("stays", "leaves"))
    assert "its columns are 'churns', 'stays'" in refusal("classification", other, FOREST)


@pytest.mark.parametrize(
    ("task", "called"), [("classification", "classes"), ("multilabel", "labels")]
)
def test_names_that_nobody_says_are_asked_for(task: Any, called: str) -> None:
    text = refusal(task, LOGITS, said=["logits"])
    assert f"{called} is missing" in text
    assert f"--{called} a,b,..." in text


def test_a_regression_of_one_number_is_called_as_the_graph_calls_it() -> None:
    roles = found("regression", output("variable", 1))
    assert roles.answer is not None
    assert roles.answer.names == ("variable",)
    assert any("'variable', as the graph calls it" in note for note in roles.notes)
    assert "targets is missing" in refusal("regression", output("y", 2))


def test_names_are_said_once() -> None:
    description = ModelDescription(classes=("a", "b"))
    said = Statement("classification", names=("b", "a"))
    with pytest.raises(BundleError, match="--classes says b, a, and the features file says a, b"):
        names_of_answer("classification", said, description)
    names, notes = names_of_answer("regression", Statement("regression"), description)
    assert names == ()
    assert notes == ("classes in the features file is not used: the task is regression.",)
    names, notes = names_of_answer("multilabel", Statement("multilabel"), description)
    assert names == ("a", "b")
    with pytest.raises(BundleError, match="has no meaning for the task embedding"):
        names_of_answer("embedding", Statement("embedding", names=("a",)), NOTHING)
