"""Exported programs of any tensors: what they take and return, and what that is called."""

from __future__ import annotations

import collections
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from app.model.errors import BundleError
from app.model.signature import Tensors
from app.packing.programs.program import open_program
from app.packing.source import GraphSource
from tests.packing.conftest import editing, rewrite

PROGRAM = "models/model.json"
ROWS = torch.export.Dim("rows")


class Calling(nn.Module):
    """Does something with two tensors, and a few arguments more."""

    def __init__(self, act: Callable[..., Any]) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Any, input: Any = None, *, more: Any = None) -> Any:
        return self.act(x, input, more)


def save(
    act: Callable[..., Any],
    path: Path,
    *inputs: Any,
    shapes: Any = None,
    **more: Any,
) -> Path:
    inputs = inputs or (torch.arange(6.0).reshape(2, 3),)
    program = torch.export.export(Calling(act).eval(), inputs, more, dynamic_shapes=shapes)
    torch.export.save(program, path / "model.pt2")
    return path / "model.pt2"


def answers(source: GraphSource, given: Tensors) -> dict[str, Any]:
    """Return what the original answers, which is what its graph answers in ONNX Runtime."""
    session = onnxruntime.InferenceSession(source.graph.SerializeToString())
    assert [each.name for each in session.get_inputs()] == [s.name for s in source.inputs]
    names = [output.spec.name for output in source.outputs]
    assert [each.name for each in session.get_outputs()] == names
    found = dict(source.ask(given))
    for name, served in zip(names, session.run(None, dict(given)), strict=True):
        np.testing.assert_allclose(found[name], served, atol=1e-5)
        assert found[name].dtype == served.dtype
    for output in source.outputs:
        assert output.spec.accepts(found[output.spec.name].shape)
    return found


