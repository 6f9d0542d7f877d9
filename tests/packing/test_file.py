"""A user's own model becomes a bundle: it answers as the original does, or is not packed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn

from app.model.errors import BundleError
from app.model.features import Feature
from app.model.golden import read_golden
from app.model.model import Model
from app.model.network import Network, save_checkpoint
from app.model.onnx_runtime import OnnxRuntime
from app.model.signature import DTYPES, Tensors
from app.packing.description import ModelDescription, read_description
from app.packing.file import pack_file
from app.packing.statement import Statement
from app.registry.loading import ModelSource, load_model
from tests.conftest import ROOT
from tests.packing.conftest import (
    ANY_ROWS,
    Residual,
    describe,
    plain,
    save_onnx,
    save_program,
)

NULLABLE = Feature("a", nullable=True)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "models" / "mine" / "1"


def packed(source: Path, out: Path, samples: Path, **options: Any) -> Model:
    """Pack ``source`` and load it as a worker does, self-test included."""
    manifest = pack_file(source, out, samples=samples, **_said(options)).manifest
    model = load_model(ModelSource(out.parent))
    assert model.version == manifest.version
    return model


def _said(options: dict[str, Any]) -> dict[str, Any]:
    """What an owner says of a model; by default that it returns logits."""
    role = options.pop("outputs", "logits")
    return {"description": describe(), "statement": Statement(role=role), **options}


def probabilities(model: Model, values: Any) -> Any:
    (spec,) = model.manifest.inputs
    return model.predict_batch({spec.name: values.astype(DTYPES[spec.datatype])}).answers


def refusal(source: Path, out: Path, samples: Path, **options: Any) -> str:
    with pytest.raises(BundleError) as error:
        pack_file(source, out, samples=samples, **_said(options))
    assert not out.exists()
    assert not out.parent.exists() or list(out.parent.iterdir()) == []
    return str(error.value)


def answers_of(model: nn.Module, values: Any, *, softmax: bool = True) -> Any:
    with torch.inference_mode():
        answers = model(torch.from_numpy(values))
        return (torch.softmax(answers, dim=1) if softmax else answers).numpy()


@pytest.mark.parametrize("softmax", [False, True], ids=["logits", "probabilities"])
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_network_of_ones_own_answers_as_it_did(
    *, tmp_path: Path, out: Path, samples: Path, values: Any, softmax: bool, suffix: str
) -> None:
    network = Residual(softmax=softmax).eval()
    if suffix == ".pt2":
        source = save_program(network, tmp_path / "model.pt2")
    else:
        source = save_onnx(network, tmp_path / "model.onnx", dynamic_shapes=ANY_ROWS)
    said = "probabilities" if softmax else "logits"
    model = packed(source, out, samples, outputs=said)
    expected = answers_of(network, values, softmax=not softmax)
    answers = probabilities(model, values)
    np.testing.assert_allclose(answers, expected, atol=1e-5)
    (spec,) = model.manifest.inputs
    one = model.predict({spec.name: values[:1]})
    np.testing.assert_allclose(one.values, expected[0], atol=1e-5)


def test_the_bundle_holds_what_the_user_said_and_what_the_samples_show(
    program: Path, out: Path, samples: Path, values: Any
) -> None:
    description = ModelDescription(
        describe(b=Feature("b", "Second.", "cm", minimum=-99)).features,
        ("x", "y", "z"),
        description="A residual network.",
        training={"accuracy": 0.9},
    )
    manifest = packed(program, out, samples, description=description).manifest
    assert (manifest.name, manifest.version) == ("mine", "1")
    assert manifest.description == "A residual network."
    assert manifest.training == {"accuracy": 0.9}
    assert manifest.features[1].unit == "cm"
    assert manifest.features[1].minimum == -99
    assert manifest.features[1].maximum == pytest.approx(values[:, 1].max())
    golden = read_golden(out / "golden.npz", manifest.signature)
    (rows,) = golden.inputs.values()
    assert rows.shape == (20, 4)
    assert np.isin(rows[:, 0], values[:, 0]).all()
    assert [*manifest.files] == ["golden.npz", "model.onnx", "reference.json"]
    assert str(ROOT).encode() not in (out / "model.onnx").read_bytes()


def test_runtime_torch_says_that_there_is_none_for_such_a_bundle(
    program: Path, out: Path, samples: Path
) -> None:
    pack_file(program, out, samples=samples, **_said({}))
    with pytest.raises(BundleError, match="model.runtime is 'torch', but this model has no model"):
        load_model(ModelSource(out, runtime="torch"))


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize("medians", [{}, {"a": 2.0}], ids=["", "median"])
def test_a_model_in_double_precision_is_served_in_single(
    *, tmp_path: Path, out: Path, samples: Path, values: Any, suffix: str, medians: dict[str, float]
) -> None:
    save = save_program if suffix == ".pt2" else save_onnx
    options = {"dtype": torch.float64, "dynamic_shapes": ANY_ROWS}
    source = save(plain().double(), tmp_path / f"model{suffix}", **options)
    description = describe(medians=medians, **({"a": NULLABLE} if medians else {}))
    model = packed(source, out, samples, description=description)
    expected = answers_of(plain().double(), values.astype(np.float64))
    answers = probabilities(model, values)
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers, expected, atol=1e-6)


def test_double_precision_that_onnx_runtime_lacks_is_refused_with_what_to_do(
    tmp_path: Path, out: Path, samples: Path
) -> None:
    source = save_program(Residual().double().eval(), tmp_path / "m.pt2", dtype=torch.float64)
    said = refusal(source, out, samples)
    assert f"{source}, as it would be served, can't be loaded by ONNX Runtime" in said
    assert "convert the model with model.float()" in said


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_model_exported_for_one_number_of_rows_answers_any(
    tmp_path: Path, out: Path, samples: Path, values: Any, suffix: str
) -> None:
    save = save_program if suffix == ".pt2" else save_onnx
    source = save(plain(), tmp_path / f"model{suffix}", dynamic_shapes=None)
    answers = probabilities(packed(source, out, samples), values)
    np.testing.assert_allclose(answers, answers_of(plain(), values), atol=1e-5)


class Reshaping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = plain()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.inner(x).reshape(x.shape[0], -1)
        return answer


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_model_that_only_answers_one_number_of_rows_is_refused_with_what_to_do(
    tmp_path: Path, out: Path, samples: Path, suffix: str
) -> None:
    save = save_program if suffix == ".pt2" else save_onnx
    source = save(Reshaping().eval(), tmp_path / f"model{suffix}", dynamic_shapes=None)
    said = refusal(source, out, samples)
    assert "It was exported for exactly 2 row(s)" in said
    assert 'dynamic_shapes=({0: torch.export.Dim("rows")},)' in said


class Ending(nn.Module):
    """The plain network with another last layer."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.end = plain(), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.inner(x))


