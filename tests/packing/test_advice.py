"""Advice of errors: what it says is done here, and helps. Code in a message is run as it stands."""

from __future__ import annotations

import gzip
import json
import pickle
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static
from torch import Tensor, nn

from app.model.errors import BundleError
from app.model.features import Feature
from app.model.file_kind import PACK
from app.model.network import read_checkpoint
from app.packing.description import ModelDescription
from app.packing.file import pack_file
from app.packing.programs.program import open_program
from app.packing.statement import Statement
from app.registry.loading import ModelSource, load_model
from tests.model.test_bundle import change
from tests.model.test_network import foreign_checkpoint
from tests.packing.conftest import (
    ANY_ROWS,
    Residual,
    describe,
    plain,
    save_onnx,
    save_program,
)

NAMES = ("a", "b", "c", "d")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture
def pack(tmp_path: Path, samples: Path) -> Callable[..., Any]:
    """Pack a file into a bundle of its own."""

    def packed(source: Path, **options: Any) -> Any:
        out = tmp_path / "models" / source.stem / "1"
        shutil.rmtree(out, ignore_errors=True)
        options.setdefault("description", describe())
        options.setdefault("statement", Statement(role=options.pop("outputs", "logits")))
        pack_file(source, out, samples=samples, **options)
        return load_model(ModelSource(out))

    return packed


def answers_rows(model: Any) -> bool:
    """Return True if a model of one matrix answers several rows."""
    (spec,) = model.manifest.inputs
    return len(model.predict_batch({spec.name: np.zeros((5, 4), np.float32)}).answers) == 5


def refusal(act: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(BundleError) as error:
        act(*arguments, **options)
    return str(error.value)


def obey(said: str, directory: Path, monkeypatch: pytest.MonkeyPatch, **names: Any) -> None:
    """Run the code in a message, in ``directory``: it begins with ``torch.`` and is one call."""
    monkeypatch.chdir(directory)
    start = max(
        said.rfind("torch.save("), said.rfind("torch.export.save("), said.rfind("torch.onnx")
    )
    depth, end = 0, said.index("(", start)
    while not end or depth or said[end - 1] != ")":
        depth += {"(": 1, ")": -1}.get(said[end], 0)
        end += 1
    eval(said[start:end], {"torch": torch, **names})


def obey_lines(said: str, directory: Path, monkeypatch: pytest.MonkeyPatch, **names: Any) -> None:
    """Run the lines of Python in a message, as they are printed, in ``directory``."""
    monkeypatch.chdir(directory)
    lines = [line.strip() for line in said.splitlines() if line.startswith("    ")]
    assert lines
    exec("\n".join(lines), {"torch": torch, **names})


EXAMPLE = torch.zeros(2, 4)


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.inner(x))


