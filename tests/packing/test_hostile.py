"""Files that mean harm: each is refused in a sentence, at a cost in proportion to its size."""

from __future__ import annotations

import io
import math
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from app.model.checkpoint_scan import scan_checkpoint
from app.model.errors import BundleError
from app.model.isolation import ProcessLimits
from app.model.network import build_network, read_checkpoint
from app.model.onnx_runtime import OnnxRuntime
from app.model.signature import FEATURES, classifier_graph
from app.packing.file import pack_file
from app.packing.graphs.external import take_in_external_data
from app.packing.graphs.reading import read_graph
from app.packing.programs.program import open_program
from app.packing.statement import Statement
from app.registry.loading import ModelSource
from app.registry.service import ModelService
from tests.model.test_network import foreign_checkpoint
from tests.packing.conftest import asked, describe, editing, rewrite

WEIGHTS = "data/weights/model_weights_config.json"
REAL = pytest.mark.isolated
LOGITS = Statement(role="logits")
SMALL = ProcessLimits(seconds=60, memory_mb=1024)


def refused(act: Callable[[], object], said: str) -> None:
    with pytest.raises(BundleError) as error:
        act()
    assert said in str(error.value)
    assert len(str(error.value)) < 1_000


# Checkpoints: what their pickle would have torch do