@pytest.mark.parametrize(
    ("end", "outputs", "said"),
    [
        (torch.sigmoid, "probabilities", "no probabilities of classes, which sum to 1"),
        (torch.exp, "probabilities", "no probabilities, which are from 0 to 1"),
        (lambda z: torch.softmax(z, dim=1), "logits", "another softmax would falsify them"),
        (lambda z: torch.sigmoid(z[:, :1]), "probabilities", "one score a row, and there are 3"),
        (lambda z: z[:, 0], "logits", "has one score a row, and there are 3 classes"),
        (lambda z: z[:, :2], "logits", "'output' has 2 columns, but 3 classes are given"),
        (lambda z: z.unsqueeze(1), "logits", "the shape [-1, 1, 3]; [rows, classes] is expected"),
        (lambda z: z.sum(), "logits", "no output of floats that could be the answer"),
        (
            lambda z: z / 0,
            "logits",
            "is NaN or infinite for 200 of 200 samples, the first line 2 of samples.csv",
        ),
        (
            lambda z: z - z.mean(dim=0),
            "logits",
            "answers a row differently alone and together with others",
        ),
    ],
)
def test_answers_of_another_form_are_refused(
    *,
    tmp_path: Path,
    out: Path,
    samples: Path,
    end: Callable[[Tensor], Tensor],
    outputs: Any,
    said: str,
) -> None:
    source = save_program(Ending(end).eval(), tmp_path / "model.pt2")
    assert said in refusal(source, out, samples, outputs=outputs)


def test_what_outputs_are_is_asked_and_not_guessed(
    tmp_path: Path, out: Path, samples: Path
) -> None:
    source = save_program(plain(), tmp_path / "model.pt2")
    said = refusal(source, out, samples, outputs=None)
    assert "can't be known from the file" in said
    assert "--outputs probabilities or --outputs logits or --outputs scores" in said