def refusal(act: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(BundleError) as error:
        act(*arguments, **options)
    assert len(str(error.value)) < 1_000
    return str(error.value)


@dataclass
class Fields:
    first: Any
    second: Any


class Named(NamedTuple):
    first: Any
    second: Any


torch.export.register_dataclass(Fields, serialized_type_name="tests.Fields")
torch.utils._pytree._register_namedtuple(Named, serialized_type_name="tests.Named")


@pytest.mark.parametrize(
    ("act", "names"),
    [
        (lambda x, *_: x + 1, ["output"]),
        (lambda x, *_: (x + 1,), ["output"]),
        (lambda x, *_: (x + 1, x * 2), ["output_0", "output_1"]),
        (lambda x, *_: [x + 1, (x * 2, x)], ["output_0", "output_1_0", "output_1_1"]),
        (lambda x, *_: {"logits": x + 1, "states": [x, x]}, ["logits", "states_0", "states_1"]),
        (lambda x, *_: {"x": x + 1, "y": {"x": x * 2}}, ["x_output", "y_x"]),
        (lambda x, *_: {"a b/c.é": x + 1}, ["a b/c.é"]),
        (lambda x, *_: {"a\nb": x + 1, "": x}, ["output_0", "output_1"]),
        (lambda x, *_: {"a_b": x + 1, "a": {"b": x}}, ["a_b", "a_b_1"]),
        (lambda x, *_: {"add": (x + 1) * 2, "mul": x + 1}, ["add", "mul"]),
        (lambda x, *_: Fields(x + 1, x * 2), ["first", "second"]),
        (lambda x, *_: Named(x + 1, x * 2), ["first", "second"]),
        (lambda x, *_: collections.OrderedDict(u=x + 1, v=x * 2), ["u", "v"]),
        (lambda x, *_: (x, x), ["output_0", "output_1"]),
    ],
)
def test_outputs_are_called_as_the_model_calls_them(
    tmp_path: Path, act: Callable[..., Any], names: list[str]
) -> None:
    source = open_program(save(act, tmp_path, shapes={"x": {0: ROWS}}))
    assert [output.spec.name for output in source.outputs] == names
    x = torch.rand(5, 3)
    found = answers(source, {"x": x.numpy()})
    expected = torch.utils._pytree.tree_leaves(act(x))
    for value, wanted in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(value, wanted.numpy(), atol=1e-6)


def mixed(x: Tensor, input: Tensor, more: Mapping[str, Tensor]) -> Any:
    scale = torch.where(more["mask"], more["scale"], 2.0)
    return x.sum(1) * scale, input.double() * 2, input + 1


def test_inputs_have_any_datatype_and_rank_and_are_called_as_in_forward(tmp_path: Path) -> None:
    length = torch.export.Dim("length", min=2, max=9)
    more = {"mask": torch.tensor([True, False]), "scale": torch.tensor(3.0)}
    path = save(
        mixed,
        tmp_path,
        torch.rand(2, 3),
        torch.ones(2, 4, dtype=torch.int64),
        more=more,
        shapes={"x": {0: ROWS}, "input": {1: length}, "more": {"mask": {0: ROWS}, "scale": None}},
    )
    source = open_program(path)
    assert [(s.name, s.datatype, s.shape) for s in source.inputs] == [
        ("x", "FP32", (-1, 3)),
        ("input", "INT64", (2, -1)),
        ("more_mask", "BOOL", (-1,)),
        ("more_scale", "FP32", ()),
    ]
    assert [(o.spec.datatype, o.spec.shape) for o in source.outputs] == [
        ("FP32", (-1,)),
        ("FP64", (2, -1)),
        ("INT64", (2, -1)),
    ]
    for rows, columns in ((1, 2), (7, 9), (40, 4)):
        given = {
            "x": np.ones((rows, 3), np.float32),
            "input": np.ones((2, columns), np.int64),
            "more_mask": np.arange(rows) % 2 == 0,
            "more_scale": np.array(4, np.float32),
        }
        np.testing.assert_array_equal(answers(source, given)["output_0"][:2], [12, 6][:rows])
    long = given | {"input": np.ones((2, 10), np.int64)}
    assert "dimension 1 of 'input' to be <= 9, but got 10" in refusal(source.ask, long)


def test_what_can_not_be_asked_is_refused_by_its_name(tmp_path: Path) -> None:
    source = open_program(save(lambda x, y, _: x + y, tmp_path, torch.ones(2, 3), torch.ones(3)))
    x, y = np.ones((2, 3), np.float32), np.ones(3, np.float32)
    assert "takes 'input', 'x', not 'x'" in refusal(source.ask, {"x": x})
    wrong = {"x": x.astype("c8"), "input": y}
    assert "takes 'x' as FP32, not as complex64" in refusal(source.ask, wrong)
    assert "takes 'x' of shape [2, 3], not [2, 4]" in refusal(
        source.ask, {"x": np.ones((2, 4)), "input": y}
    )


def test_what_was_fixed_when_it_was_exported_is_left_out_and_told(tmp_path: Path) -> None:
    path = save(lambda x, y, z: (x * 3 if y else x, None), tmp_path, torch.ones(2, 3), True)
    source = open_program(path)
    assert [spec.name for spec in source.inputs] == ["x"]
    assert source.notes == (
        "The input 'input' was fixed to True when the model was exported, so it is left out.",
        "Output 1 is None, so it is left out.",
    )
    np.testing.assert_array_equal(
        answers(source, {"x": np.ones((2, 3), np.float32)})["output"], np.full((2, 3), 3.0)
    )


@pytest.mark.parametrize(
    ("act", "inputs", "said"),
    [
        (lambda x, *_: (x, 5), (torch.ones(2),), "returns a number ('int') as output 1"),
        (lambda *_: None, (torch.ones(2),), "returns no tensor"),
        (lambda *_: torch.ones(2), (3,), "takes no tensor"),
        (lambda x, *_: x * 2, (torch.ones(2, dtype=torch.complex64),), "takes 'x' as torch.compl"),
        (lambda x, *_: torch.complex(x, x), (torch.ones(2),), "complex"),
    ],
)
def test_what_is_no_tensor_is_refused_in_a_sentence(
    tmp_path: Path, act: Callable[..., Any], inputs: tuple[Any, ...], said: str
) -> None:
    assert said in refusal(open_program, save(act, tmp_path, *inputs))


# How many rows it takes


@pytest.mark.parametrize(
    "rows",
    [None, torch.export.Dim("rows", max=8), torch.export.Dim("rows", min=3), ROWS],
    ids=["fixed", "at most", "at least", "any"],
)
def test_any_number_of_rows_is_asked_of_the_original(tmp_path: Path, rows: Any) -> None:
    shapes = {"x": {0: rows}, "input": {0: rows}} if rows else None
    path = save(
        lambda x, y, _: {"sum": x.sum(1), "both": x[:, :2] + y},
        tmp_path,
        torch.ones(4, 3),
        torch.ones(4, 1),
        shapes=shapes,
    )
    source = open_program(path)
    x, y = np.random.default_rng(0).random((2, 21, 3), np.float32)
    for count in (1, 4, 21):
        found = source.ask({"x": x[:count], "input": y[:count, :1]})
        np.testing.assert_allclose(found["both"], (x[:, :2] + y[:, :1])[:count], atol=1e-6)
        np.testing.assert_allclose(found["sum"], x.sum(1)[:count], atol=1e-6)


def test_rows_are_not_split_where_an_output_is_of_all_of_them(tmp_path: Path) -> None:
    path = save(lambda x, *_: (x + 1, x.mean(0)), tmp_path, torch.ones(4, 3))
    source = open_program(path)
    assert len(source.ask({"x": np.ones((4, 3), np.float32)})["output_1"]) == 3
    said = refusal(source.ask, {"x": np.ones((5, 3), np.float32)})
    assert "takes 4 rows at once, and its output 'output_1' doesn't have one for each" in said


# Files that mean harm


def signature_edit(edit: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    return editing(PROGRAM, lambda document: edit(document["graph_module"]))


def out_spec(tree: Any) -> Callable[[dict[str, bytes]], None]:
    def edit(module: Any) -> None:
        call = module["module_call_graph"][0]["signature"]
        call["out_spec"] = tree if isinstance(tree, str) else json.dumps([1, tree])

    return signature_edit(edit)


LEAF: Any = {"type": None, "context": None, "children_spec": []}
DEEP = LEAF
for _ in range(100):
    DEEP = {"type": "builtins.tuple", "context": "null", "children_spec": [DEEP]}
WIDE = {"type": "builtins.tuple", "context": "null", "children_spec": [LEAF] * 100_000}
CLASS = {"type": "os.system", "context": '["true"]', "children_spec": [LEAF]}


def many_outputs(module: Any) -> None:
    module["graph"]["outputs"] *= 1001
    module["signature"]["output_specs"] *= 1001


def number_in_place_of_a_tensor(module: Any) -> None:
    module["signature"]["input_specs"][-1]["user_input"]["arg"] = {"as_sym_int": {"as_int": 3}}


def long_name(module: Any) -> None:
    text = json.dumps(module).replace('"x"', json.dumps("x" * 300))
    module |= json.loads(text)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (out_spec("[" * 100_000), "is malformed"),
        (out_spec("null"), "is malformed"),
        (out_spec("[1, {}]"), "is malformed"),
        (out_spec(DEEP), "nested too deeply"),
        (out_spec(WIDE), "is malformed: ValueError at the number of outputs in a tree"),
        (signature_edit(many_outputs), "returns 1,001 tensors; at most 1,000 are served"),
        (signature_edit(number_in_place_of_a_tensor), "takes a number ('sym_int') as an input"),
        (signature_edit(long_name), "is malformed: ValueError at the name of an input"),
        (signature_edit(lambda m: m["graph"]["inputs"].pop()), "is malformed: ValueError"),
        (signature_edit(lambda m: m["module_call_graph"].clear()), "is malformed: StopIteration"),
    ],
)
def test_a_calling_convention_that_means_harm_is_refused_at_once(
    tmp_path: Path, edit: Callable[[dict[str, bytes]], None], said: str
) -> None:
    path = rewrite(save(lambda x, *_: x + 1, tmp_path), tmp_path / "edited.pt2", edit)
    assert said in refusal(open_program, path)


def test_no_class_of_a_tree_is_looked_up(tmp_path: Path) -> None:
    path = rewrite(save(lambda x, *_: x + 1, tmp_path), tmp_path / "edited.pt2", out_spec(CLASS))
    assert [output.spec.name for output in open_program(path).outputs] == ["true"]
