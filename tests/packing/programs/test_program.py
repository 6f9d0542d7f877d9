"""Exported programs: what is read, and what is refused before torch sees it."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.model.errors import BundleError
from app.packing.file import pack_file
from app.packing.programs.program import open_program
from app.packing.statement import Statement
from tests.packing.conftest import Residual, asked, editing, plain, rewrite, save_program

PROGRAM = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as error:
        open_program(path)
    assert str(error.value).startswith(str(path))
    return str(error.value)


class Marking:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def hidden_code(mark: Path) -> dict[str, Callable[[dict[str, bytes]], None]]:
    """Ways to hide code that makes a directory ``mark`` in an exported program."""
    buffer = io.BytesIO()
    torch.save(Marking(mark), buffer)
    python = f"__import__('os').mkdir({str(mark)!r})"

    def weight(files: dict[str, bytes]) -> None:
        edit = editing(WEIGHTS, lambda d: d["config"]["into.weight"].update(use_pickle=True))
        edit(files)
        files["data/weights/weight_0"] = buffer.getvalue()

    def constant(files: dict[str, bytes]) -> None:
        entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}
        editing(CONSTANTS, lambda d: d["config"].update(c=entry | {"tensor_meta": None}))(files)
        files["data/constants/opaque_obj_0"] = pickle.dumps(Marking(mark))

    def size(document: Any) -> None:
        sizes = document["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = python

    def operator(document: Any) -> None:
        node = document["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.os.mkdir"
        node["inputs"] = [{"name": "", "arg": {"as_string": str(mark)}, "kind": 1}]

    def name(document: Any) -> None:
        call = document["graph_module"]["module_call_graph"][0]
        call["signature"]["forward_arg_names"] = [f"x={python}"]

    def node_name(document: Any) -> None:
        text = json.dumps(document["graph_module"]).replace('"gelu"', json.dumps(f"g={python};g"))
        document["graph_module"] = json.loads(text)

    return {
        "examples": lambda files: files.update({"data/sample_inputs/model.pt": buffer.getvalue()}),
        "old weights": lambda files: files.update({"data/weights/model.pt": buffer.getvalue()}),
        "old constants": lambda files: files.update({"data/constants/model.pt": buffer.getvalue()}),
        "guards": editing(PROGRAM, lambda d: d.update(guards_code=[f"{python} or True"])),
        "a weight": weight,
        "a constant": constant,
        "a size": editing(PROGRAM, size),
        "an operator": editing(PROGRAM, operator),
        "an argument's name": editing(PROGRAM, name),
        "a node's name": editing(PROGRAM, node_name),
        "a library": lambda files: files.update({"data/aotinductor/model/a.so": b"\x7fELF"}),
    }


LEFT_OUT = (
    *("examples", "old weights", "old constants", "guards", "a library"),
    "an argument's name",
)
"""Where code can hide in what is not needed: the program is read, and the code is not."""


@pytest.mark.parametrize("where", hidden_code(Path("mark")))
def test_code_that_a_program_hides_never_runs(program: Path, tmp_path: Path, where: str) -> None:
    mark = tmp_path / "mark"
    path = rewrite(program, tmp_path / "model.pt2", hidden_code(mark)[where])
    if where in LEFT_OUT:
        source = open_program(path)
        row = np.ones((1, 4), dtype=np.float32)
        np.testing.assert_array_equal(asked(source, row), asked(open_program(program), row))
    else:
        assert any(word in refusal(path) for word in ("is refused", "is not an operator"))
    assert not mark.exists()


@pytest.mark.parametrize("where", ["examples", "a weight", "a constant", "a size", "guards"])
def test_the_same_code_runs_in_the_loader_of_torch(
    program: Path, tmp_path: Path, where: str
) -> None:
    """Why programs are taken apart first. When this fails, torch has become safer."""
    mark = tmp_path / "mark"
    path = rewrite(program, tmp_path / "model.pt2", hidden_code(mark)[where])
    with suppress(Exception):  # it runs before torch finds that something is wrong
        torch.export.load(path).module()(torch.zeros(2, 4))
    assert mark.exists()


def test_what_torch_wrote_answers_as_the_model_does(program: Path, values: Any) -> None:
    source = open_program(program)
    with torch.inference_mode():
        expected = Residual().eval()(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(asked(source, values), expected, atol=1e-6)
    assert asked(source, values[:1]).shape == (1, 3)
    assert source.inputs[0].shape == (-1, 4)


class Sizes(nn.Module):
    """Computes with the number of rows, so that sizes are expressions."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = plain()

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape
        halves = x.reshape(rows * 2, columns // 2)
        answer: Tensor = self.inner(halves.reshape(rows, -1))
        return answer


@pytest.mark.parametrize(
    "rows",
    [torch.export.Dim("n"), torch.export.Dim("n", max=64), torch.export.Dim.AUTO],
    ids=["any", "at most", "auto"],
)
def test_however_the_rows_were_declared_any_number_is_answered(
    tmp_path: Path, values: Any, rows: Any
) -> None:
    path = save_program(Sizes().eval(), tmp_path / "m.pt2", dynamic_shapes=({0: rows},), rows=6)
    with torch.inference_mode():
        expected = plain()(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(asked(open_program(path), values), expected, atol=1e-6)


class Wrapped(nn.Module):
    """Forwards to a network in one of the ways that are not served."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.inner, self.way = Residual(), way

    def forward(self, x: Tensor) -> Any:
        if self.way == "tuple":
            return (self.inner(x),)
        with torch.no_grad():
            return self.inner(x)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Residual(), "was exported while training; call model.eval() before exporting"),
        (Wrapped("no_grad").eval(), "wrap_with_set_grad_enabled', which is not an operator"),
    ],
)
def test_a_program_of_another_form_is_refused_by_its_form(
    tmp_path: Path, model: nn.Module, said: str
) -> None:
    assert said in refusal(save_program(model, tmp_path / "model.pt2"))


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


def test_a_datatype_that_numpy_lacks_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = save_program(Doubling(), tmp_path / "model.pt2", dtype=torch.complex64)
    said = refusal(path)
    assert "takes 'x' as torch.complex64" in said
    assert "model.float() converts a model" in said


class Widening(nn.Module):
    """Has its weights in bfloat16, and computes in float32."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.inner = nn.Linear(4, 3).bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.inner.weight.float(), self.inner.bias.float()
        return nn.functional.linear(x.float(), weight, bias).bfloat16()


def test_bfloat16_is_taken_where_it_is_not_computed_in(tmp_path: Path, values: Any) -> None:
    path = save_program(Widening(), tmp_path / "model.pt2", dtype=torch.bfloat16)
    source = open_program(path)
    specs = (*source.inputs, *(output.spec for output in source.outputs))
    assert [spec.datatype for spec in specs] == ["BF16", "BF16"]
    with torch.inference_mode():
        expected = Widening()(torch.from_numpy(values).bfloat16()).float().numpy()
    np.testing.assert_array_equal(asked(source, values), expected)
    made = pack_file(path, tmp_path / "models" / "m" / "1", statement=Statement(task="tensors"))
    assert "The original and what is served: the same within 0." in made.notes


def test_what_computes_in_bfloat16_is_packed_once_it_is_converted(tmp_path: Path) -> None:
    model, out = plain().bfloat16(), tmp_path / "models" / "m" / "1"
    path = save_program(model, tmp_path / "model.pt2", dtype=torch.bfloat16)
    with pytest.raises(BundleError, match=r"computes in bfloat16.*export: model\.float\(\)\."):
        pack_file(path, out, statement=Statement(task="tensors"))
    path = save_program(model.float(), tmp_path / "model.pt2")
    pack_file(path, out, statement=Statement(task="tensors"))


def test_half_precision_is_taken_as_it_is(tmp_path: Path, values: Any) -> None:
    path = save_program(plain().half(), tmp_path / "model.pt2", dtype=torch.float16)
    source = open_program(path)
    assert [spec.datatype for spec in source.inputs] == ["FP16"]
    with torch.inference_mode():
        expected = plain().half()(torch.from_numpy(values).half()).numpy()
    np.testing.assert_allclose(asked(source, values), expected, atol=1e-2)


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/models/model.json", b" " * 50_000_000)


def overlapping(path: Path) -> None:
    """A zip whose directory lists one file a thousand times: small, and large when it is read."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/x", b" " * 10_000)
        entry = archive.infolist()[0]
        archive.filelist.extend([entry] * 1000)


def torchscript(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/constants.pkl", b"")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: path.write_bytes(b""), "is not an archive that torch.export.save writes"),
        (lambda path: path.write_bytes(b"PK\x03\x04 cut"), "is not an archive that torch.export"),
        (lambda path: None, "does not exist"),
        (os.mkfifo, "is not a regular file"),
        (bomb, "is a compressed zip"),
        (overlapping, "is a compressed zip"),
        (lambda path: torch.save({"a": 1}, path), "was written by torch.save; export the model"),
        (torchscript, "is TorchScript (torch.jit.save), whose own program runs"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "holds 0 programs"),
    ],
)
def test_a_file_that_is_no_program_is_refused(
    tmp_path: Path, write: Callable[[Path], object], said: str
) -> None:
    write(tmp_path / "model.pt2")
    assert said in refusal(tmp_path / "model.pt2")


def remove(name: str) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.pop(name) and None


def put(name: str, content: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.update({name: content})


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (remove("data/weights/weight_0"), "lacks data/weights/weight_0: it was cut short"),
        (remove(WEIGHTS), "written by another version of torch than"),
        (put("models/second.json", b"{}"), "holds 2 programs, but exactly one"),
        (put(PROGRAM, b"{"), "that is not JSON"),
        (put(PROGRAM, b"[" * 100_000), "that is not JSON"),
        (put(PROGRAM, b"[]"), "that is not a JSON object"),
        (put(PROGRAM, b"{}"), "is malformed: KeyError at 'graph_module'"),
        (
            put("data/weights/weight_0", b"abc"),
            "the file has only 3 bytes for it. The file was cut short",
        ),
        (put("archive_version", b"99"), "can't be loaded by torch"),
        (
            editing(PROGRAM, lambda d: d["schema_version"].update(major=99)),
            "was written by torch 2",
        ),
    ],
)
def test_a_damaged_program_is_refused(
    program: Path, tmp_path: Path, edit: Callable[[dict[str, bytes]], None], said: str
) -> None:
    assert said in refusal(rewrite(program, tmp_path / "model.pt2", edit))


@pytest.mark.parametrize(
    "target",
    [
        *("torch.ops.aten.from_file.default", "torch.ops.aten.save.default", "torch.hub.load"),
        *("_operator.methodcaller", "math.floor", "torch.ops.aten.__class__.mro", "#evil:x", ""),
        *("torch.ops.prim.device.default", "torch.ops.aten.add", "torch.ops.aten.nothing.default"),
    ],
)
def test_only_operators_on_tensors_are_taken(program: Path, tmp_path: Path, target: str) -> None:
    def edit(document: Any) -> None:
        document["graph_module"]["graph"]["nodes"][0]["target"] = target

    path = rewrite(program, tmp_path / "model.pt2", editing(PROGRAM, edit))
    assert "which is not an operator on tensors that can be served" in refusal(path)


def test_a_program_for_another_device_is_refused_with_what_to_do(
    program: Path, tmp_path: Path
) -> None:
    def edit(document: Any) -> None:
        values = document["graph_module"]["graph"]["tensor_values"]
        values["x"]["device"] = {"type": "cuda", "index": 0}

    path = rewrite(program, tmp_path / "model.pt2", editing(PROGRAM, edit))
    assert "was exported on 'cuda'; export it on the CPU: model.cpu()" in refusal(path)