def test_who_says_that_outputs_are_logits_is_believed(
    tmp_path: Path, out: Path, samples: Path, values: Any
) -> None:
    network = Ending(torch.sigmoid).eval()
    source = save_program(network, tmp_path / "model.pt2")
    answers = probabilities(packed(source, out, samples, outputs="logits"), values)
    np.testing.assert_allclose(answers, answers_of(network, values), atol=1e-5)


def test_a_null_becomes_the_median_that_the_features_file_gives(
    program: Path, out: Path, samples: Path, values: Any
) -> None:
    description = describe(a=NULLABLE, medians={"a": 1.5})
    model = packed(program, out, samples, description=description)
    null, filled = values.copy(), values.copy()
    null[:, 0], filled[:, 0] = np.nan, 1.5
    expected = answers_of(Residual().eval(), filled)
    np.testing.assert_allclose(probabilities(model, null), expected, atol=1e-5)
    assert model.manifest.preprocessing == ({"step": "impute", "median": {"a": 1.5}},)


def test_a_null_without_a_median_reaches_a_model_that_understands_it(
    tmp_path: Path, out: Path, samples: Path
) -> None:
    class Understanding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = plain()

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.inner(torch.nan_to_num(x, nan=1.5))
            return answer

    source = save_program(Understanding().eval(), tmp_path / "model.pt2")
    text = samples.read_text().splitlines()
    text[3] = "," + text[3].partition(",")[2]
    samples.write_text("\n".join(text))
    model = packed(source, out, samples, description=describe(a=NULLABLE))
    null = np.array([[np.nan, 1, 2, 3]], dtype=np.float32)
    filled = np.array([[1.5, 1, 2, 3]], dtype=np.float32)
    answer = probabilities(model, null)
    np.testing.assert_allclose(answer, answers_of(plain(), filled), atol=1e-5)


def test_a_null_that_a_model_does_not_understand_is_refused_with_what_to_do(
    program: Path, out: Path, samples: Path
) -> None:
    said = refusal(program, out, samples, description=describe(a=NULLABLE))
    assert "no finite answer if 'a' is null. Set its median" in said
    samples.write_text("a,b,c,d\n1,2,3,4\n,2,3,4\n")
    said = refusal(program, out, samples, description=describe(a=NULLABLE))
    assert "the first line 3 of samples.csv (there is a null in it)" in said


@pytest.mark.parametrize("wrong", [np.nan, 1e-3])
def test_a_graph_that_answers_otherwise_than_the_original_is_not_packed(
    program: Path, out: Path, samples: Path, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    run = OnnxRuntime.run

    def off(self: OnnxRuntime, inputs: Tensors) -> Tensors:
        return {name: array + wrong for name, array in run(self, inputs).items()}

    monkeypatch.setattr(OnnxRuntime, "run", off)
    assert "differs from the original for" in refusal(program, out, samples)


# ONNX files that were not written by torch


def graph(
    path: Path,
    *,
    kinds: tuple[int, ...] = (TensorProto.FLOAT,),
    width: Any = 4,
    classes: Any = 3,
    rows: Any = "N",
    opset: int = 18,
    extra_output: bool = False,
) -> Path:
    """A product with a matrix, as logits; with ``extra_output`` the class is an output too."""
    kind = kinds[0]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weight = np.random.default_rng(1).normal(size=(4, 3)).astype(dtype)
    nodes = [helper.make_node("MatMul", ["features", "probabilities"], ["z"])]
    outputs = [helper.make_tensor_value_info("z", kind, [rows, classes])]
    if extra_output:
        nodes.append(helper.make_node("ArgMax", ["z"], ["label"], axis=1, keepdims=0))
        outputs.insert(0, helper.make_tensor_value_info("label", TensorProto.INT64, [rows]))
    inputs = ["features", *(f"x{i}" for i in range(1, len(kinds)))]
    onnx.save(
        helper.make_model(
            helper.make_graph(
                nodes,
                "g",
                [
                    helper.make_tensor_value_info(name, k, [rows, width])
                    for name, k in zip(inputs, kinds, strict=True)
                ],
                outputs,
                # Names that packing would choose itself are taken.
                [numpy_helper.from_array(weight, "probabilities")],
            ),
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=min(9, 3 + opset // 3),
        ),
        path,
    )
    return path


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.DOUBLE])
@pytest.mark.parametrize("opset", [9, 11, 18])
def test_a_graph_made_by_hand_is_served(
    *, tmp_path: Path, out: Path, samples: Path, values: Any, kind: int, opset: int
) -> None:
    source = graph(tmp_path / "m.onnx", kinds=(kind,), opset=opset, extra_output=opset == 18)
    description = describe(a=NULLABLE, medians={"a": 0.0})
    model = packed(source, out, samples, description=description)
    weight = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    expected = torch.softmax(torch.from_numpy(values @ weight), dim=1).numpy()
    np.testing.assert_allclose(probabilities(model, values), expected, atol=1e-5)


FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kinds": (FLOAT, FLOAT)}, "has 2 inputs: features [-1, 4], x1 [-1, 4]"),
        ({"kinds": (INT64,)}, "line 2, column 'a': must be an integer"),
    ],
)
def test_a_graph_of_another_form_is_refused_by_its_form(
    tmp_path: Path, out: Path, samples: Path, options: dict[str, Any], said: str
) -> None:
    source = graph(tmp_path / "model.onnx", **options)
    text = refusal(source, out, samples)
    assert said in text
    assert text.startswith((str(source), str(samples)))


def test_a_graph_for_other_classes_or_features_than_described_is_refused(
    tmp_path: Path, out: Path, samples: Path
) -> None:
    source = graph(tmp_path / "model.onnx")
    two = ModelDescription(describe().features, ("x", "y"))
    assert "'z' has 3 columns, but 2 classes are given" in refusal(
        source, out, samples, description=two
    )
    three = ModelDescription(describe().features[:3], ("x", "y", "z"))
    assert "has 4 columns, but the features file describes 3 features" in refusal(
        source, out, samples, description=three
    )


def test_an_old_graph_that_knows_no_null_gets_no_median(
    tmp_path: Path, out: Path, samples: Path
) -> None:
    source = graph(tmp_path / "model.onnx", opset=8)
    description = describe(a=NULLABLE, medians={"a": 0.0})
    assert "has opset 8, but a median requires 9" in refusal(
        source, out, samples, description=description
    )


def test_weights_in_a_file_beside_a_graph_come_into_the_bundle(
    tmp_path: Path, out: Path, samples: Path, values: Any
) -> None:
    """Which is how torch exports unless it is told otherwise."""
    source = save_onnx(Residual().eval(), tmp_path / "m.onnx", dynamic_shapes=ANY_ROWS)
    model = onnx.load(str(source))
    onnx.save(model, str(source), save_as_external_data=True, location="w", size_threshold=0)
    assert (tmp_path / "w").is_file()
    answers = probabilities(packed(source, out, samples), values)
    np.testing.assert_allclose(answers, answers_of(Residual().eval(), values), atol=1e-5)
    (tmp_path / "w").unlink()
    load_model(ModelSource(out))


def test_weights_outside_the_directory_of_a_graph_are_not_read(
    tmp_path: Path, out: Path, samples: Path
) -> None:
    source = graph(tmp_path / "inner.onnx")
    model = onnx.load(str(source))
    (tmp_path / "secret").write_bytes(b"\0" * 48)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (tmp_path / "inner").mkdir()
    path = tmp_path / "inner" / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert "can't be read as ONNX" in refusal(path, out, samples)
    tensor.external_data[0].value = "gone"
    path.write_bytes(model.SerializeToString())
    assert "can't be read as ONNX" in refusal(path, out, samples)


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x09"])
def test_a_file_that_is_no_graph_is_refused(
    tmp_path: Path, out: Path, samples: Path, content: bytes
) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    assert "can't be read as ONNX" in refusal(tmp_path / "model.onnx", out, samples)


def test_a_type_that_nobody_knows_is_refused(tmp_path: Path, out: Path, samples: Path) -> None:
    model = onnx.load(str(graph(tmp_path / "model.onnx")))
    model.graph.input[0].type.tensor_type.elem_type = 999
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert "can't be loaded by ONNX Runtime" in refusal(tmp_path / "model.onnx", out, samples)