def checkpoint(path: Path, content: bytes, **records: bytes) -> Path:
    """Write an archive as torch.save does, around a pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", content)
        archive.writestr("model/byteorder", b"little")
        for key, record in records.items():
            archive.writestr(f"model/data/{key[1:]}", record)
        archive.writestr("model/version", b"3\n")
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def storage(count: int, kind: str = "Float") -> bytes:
    place = text("storage") + f"ctorch\n{kind}Storage\n".encode() + text("0") + text("cpu")
    return b"(" + place + b"J" + struct.pack("<i", count) + b"tQ"


def tensor(
    *,
    count: int = 1,
    size: bytes = b"K\x01\x85",
    stride: bytes = b"K\x01\x85",
    offset: bytes = b"K\0",
) -> bytes:
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    end = b"\x89ccollections\nOrderedDict\n)RtR"
    return rebuild + b"(" + storage(count) + offset + size + stride + end


def member(value: bytes) -> bytes:
    """A pickle of a dictionary with one value."""
    return b"\x80\x02}" + text("input_dim") + value + b"s."


def long(number: int) -> bytes:
    content = pickle.encode_long(number)
    return b"\x8a" + bytes([len(content)]) + content


NESTED, TUPLES = b"]q\0", b")q\0"
for number in range(60):
    last, this = bytes([number]), bytes([number + 1])
    NESTED = b"](" + NESTED + b"h" + last + b"eq" + this
    TUPLES += b"h" + last + b"\x86q" + this
TERA = long(10**12)

PICKLES: dict[str, tuple[bytes, str]] = {
    "lists in lists": (member(NESTED), "input_dim must be an integer"),
    "tuples in tuples": (member(TUPLES), "input_dim must be an integer"),
    "a key that is tuples in tuples": (b"\x80\x02}" + TUPLES + b"Ns.", "key of type tuple"),
    "keys of a state": (
        b"\x80\x02ccollections\nOrderedDict\n)R}" + TUPLES + b"Nsb.",
        "key of type tuple",
    ),
    "a set": (member(b"c__builtin__\nset\n](" + TUPLES + b"e\x85R"), "has a set"),
    "an integer of two thousand bits": (member(long(1 << 2000)), "not a value of type int"),
    "infinity": (member(b"G" + struct.pack(">d", math.inf)), "not inf"),
    "a flag": (member(b"\x88"), "not True"),
    "a long text": (member(text("x" * 1_000_000)), "must be an integer"),
    "a tensor": (member(tensor()), "not a value of type Tensor"),
    "an expanded tensor": (
        member(tensor(size=TERA + b"\x85", stride=b"K\0\x85")),
        "claims 1000000000000 numbers, but the file has 1",
    ),
    "an expanded matrix": (
        member(
            tensor(
                size=2 * (b"J" + struct.pack("<i", 10**6)) + b"\x86", stride=2 * b"K\0" + b"\x86"
            )
        ),
        "Is it expanded? Save tensor.contiguous() instead",
    ),
    "a tensor beyond its storage": (member(tensor(offset=b"K\x07")), "the file has 1 of them"),
    "strides beyond it": (
        member(tensor(count=2, size=b"K\x02\x85", stride=TERA + b"\x85")),
        "of them",
    ),
    "strides backwards": (member(tensor(stride=long(-1) + b"\x85")), "a tensor of no size"),
    "a size that is a text": (member(tensor(size=text("9") + b"\x85")), "a tensor of no size"),
    "a storage that is not there": (
        member(tensor(count=10**9)),
        "lacks data/0, or a part of it: it was cut short",
    ),
    "memory that is asked for": (
        member(b"c__builtin__\nbytearray\n" + TERA + b"\x85R"),
        "could run hidden code (__builtin__.bytearray)",
    ),
    "a tensor by its class": (
        member(b"ctorch\nFloatTensor\n" + TERA + b"\x85R"),
        "could run hidden code",
    ),
    "an object": (
        member(b"ctorch.nn.modules.linear\nLinear\n)\x81"),
        "torch.nn.modules.linear.Linear",
    ),
    "code": (member(b"cos\nsystem\n" + text("true") + b"\x85R"), "hidden code (os.system)"),
    "an instruction that torch doesn't know": (member(b"Ntq\0\x94"), "is malformed"),
    "a stack that is empty": (b"\x80\x02sss.", "is malformed"),
    "a memory that is empty": (b"\x80\x02h\x09.", "is malformed"),
    "no end": (b"\x80\x02}", "can't be read as a checkpoint"),
    "nothing": (b"", "can't be read as a checkpoint"),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_checkpoint_is_seen_through_before_torch_reads_it(tmp_path: Path, kind: str) -> None:
    content, said = PICKLES[kind]
    numbers = 2 if kind == "strides beyond it" else 1
    path = checkpoint(tmp_path / "model.pt", _with_the_others(content), _0=b"\0" * 4 * numbers)
    refused(lambda: build_network(read_checkpoint(path)), said)


def _with_the_others(content: bytes) -> bytes:
    """Put the keys that a checkpoint needs before the one that is tried."""
    head = b"\x80\x02}"
    if not content.startswith(head + text("input_dim")):
        return content
    others = b"".join(text(key) + b"K\x02s" for key in ("hidden_dim", "output_dim", "version"))
    return head + others + text("model_state_dict") + b"}s" + content[len(head) :]


def test_what_torch_saves_is_taken_whatever_lies_beside_the_weights(tmp_path: Path) -> None:
    content = foreign_checkpoint(
        optimizer=torch.optim.Adam([torch.nn.Parameter(torch.ones(2))]).state_dict(),
        shape=torch.zeros(2, 3).shape,
        kind=torch.bfloat16,
        device=torch.device("cpu"),
        raw=b"bytes",
        nested={"a": [1, (2.5, None, True)], 3: {"b": torch.ones(2, 3).t()}},
        parameter=torch.nn.Parameter(torch.ones(2)),
        half=torch.ones(2, dtype=torch.float16),
    )
    torch.save(content, tmp_path / "model.pt")
    assert read_checkpoint(tmp_path / "model.pt").input_dim == 4


def test_a_thousand_mutants_are_taken_or_refused_and_nothing_else(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(foreign_checkpoint(), buffer)
    with zipfile.ZipFile(buffer) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
        original = archive.read(name)
        records = {
            f"_{n.rpartition('/')[2]}": archive.read(n) for n in archive.namelist() if "/data/" in n
        }
    chance = random.Random(0)
    outcomes = set()
    for _ in range(1000):
        content = bytearray(original)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path = checkpoint(tmp_path / "model.pt", bytes(content), **records)
        try:
            build_network(read_checkpoint(path))
            outcomes.add("taken")
        except BundleError:
            outcomes.add("refused")
    assert outcomes == {"taken", "refused"}


def test_an_old_pickle_with_an_archive_behind_it_is_not_read_by_torch(tmp_path: Path) -> None:
    """A zip archive may begin with anything, but torch then reads what it begins with."""
    torch.save(foreign_checkpoint(), tmp_path / "new.pt")
    path = tmp_path / "model.pt"
    path.write_bytes(b"(lp0\n" + (tmp_path / "new.pt").read_bytes())
    refused(lambda: scan_checkpoint(path), "it doesn't begin as a zip archive")


# Exported programs: tensors that are larger than their file


def test_an_expanded_weight_of_a_program_is_refused(program: Path, tmp_path: Path) -> None:
    def edit(document: Any) -> None:
        meta = document["config"]["into.weight"]["tensor_meta"]
        meta["sizes"] = [{"as_int": 10**6}, {"as_int": 10**6}]
        meta["strides"] = [{"as_int": 0}, {"as_int": 0}]

    path = rewrite(program, tmp_path / "model.pt2", editing(WEIGHTS, edit))
    refused(lambda: open_program(path), "is a tensor of 1000000000000 numbers")


def test_numbers_without_an_end_are_no_json(program: Path, tmp_path: Path) -> None:
    def edit(files: dict[str, bytes]) -> None:
        files["models/model.json"] = b'{"a": ' + b"9" * 1_000_000 + b"}"

    path = rewrite(program, tmp_path / "model.pt2", edit)
    refused(lambda: open_program(path), "an integer of more than 64 bits")


# ONNX: files of others, wherever they are named


def external(
    name: str, place: str, *, kind: int = TensorProto.FLOAT, length: int = 48
) -> TensorProto:
    made = TensorProto(name=name, data_type=kind, data_location=TensorProto.EXTERNAL)
    made.dims.extend([4, 3] if length == 48 else [12])
    for key, value in (("location", place), ("offset", "0"), ("length", str(length))):
        made.external_data.add(key=key, value=value)
    return made


def sparse(place: str, *, of: str) -> onnx.SparseTensorProto:
    made = onnx.SparseTensorProto(dims=[4, 3])
    numbers = {
        "values": numpy_helper.from_array(np.ones(12, np.float32), "w"),
        "indices": numpy_helper.from_array(np.arange(12), "w_places"),
    }
    for part, inner in numbers.items():
        outer = external(inner.name, place, kind=inner.data_type, length=8 * len(inner.dims) * 12)
        getattr(made, part).CopyFrom(outer if part == of else inner)
    return made


def graph(where: str, place: str) -> onnx.ModelProto:
    """A product with a matrix that is in the file ``place``, named ``where`` in the graph."""
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    nodes, parts = [product], {}
    functions: list[onnx.FunctionProto] = []
    if where == "initialiser":
        parts["initializer"] = [external("w", place)]
    elif where.startswith("sparse "):
        parts["sparse_initializer"] = [sparse(place, of=where.split()[1])]
    else:
        constant = helper.make_node("Constant", [], ["w"])
        attribute = constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
        if where == "sparse_value":
            attribute.name, attribute.type = where, onnx.AttributeProto.SPARSE_TENSOR
            attribute.sparse_tensor.CopyFrom(sparse(place, of="values"))
        else:
            attribute.t.CopyFrom(external("w", place))
        nodes = [constant, product]
    if where == "branch":
        branch = helper.make_graph(
            nodes, "b", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])]
        )
        yes = numpy_helper.from_array(np.array(True), "yes")
        nodes = [
            helper.make_node("Constant", [], ["yes"], value=yes),
            helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
        ]
    if where == "function":
        opsets = [helper.make_opsetid("", 18)]
        functions = [helper.make_function("own", "F", ["x"], ["y"], nodes, opsets)]
        nodes = [helper.make_node("F", ["x"], ["y"], domain="own")]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    for name, values in parts.items():
        getattr(made, name).extend(values)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return helper.make_model(made, opset_imports=opsets, functions=functions, ir_version=9)


PLACES = [
    *("initialiser", "constant", "branch", "function"),
    *("sparse values", "sparse indices", "sparse_value"),
]


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the working directory, which is not that of the graph."""
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    (directory / "secret").write_bytes(np.ones(24, np.float32).tobytes())
    monkeypatch.chdir(directory)
    return directory / "secret"


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("place", ["secret", "absolute", "../elsewhere/secret", "link"])
def test_a_graph_reads_no_file_but_those_beside_it(
    tmp_path: Path, secret: Path, where: str, place: str
) -> None:
    path = tmp_path / "given" / "model.onnx"
    path.parent.mkdir()
    if place == "link":
        (path.parent / "link").symlink_to(secret)
    path.write_bytes(
        graph(where, str(secret) if place == "absolute" else place).SerializeToString()
    )
    said = "a sparse tensor whose" if where.startswith("sparse") else "is not in a file beside it"
    refused(lambda: read_graph(path), said)
    with pytest.raises(BundleError):  # and a worker doesn't either, whoever made its bundle
        OnnxRuntime(path, 1, classifier_graph(4, 3))