@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_converted(
    tmp_path: Path, pack: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    torch.jit.save(torch.jit.script(Scripted().eval()), tmp_path / f"model{suffix}")
    said = refusal(pack, tmp_path / f"model{suffix}")
    assert "is TorchScript" in said
    shutil.copy(tmp_path / f"model{suffix}", tmp_path / "model.pt") if suffix == ".pt2" else None
    obey(said, tmp_path, monkeypatch, example=EXAMPLE)
    assert answers_rows(pack(tmp_path / "model.onnx"))


def test_a_state_dictionary_alone_is_put_into_its_network(
    tmp_path: Path, pack: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = Residual().state_dict()
    torch.save(state, tmp_path / "model.pt")
    alone = refusal(pack, tmp_path / "model.pt")
    assert "lacks the key(s)" in alone
    within = {"epoch": 3, "state_dict": state}
    torch.save(within, tmp_path / "model.pt")
    nested = refusal(pack, tmp_path / "model.pt")
    assert "['state_dict']" in nested
    ours = foreign_checkpoint(model_state_dict=state)
    torch.save(ours, tmp_path / "model.pt")
    wrapped = refusal(pack, tmp_path / "model.pt", description=describe_two())
    saved = {alone: state, nested: within, wrapped: ours}
    for said in (alone, wrapped, nested):
        torch.save(saved[said], tmp_path / "model.pt")
        (tmp_path / "model.pt2").unlink(missing_ok=True)
        obey_lines(said, tmp_path, monkeypatch, Net=Residual, example=EXAMPLE)
        assert answers_rows(pack(tmp_path / "model.pt2"))


def describe_two() -> Any:
    return ModelDescription(describe().features, ("x", "y"))


def test_weights_in_safetensors_are_put_into_their_network(
    tmp_path: Path, pack: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("safetensors")
    import safetensors.torch  # type: ignore[import-not-found, unused-ignore]

    safetensors.torch.save_file(Residual().state_dict(), tmp_path / "model.safetensors")
    said = refusal(pack, tmp_path / "model.safetensors")
    names = {"Net": Residual, "safetensors": safetensors, "example": EXAMPLE}
    obey_lines(said, tmp_path, monkeypatch, **names)
    assert answers_rows(pack(tmp_path / "model.pt2"))


def test_a_pickled_module_is_exported(
    tmp_path: Path, pack: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(Residual(), tmp_path / "model.pt")
    said = refusal(pack, tmp_path / "model.pt")
    assert "hidden code (tests.packing.conftest.Residual)" in said
    obey_lines(said, tmp_path, monkeypatch, example=EXAMPLE)
    assert answers_rows(pack(tmp_path / "model.pt2"))


@pytest.mark.parametrize("name", ["model.pt", "model.pkl"])
def test_a_model_that_was_pickled_by_itself_is_exported(
    tmp_path: Path, pack: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with (tmp_path / name).open("wb") as file:
        pickle.dump(Residual(), file)
    said = refusal(pack, tmp_path / name)
    assert "is a pickle, and is refused" in said
    assert "weights_only" not in said
    obey(said, tmp_path, monkeypatch, model=Residual(), example=EXAMPLE)
    assert answers_rows(pack(tmp_path / "model.pt2"))


def test_a_whole_model_in_the_old_format_is_told_how_to_be_exported(tmp_path: Path) -> None:
    torch.save(Residual(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    said = refusal(read_checkpoint, tmp_path / "old.pt")
    assert "If it is a whole model of your own that you trust, load it where its code is" in said


def test_a_graph_that_is_served_unpacked_is_packed(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08")
    said = refusal(read_checkpoint, tmp_path / "model.onnx")
    assert (
        f"is an ONNX graph by its name, and must be packed into a bundle to be served: {PACK}"
        in said
    )


def old_tar(path: Path) -> None:
    """Write what torch.save wrote before 0.1.10, as far as a reader looks at it."""
    (path.parent / "sys_info").write_bytes(b"")
    with tarfile.open(path, "w") as archive:
        archive.add(path.parent / "sys_info", "sys_info")


def test_an_old_pickle_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = foreign_checkpoint()
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    said = refusal(read_checkpoint, tmp_path / "old.pt")
    obey(said, tmp_path, monkeypatch)
    assert read_checkpoint(tmp_path / "new.pt").input_dim == 4
    old_tar(tmp_path / "older.pt")
    said = refusal(read_checkpoint, tmp_path / "older.pt")
    assert "is a tar archive" in said


@pytest.mark.parametrize("value", [np.float64(0.93), np.int64(4), np.ones(3)])
def test_a_number_of_numpy_is_named_and_converted(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "model.pt"
    torch.save(foreign_checkpoint(score=value), path)
    said = refusal(read_checkpoint, path)
    assert "has a number or an array of NumPy" in said
    assert "code" not in said
    call = {"float64": "float(", "int64": "int(", "ndarray": "torch.from_numpy("}
    assert call[type(value).__name__] in said
    converted = eval(f"{call[type(value).__name__]}value)", {"torch": torch, "value": value})
    torch.save(foreign_checkpoint(score=converted), path)
    assert read_checkpoint(path).input_dim == 4


def test_a_set_and_an_expanded_tensor_are_converted(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    wide = torch.ones(1).expand(3)
    torch.save(foreign_checkpoint(names={"b", "a"}), path)
    assert "save it as a list: sorted(values)" in refusal(read_checkpoint, path)
    torch.save(foreign_checkpoint(wide=wide), path)
    assert "Save tensor.contiguous() instead" in refusal(read_checkpoint, path)
    torch.save(foreign_checkpoint(names=sorted({"b", "a"}), wide=wide.contiguous()), path)
    assert read_checkpoint(path).input_dim == 4


def web_page(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><body>Sign in</body></html>")


@pytest.mark.parametrize("name", ["model.pt", "model.pt2", "model.onnx"])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(POINTER), "git lfs pull"),
        (web_page, "is a web page, not a model"),
        (lambda path: path.write_bytes(b""), "is empty: it was cut short; copy it again"),
        (lambda path: path.write_bytes(gzip.compress(path.read_bytes())), "gunzip"),
    ],
)
def test_what_lies_in_place_of_a_file_is_told_and_not_taken_for_code(
    *,
    tmp_path: Path,
    samples: Path,
    name: str,
    spoil: Callable[[Path], object],
    said: str,
) -> None:
    (tmp_path / name).write_bytes(b"the model")
    spoil(tmp_path / name)
    out = tmp_path / "models" / "mine" / "1"
    text = refusal(pack_file, tmp_path / name, out, description=describe(), samples=samples)
    assert text.startswith(str(tmp_path / name))
    assert said in text
    assert "code" not in text


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "model.pt", "README.md"])
def test_a_pointer_of_git_lfs_in_a_bundle_is_fetched(bundle: Path, name: str) -> None:
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(POINTER)
    said = refusal(load_model, ModelSource(bundle))
    assert name in said
    assert "git lfs pull" in said
    (bundle / name).write_bytes(content)  # as git lfs pull does
    load_model(ModelSource(bundle))


def test_a_file_that_is_compressed_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(foreign_checkpoint(), path)
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert "unpack it first: gunzip FILE.gz" in refusal(read_checkpoint, path)
    path.rename(tmp_path / "model.pt.gz")
    subprocess.run(["gunzip", str(tmp_path / "model.pt.gz")], check=True)
    assert read_checkpoint(path).input_dim == 4


def test_a_file_by_the_wrong_name_is_renamed(tmp_path: Path, pack: Callable[..., Any]) -> None:
    save_program(plain(), tmp_path / "model.pt")
    said = refusal(pack, tmp_path / "model.pt")
    assert "give it a name that ends in .pt2, and pack it: python -m app" in said
    (tmp_path / "model.pt").rename(tmp_path / "model.pt2")
    pack(tmp_path / "model.pt2")
    torch.save(foreign_checkpoint(), tmp_path / "model.pt2")
    said = refusal(pack, tmp_path / "model.pt2")
    assert "A checkpoint of Lantern's own network is packed as a .pt" in said
    (tmp_path / "model.pt2").rename(tmp_path / "model.pt")
    pack(tmp_path / "model.pt", description=describe_two())


def test_an_archive_of_torchserve_is_packed_by_its_name(
    tmp_path: Path, pack: Callable[..., Any]
) -> None:
    manifest = {"model": {"modelName": "m", "handler": "handler.py"}}
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("handler.py", "def handle(data, context): return data and ['x']")
    said = refusal(pack, tmp_path / "model.pt")
    assert "is a TorchServe archive: give it a name that ends in .mar" in said
    (tmp_path / "model.pt").rename(tmp_path / "model.mar")
    (tmp_path / "sample").write_bytes(b"x")
    options: dict[str, Any] = {"samples": tmp_path / "sample"}
    out = tmp_path / "models" / "served" / "1"
    said = refusal(pack_file, tmp_path / "model.mar", out, **options)
    assert "let it run with --allow-code" in said
    pack_file(tmp_path / "model.mar", out, statement=Statement(allow_code=True), **options)
    load_model(ModelSource(out, allow_code=True))


def test_a_bundle_without_a_checkpoint_is_served_on_the_cpu(bundle: Path) -> None:
    change(bundle, lambda m: m["files"].pop("model.pt"))
    said = refusal(load_model, ModelSource(bundle, device="cuda"))
    assert "set model.device to 'cpu'" in said
    assert "pack it with one" not in said
    load_model(ModelSource(bundle, device="cpu"))


class Rows(CalibrationDataReader):
    def __init__(self, rows: Any) -> None:
        self.rows = iter(rows)

    def get_next(self) -> Any:
        row = next(self.rows, None)
        return None if row is None else {"x": row[np.newaxis]}


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_is_quantised_dynamically_is_quantised_statically(
    tmp_path: Path,
    pack: Callable[..., Any],
    values: Any,
) -> None:
    options = {"input_names": ["x"], "dynamic_shapes": ANY_ROWS}
    whole = save_onnx(plain(), tmp_path / "whole.onnx", **options)
    model = onnx.load(str(whole))
    del model.graph.value_info[:]
    onnx.save(model, str(whole))
    quantize_dynamic(whole, tmp_path / "model.onnx")
    said = refusal(pack, tmp_path / "model.onnx")
    assert "It is quantised dynamically" in said
    assert "model.eval()" not in said
    quantize_static(whole, tmp_path / "model.onnx", Rows(values))
    pack(tmp_path / "model.onnx")
    pack(whole)


# Models that are written in another way, as the error says


class Doing(nn.Module):
    def __init__(self, act: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.act = plain(), act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.inner, x)


def write_into_view(inner: nn.Module, x: Tensor) -> Tensor:
    seen = x * 1
    torch.einsum("ij->ji", seen).mul_(2)
    answer: Tensor = inner(seen)
    return answer


def copy_into_part(inner: nn.Module, x: Tensor) -> Tensor:
    answer = inner(x).clone()
    answer[:, 1:] = answer[:, :-1]
    return answer


MENDED: dict[str, tuple[Any, Any]] = {
    "let it work on a copy (x = x.clone())": (
        lambda inner, x: inner(x.add_(1)),
        lambda inner, x: inner(x.clone().add_(1)),
    ),
    "x = x + 1 for x += 1": (
        write_into_view,
        lambda inner, x: inner(torch.einsum("ij->ji", torch.einsum("ij->ji", x) * 2)),
    ),
    "without random numbers": (
        lambda inner, x: inner(x + torch.rand_like(x)),
        lambda inner, x: inner(x + 0.5),
    ),
    "call model.eval() before exporting": (
        lambda inner, x: nn.functional.dropout(inner(x), 0.5, True),
        lambda inner, x: nn.functional.dropout(inner(x), 0.5, False),
    ),
    "If you can export the model to ONNX yourself, pack that file": (copy_into_part, None),
}


@pytest.mark.parametrize("advice", MENDED)
def test_a_model_is_written_as_the_error_says(
    tmp_path: Path, pack: Callable[..., Any], advice: str
) -> None:
    wrong, right = MENDED[advice]
    path = save_program(Doing(wrong).eval(), tmp_path / "model.pt2")
    assert advice in refusal(open_program, path)
    if right is None:
        save_onnx(Doing(wrong).eval(), tmp_path / "model.onnx", dynamic_shapes=ANY_ROWS)
        pack(tmp_path / "model.onnx")
    else:
        open_program(save_program(Doing(right).eval(), path))


def test_one_probability_is_served_of_two_classes(tmp_path: Path, pack: Callable[..., Any]) -> None:
    two = ModelDescription(describe().features, ("x", "y"))
    score: Any = lambda inner, x: torch.sigmoid(inner(x)[:, :1])  # noqa: E731
    path = save_program(Doing(score).eval(), tmp_path / "model.pt2")
    said = refusal(pack, path, description=two, outputs=None)
    advised = re.search(r"--outputs (probabilities)", said)
    assert advised
    model = pack(path, description=two, outputs=advised[1])
    assert model.manifest.classes == ("x", "y")
    assert answers_rows(model)


def test_a_null_gets_the_median_that_the_error_asks_for(
    tmp_path: Path, pack: Callable[..., Any]
) -> None:
    path = save_program(plain(), tmp_path / "model.pt2")
    null = Feature("a", nullable=True)
    assert "Set its median" in refusal(pack, path, description=describe(a=null))
    pack(path, description=describe(a=null, medians={"a": 1.0}))