def test_operators_that_onnx_runtime_does_not_know_are_refused(
    tmp_path: Path, out: Path, samples: Path
) -> None:
    model = onnx.load(str(graph(tmp_path / "model.onnx")))
    model.graph.node[0].op_type = "Mystery"
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    said = refusal(tmp_path / "model.onnx", out, samples)
    assert "can't be loaded by ONNX Runtime" in said
    assert "Mystery" in said


# Checkpoints


def test_a_checkpoint_of_our_network_is_packed_for_both_runtimes(
    tmp_path: Path, out: Path, samples: Path, values: Any
) -> None:
    torch.manual_seed(5)
    network = Network(4, 8, 3).eval()
    save_checkpoint(network, "7", tmp_path / "model.pt")
    description = describe(a=NULLABLE)  # which our preprocessing imputes
    pack_file(tmp_path / "model.pt", out, description=description, samples=samples)
    expected = answers_of(network, values)
    for runtime in ("torch", "onnx"):
        model = load_model(ModelSource(out, runtime=runtime))
        answers = probabilities(model, values)
        np.testing.assert_allclose(answers, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "options", "said"),
    [
        (Network(5, 8, 3), {}, "has 5 inputs and 3 outputs, but the features file describes 4"),
        (Network(4, 8, 2), {}, "has 4 inputs and 2 outputs, but the features file describes 4"),
        (Network(4, 8, 3), {"outputs": "probabilities"}, "its network returns logits"),
        (
            Network(4, 8, 3),
            {"description": describe(a=NULLABLE, medians={"a": 1.0})},
            "whose own preprocessing imputes; remove median",
        ),
        (
            Network(4, 8, 3, preprocess=False),
            {"description": describe(a=NULLABLE)},
            "no finite answer if 'a' is null",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    *,
    tmp_path: Path,
    out: Path,
    samples: Path,
    network: Network,
    options: dict[str, Any],
    said: str,
) -> None:
    save_checkpoint(network, "1", tmp_path / "model.pt")
    assert said in refusal(tmp_path / "model.pt", out, samples, **options)


def test_a_checkpoint_that_hides_code_is_refused(tmp_path: Path, out: Path, samples: Path) -> None:
    torch.save(nn.Linear(4, 3), tmp_path / "model.pt")  # a whole module: a pickle of classes
    assert "could run hidden code" in refusal(tmp_path / "model.pt", out, samples)


# Places


def test_the_path_of_the_bundle_gives_its_name_and_version(
    program: Path, tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "churn").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "models" / "churn")
    manifest = pack_file(program, Path("2.1"), samples=samples, **_said({})).manifest
    assert (manifest.name, manifest.version) == ("churn", "2.1")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("models/mine/-1", "a version must be at most 64 letters"),
        ("models/my model/1", "a name must be at most 64 letters"),
        ("models/mine/..", "a version must be"),
    ],
)
def test_a_place_that_is_no_name_and_version_is_refused(
    program: Path, tmp_path: Path, samples: Path, place: str, said: str
) -> None:
    with pytest.raises(BundleError) as error:
        pack_file(program, tmp_path / place, samples=samples, **_said({}))
    assert said in str(error.value)
    assert not (tmp_path / "models").exists()


def test_a_name_that_the_features_file_gives_otherwise_is_refused(
    program: Path, out: Path, samples: Path
) -> None:
    description = ModelDescription(describe().features, ("x", "y", "z"), name="yours")
    said = refusal(program, out, samples, description=description)
    assert "calls the model 'yours'" in said
    assert "calls it 'mine'" in said


def test_a_bundle_is_only_replaced_on_purpose(program: Path, out: Path, samples: Path) -> None:
    pack_file(program, out, samples=samples, **_said({}))
    before = (out / "manifest.json").read_bytes()
    again = ModelDescription(describe().features, ("p", "q", "r"))
    with pytest.raises(BundleError, match="already exists. Pack the model as another version"):
        pack_file(program, out, samples=samples, **_said({"description": again}))
    assert (out / "manifest.json").read_bytes() == before
    pack_file(program, out, samples=samples, replace=True, **_said({"description": again}))
    assert json.loads((out / "manifest.json").read_text())["classes"] == ["p", "q", "r"]
    assert [path.name for path in out.parent.iterdir()] == ["1"]


def test_a_failure_leaves_the_bundle_that_was_there(
    program: Path, out: Path, samples: Path
) -> None:
    pack_file(program, out, samples=samples, **_said({}))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(BundleError):
        said = _said({"description": describe(a=NULLABLE)})
        pack_file(program, out, samples=samples, replace=True, **said)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in out.parent.iterdir()] == ["1"]