@pytest.mark.parametrize("where", ["initialiser", "constant", "branch", "function"])
def test_dense_weights_beside_a_graph_are_taken_in_wherever_they_are_named(
    tmp_path: Path, secret: Path, where: str
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(graph(where, "weights").SerializeToString())
    (tmp_path / "weights").write_bytes(np.full(12, 2, np.float32).tobytes())
    source = read_graph(path)
    np.testing.assert_array_equal(asked(source, np.ones((1, 4), np.float32)), [[8, 8, 8]])
    assert b"weights" not in source.graph.SerializeToString()


def test_an_offset_or_length_beyond_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"\0" * 48)
    for key, value in (("offset", "40"), ("length", "10" * 9), ("offset", "-1"), ("length", "x")):
        model = graph("initialiser", "weights")
        for entry in model.graph.initializer[0].external_data:
            entry.value = value if entry.key == key else entry.value
        refused(
            lambda m=model: take_in_external_data(m, tmp_path / "m.onnx"),
            "is not in a file beside it",
        )


def test_a_graph_that_draws_lots_is_refused(tmp_path: Path) -> None:
    model = graph("initialiser", "weights")
    model.graph.node.append(helper.make_node("RandomNormalLike", ["y"], ["z"]))
    (tmp_path / "weights").write_bytes(b"\0" * 48)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    refused(lambda: read_graph(path), "uses RandomNormalLike, which is random")