def test_a_place_that_can_not_be_written_to_is_named(
    program: Path, tmp_path: Path, samples: Path
) -> None:
    (tmp_path / "models").write_text("a file")
    out = tmp_path / "models" / "mine" / "1"
    with pytest.raises(BundleError, match="can't be written: Not a directory"):
        pack_file(program, out, samples=samples, **_said({}))


def test_a_file_of_another_kind_is_refused_with_those_that_are_taken(
    tmp_path: Path, out: Path, samples: Path
) -> None:
    (tmp_path / "model.pmml").write_bytes(b"a model of some other kind")
    assert "must be a .pt2 (torch.export.save), an .onnx, or" in refusal(
        tmp_path / "model.pmml", out, samples
    )
    assert "does not exist" in refusal(tmp_path / "none.onnx", out, samples)


# From training to serving


class Tumours(nn.Module):
    """A classifier of 30 features as somebody would write it, scaling included."""

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.layers = nn.Sequential(
            *(nn.Linear(30, 32), nn.LayerNorm(32), nn.SiLU(), nn.Dropout(0.1), nn.Linear(32, 2))
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers((x - self.mean) / self.scale)
        return logits


def test_breast_cancer_from_training_to_answers(tmp_path: Path) -> None:
    data = load_breast_cancer()
    torch.manual_seed(0)
    x = torch.tensor(data.data, dtype=torch.float32)
    y = torch.tensor(data.target)
    order = torch.randperm(len(x))
    train, test = order[:400], order[400:]
    network = Tumours(x[train].mean(dim=0), x[train].std(dim=0))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(150):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x[train]), y[train]).backward()
        optimiser.step()
    program = torch.export.export(network.eval(), (x[:2],), dynamic_shapes=ANY_ROWS)
    torch.export.save(program, tmp_path / "model.pt2")

    names = [str(name) for name in data.feature_names]
    lines = [",".join([*names, "diagnosis"])]
    lines += [
        ",".join(map(str, [*row, label])) for row, label in zip(data.data, data.target, strict=True)
    ]
    (tmp_path / "samples.csv").write_text("\n".join(lines))
    tables = "".join(f'\n[[features]]\nname = "{name}"\n' for name in names)
    (tmp_path / "features.toml").write_text(f'classes = ["malignant", "benign"]\n{tables}')

    out = tmp_path / "models" / "tumours" / "1"
    description = read_description(tmp_path / "features.toml")
    samples, said = tmp_path / "samples.csv", Statement(role="logits", truth="diagnosis")
    with pytest.raises(BundleError, match="column 'diagnosis': '0' is not one of the classes"):
        pack_file(
            tmp_path / "model.pt2", out, description=description, statement=said, samples=samples
        )
    said = Statement(role="logits")
    pack_file(tmp_path / "model.pt2", out, description=description, statement=said, samples=samples)
    model = load_model(ModelSource(out.parent))
    batch = model.predict_batch({"x": x[test].numpy()})
    assert (batch.class_indices == y[test].numpy()).mean() > 0.95
    expected = answers_of(network, x[test].numpy())
    np.testing.assert_allclose(batch.answers, expected, atol=1e-5)
    sample = dict(zip(names, data.data[0].tolist(), strict=True))
    assert model.predict(model.encoder.encode(sample)).label == "malignant"
    assert model.encoder.out_of_range({"x": x.numpy()}) == {}  # the ranges are those of the CSV

    served = (
        "import sys; from pathlib import Path;"
        "from app.registry.loading import ModelSource, load_model;"
        f"load_model(ModelSource(Path({str(out)!r})));"
        "print([name for name in ('torch', 'onnx', 'onnxscript') if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", served], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"


def test_samples_that_can_be_read_only_once_are_refused_not_waited_for(
    out: Path, tmp_path: Path
) -> None:
    """A pipe is empty, or has no writer, where the samples are read again."""
    graph, pipe = tmp_path / "any.onnx", tmp_path / "samples.csv"
    graph.touch()
    os.mkfifo(pipe)
    with pytest.raises(BundleError, match="is a pipe or a device, and samples are read more than"):
        pack_file(graph, out, samples=pipe)