# With nothing but the child process between a file and the machine


def huge(how: str) -> onnx.ModelProto:
    """A small graph that asks for terabytes, or never ends."""
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 20]), "shape")
    nodes = {
        "constant": [helper.make_node("ConstantOfShape", ["shape"], ["w"])],
        "expand": [
            helper.make_node("Expand", ["one", "shape"], ["w"]),
        ],
        "range": [helper.make_node("Range", ["zero", "many", "step"], ["w"])],
    }[how]
    first = helper.make_node("ReduceMax", ["w"], ["top"], keepdims=0)
    product = helper.make_node("MatMul", ["x", "weight"], ["z"])
    total = helper.make_node("Add", ["z", "top"], ["y"])
    numbers = {
        "one": np.ones((1, 1), np.float32),
        "zero": np.float32(0),
        "many": np.float32(1e15),
        "step": np.float32(1),
        "weight": np.ones((4, 3), np.float32),
    }
    made = helper.make_graph(
        [*nodes, first, product, total],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [shape, *(numpy_helper.from_array(np.array(v), k) for k, v in numbers.items())],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@REAL
@pytest.mark.parametrize("how", ["constant", "expand", "range"])
def test_a_graph_that_asks_for_terabytes_is_refused_in_a_sentence(
    tmp_path: Path, samples: Path, how: str
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(huge(how).SerializeToString())
    out = tmp_path / "models" / "mine" / "1"
    with pytest.raises(BundleError) as error:
        pack_file(
            path, out, description=describe(), statement=LOGITS, samples=samples, limits=SMALL
        )
    assert str(path) in str(error.value)
    assert list(out.parent.iterdir()) == []


@REAL
def test_a_program_is_packed_in_a_process_of_its_own_and_refused_there(
    program: Path, tmp_path: Path, samples: Path
) -> None:
    out = tmp_path / "models" / "mine" / "1"
    manifest = pack_file(
        program, out, description=describe(), statement=LOGITS, samples=samples
    ).manifest
    assert (manifest.name, manifest.version) == ("mine", "1")
    assert sorted(path.name for path in out.iterdir()) == [
        *("golden.npz", "manifest.json", "model.onnx", "reference.json")
    ]
    short = ProcessLimits(seconds=0.01)
    with pytest.raises(BundleError, match="was still running after 0.1 seconds"):
        pack_file(
            program,
            out.with_name("2"),
            description=describe(),
            statement=LOGITS,
            samples=samples,
            limits=short,
        )
    assert [path.name for path in out.parent.iterdir()] == ["1"]


@REAL
def test_a_worker_tries_a_bare_checkpoint_in_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(foreign_checkpoint(), path)
    names = ("a", "b", "c", "d")
    service = ModelService(ModelSource(path, feature_names=names))
    assert service.load(), service.fault
    assert sum(
        service.current().predict({FEATURES: np.ones((1, 4), np.float32)}).values
    ) == pytest.approx(1)
    torch.save(foreign_checkpoint(hidden_dim=[[1]]), path)
    service = ModelService(ModelSource(path, feature_names=names))
    assert not service.load()
    assert "hidden_dim must be an integer" in service.fault
    service = ModelService(
        ModelSource(path, feature_names=names, limits=ProcessLimits(seconds=0.01))
    )
    assert not service.load()
    assert "was still running after 0.01 seconds" in service.fault
