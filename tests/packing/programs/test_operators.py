"""Operators of exported programs: which are taken, and what writes in place answers as it did."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from app.model.errors import BundleError
from app.packing.network import quiet_exporter
from app.packing.programs import operators
from app.packing.programs.archive import safe_archive
from app.packing.programs.arguments import check_arguments
from app.packing.programs.expressions import check_expression
from app.packing.programs.functional import functional
from app.packing.programs.program import open_program
from tests.packing.conftest import ANY_ROWS, asked, editing, rewrite, save_program

PROGRAM = "models/model.json"
aten = torch.ops.aten
F = nn.functional


class Doing(nn.Module):
    """Does something to its matrix (rows, 4)."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)


def save(act: Callable[[Tensor], Tensor], path: Path, **options: Any) -> Path:
    return save_program(Doing(act).eval(), path / "model.pt2", rows=4, **options)


def made_functional(path: Path) -> torch.export.ExportedProgram:
    archive = safe_archive(path).content
    with quiet_exporter():
        return functional(torch.export.load(archive), path)


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as error:
        open_program(path)
    assert str(error.value).startswith(str(path))
    return str(error.value)


def overload(name: str) -> Any:
    _, operator, variant = name.split(".")
    return getattr(getattr(aten, operator), variant)


# The lists


@pytest.mark.parametrize("name", sorted(operators.TENSOR | operators.VIEW | operators.CHECK))
def test_what_computes_is_there_and_writes_into_nothing(name: str) -> None:
    schema = overload(name)._schema
    assert not schema.is_mutable
    if name in operators.TENSOR:
        assert not any(returned.alias_info for returned in schema.returns)


@pytest.mark.parametrize("name", sorted(operators.IN_PLACE))
def test_what_writes_in_place_writes_into_its_first_argument_alone(name: str) -> None:
    schema = overload(name)._schema
    written = [a.name for a in schema.arguments if a.alias_info and a.alias_info.is_write]
    assert written == [schema.arguments[0].name] == ["self"]


def test_nothing_is_listed_that_takes_memory_as_it_is() -> None:
    listed = operators.TENSOR | operators.VIEW | operators.CHECK | operators.IN_PLACE
    strange = ("as_strided", "set_", "resize", "_reshape_alias", "unsafe", "empty", "copy_")
    storage = ("from_file", "storage", "foreach", "random", "bernoulli", "rand", "data_ptr")
    for name in listed:
        operator = name.split(".")[1]
        assert not name.endswith((".out", "_out")), name
        assert not [s for s in strange if operator.startswith(s)], name
        assert not [s for s in storage if s in operator], name


# What is refused


REFUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "as_strided": lambda x: torch.as_strided(x, (2, 4), (4, 1)),
    "_reshape_alias": lambda x: aten._reshape_alias(x.clone(), [4, 4], [4, 1]),
    "set_": lambda x: x.clone().set_(x),
    "resize_": lambda x: x.clone().resize_(2, 4),
    "_unsafe_view": lambda x: aten._unsafe_view(x, [-1, 4]),
    "_unsafe_index": lambda x: aten._unsafe_index(x, [torch.zeros(4, dtype=torch.int64)]),
    "copy_": lambda x: x.clone()[:, :2].copy_(x[:, 2:]),
    "empty": lambda x: torch.empty(4, 4) + x,
    "new_empty": lambda x: x.new_empty(4, 4) + x,
    "transpose_": lambda x: x.clone().transpose_(0, 1),
    "unsqueeze_": lambda x: x.clone().unsqueeze_(0)[0],
    "view": lambda x: x.clone().view(torch.int32).to(torch.float32),
    "_foreach_add": lambda x: torch._foreach_add([x], 1.0)[0],
    "_pin_memory": aten._pin_memory,
}


@pytest.mark.parametrize("name", [name for name in REFUSED if name != "view"])
def test_an_operator_that_is_not_listed_is_refused_by_name(tmp_path: Path, name: str) -> None:
    def act(x: Tensor) -> Tensor:
        return x + 1

    said = refusal(renamed(save(act, tmp_path), tmp_path, f"torch.ops.aten.{name}.default"))
    assert f"uses 'torch.ops.aten.{name}.default', which is not an operator on tensors" in said
    assert "pack that file" in said


@pytest.mark.parametrize("name", ["as_strided", "_reshape_alias", "copy_", "new_empty", "view"])
def test_one_that_a_real_program_uses_is_refused_too(tmp_path: Path, name: str) -> None:
    path = save(REFUSED[name], tmp_path, dynamic_shapes=None)
    assert f"uses 'torch.ops.aten.{name}." in refusal(path)


@pytest.mark.parametrize(
    "target",
    [
        *("torch.ops.aten.add.out", "torch.ops.aten.add.Tensor_out", "torch.ops.aten.add"),
        *("torch.ops.evil.add.Tensor", "torch.ops.higher_order.cond", "torch.add"),
        *(
            "torch.ops.aten.add.Tensor ",
            "torch.ops.aten.add.Tensor\n",
            " torch.ops.aten.add.Tensor",
        ),
        *("torch.ops.aten.relu.Tensor", "torch.ops.prims.as_strided.default", "_operator.pow"),
        *("torch.ops.inductor.resize_storage_bytes_.default", "builtins.eval", "x" * 100_000),
    ],
)
def test_names_are_taken_exactly(tmp_path: Path, target: str) -> None:
    path = renamed(save(lambda x: x + 1, tmp_path), tmp_path, target)
    said = refusal(path)
    assert "which is not an operator on tensors that can be served" in said
    assert len(said) < 500


def renamed(source: Path, directory: Path, target: str) -> Path:
    def edit(document: Any) -> None:
        document["graph_module"]["graph"]["nodes"][0]["target"] = target

    return rewrite(source, directory / "renamed.pt2", editing(PROGRAM, edit))


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda x: x + torch.rand_like(x), "rand_like.default', which is random"),
        (lambda x: torch.bernoulli(x.sigmoid()), "bernoulli.default', which is random"),
        (lambda x: torch.normal(x, 1.0), "which is random"),
        (lambda x: F.dropout(x, 0.5, True), "call model.eval() before exporting"),
        (
            lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None], dropout_p=0.5)[0],
            "pass dropout_p=0.0",
        ),
    ],
)
def test_what_answers_by_chance_is_refused(
    tmp_path: Path, act: Callable[[Tensor], Tensor], said: str
) -> None:
    assert said in refusal(save(act, tmp_path))


def test_a_dropout_by_another_name_of_its_argument_does_not_run(tmp_path: Path) -> None:
    def edit(document: Any) -> None:
        inputs = document["graph_module"]["graph"]["nodes"][0]["inputs"]
        assert inputs[2]["name"] == "train"
        inputs[2]["name"] = "p2"

    source = save(lambda x: F.dropout(x, 0.5, True), tmp_path)
    path = rewrite(source, tmp_path / "m.pt2", editing(PROGRAM, edit))
    assert "can't be loaded" in refusal(path)


# Bounds that torch checks


@pytest.mark.parametrize(
    "act",
    [
        lambda x: x.index_select(0, torch.full((4,), 10**6)),
        lambda x: torch.gather(x, 0, torch.full((4, 4), 10**6)),
        lambda x: x[torch.full((4,), 10**6)],
        lambda x: x.take(torch.full((4, 4), 10**9)),
        lambda x: F.embedding(torch.full((4,), 10**6), x),
        lambda x: F.embedding((x * 0 + 1e9).long()[:, 0], torch.ones(3, 4)),
        lambda x: torch.scatter(x, 0, torch.full((4, 4), 10**6), 1.0),
        lambda x: x.index_put((torch.full((4,), 10**6),), torch.tensor(1.0)),
        lambda x: x.clone().index_put_((torch.full((4,), -(10**6)),), torch.tensor(1.0)),
        lambda x: x.index_add(0, torch.full((4,), 10**6), x),
        lambda x: x.index_copy(0, torch.full((4,), 10**6), x),
        lambda x: x.clone().index_fill_(0, torch.full((4,), 10**6), 1.0),
    ],
)
def test_an_index_out_of_bounds_is_an_error_and_no_memory_of_ours(
    tmp_path: Path, act: Callable[[Tensor], Tensor]
) -> None:
    program = made_functional(save(act, tmp_path, dynamic_shapes=None)).module()
    with pytest.raises((IndexError, RuntimeError), match="out of (range|bounds)"):
        program(torch.ones(4, 4))


# In place, and what is written through which view


def written(see: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Write into a part of a tensor, and answer with the whole."""

    def act(x: Tensor) -> Tensor:
        whole = x + 1
        see(whole).mul_(3)
        return whole * 1

    return act


def mask(x: Tensor) -> Tensor:
    y = x.clone()
    y.masked_fill_(x > 0, -1.0)
    y[y < -0.5] += 2
    return y


def before_and_after(x: Tensor) -> Tensor:
    whole = x.clone()
    part = whole.view(-1)
    early = part * 1
    whole.add_(1)
    part.mul_(2)
    whole.t().sub_(early.view(4, 4))
    return torch.stack([whole, part.view(4, 4), early.view(4, 4)]).sum(0)


def through_dropout(x: Tensor) -> Tensor:
    whole = x + 1
    F.dropout(whole, 0.5, False).mul_(3)
    F.relu(F.dropout(whole, 0.1, False), inplace=True)
    return F.dropout(whole, 0.5, False)


WRITTEN: dict[str, Callable[[Tensor], Tensor]] = {
    "itself": written(lambda x: x),
    "view": written(lambda x: x.view(-1)),
    "reshape": written(lambda x: x.reshape(2, -1)),
    "reshape that copies": written(lambda x: x.t().reshape(-1)),
    "slice of a transpose": written(lambda x: x.t()[1:3, ::2]),
    "select": written(lambda x: x[1]),
    "diagonal": written(lambda x: x.diagonal()),
    "unfold": written(lambda x: x.unfold(1, 2, 2)),
    "chunk": written(lambda x: x.chunk(2, 1)[1]),
    "split": written(lambda x: x.split([1, 3], 0)[0]),
    "unbind": written(lambda x: x.unbind(1)[2]),
    "permute": written(lambda x: x.unflatten(1, (2, 2)).permute(2, 0, 1).squeeze()),
    "contiguous": written(lambda x: x.t().contiguous()),
    "to the same": written(lambda x: x.to(torch.float32)),
    "to another": written(lambda x: x.to(torch.float64)),
    "detach": written(lambda x: x.detach()),
    "type_as": written(lambda x: x.type_as(x)),
    "expand_as": written(lambda x: x.expand_as(x)),
    "clone": written(lambda x: x.clone()),
    "pad of nothing": written(lambda x: F.pad(x, (0, 0))),
    "mask": mask,
    "views at other times": before_and_after,
    "dropout that gives back its input": through_dropout,
    "fill": lambda x: (x + 1).index_fill_(1, torch.tensor([0, 2]), 7.0).clamp_(-1, 5).neg_(),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_what_is_written_in_place_is_seen_by_every_view(tmp_path: Path, how: str) -> None:
    act = WRITTEN[how]
    program = made_functional(save(act, tmp_path, dynamic_shapes=None))
    for node in program.graph.nodes:
        assert not getattr(getattr(node.target, "_schema", None), "is_mutable", False), node
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(program.module()(x.clone())[0], act(x.clone()), rtol=0, atol=0)


@pytest.mark.parametrize("equation", ["ij->ij", "ij->ji"])
def test_what_gives_back_its_input_unsaid_is_refused_where_it_is_written_into(
    tmp_path: Path, equation: str
) -> None:
    """Torch's own functionalisation takes it for a copy, and its answer would be wrong."""
    path = save(written(lambda x: torch.einsum(equation, x)), tmp_path, dynamic_shapes=None)
    said = refusal(path)
    assert "uses 'aten.einsum.default', which returned its input" in said
    assert "write nothing in place" in said


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return x + self.count


def test_a_program_that_writes_into_what_it_is_given_or_keeps_is_refused(tmp_path: Path) -> None:
    assert "let it work on a copy" in refusal(save(lambda x: x.add_(1), tmp_path))
    path = save_program(Counting(), tmp_path / "m.pt2")
    assert "writes into its input or its own buffers" in refusal(path)


class Text(nn.Module):
    """Tokens in a matrix of floats, a mask of theirs, attention: the operators of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens = nn.Embedding(50, 8)
        self.head = nn.Linear(8, 3)
        self.register_buffer("positions", torch.arange(16).expand(1, -1))

    def forward(self, x: Tensor) -> Tensor:
        ids = x.long()
        rows, length = ids.shape
        known = (ids > 0).to(torch.bool) & torch.ones_like(ids, dtype=torch.bool)
        places = self.positions[:, :length].expand(rows, -1)
        bias = torch.zeros_like(ids, dtype=torch.float32).masked_fill_(~known, float("-inf"))
        hidden = self.tokens(ids) + self.tokens(places)
        heads = hidden.view(rows, length, 2, 4).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(
            heads, heads, heads, attn_mask=bias[:, None, None, :].expand(rows, 1, length, length)
        )
        mixed = F.relu(mixed.transpose(1, 2).reshape(rows, length, 8), inplace=True)
        answer: Tensor = self.head(F.dropout(mixed, 0.1, False)[:, 0])
        return answer


def test_a_transformer_with_a_mask_in_place_is_read_and_answers_as_it_did(tmp_path: Path) -> None:
    model = Text().eval()
    program = torch.export.export(model, (torch.ones(3, 6),), dynamic_shapes=ANY_ROWS)
    torch.export.save(program, tmp_path / "model.pt2")
    rows = np.random.default_rng(0).integers(0, 50, (7, 6)).astype(np.float32)
    rows[:, 0] = 1
    with torch.inference_mode():
        expected = model(torch.from_numpy(rows)).numpy()
    source = open_program(tmp_path / "model.pt2")
    np.testing.assert_allclose(asked(source, rows), expected, atol=1e-6)


# Sizes


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(32), Symbol('s23', positive=True, integer=True))",
        "Pow(Symbol('s53', positive=True, integer=True), Integer(2))",
        "Min(Integer(32), Mul(Integer(-32), Symbol('s23', integer=True)))",
        "Add(Mul(Integer(2), FloorDiv(Symbol('s0'), Integer(4))), Rational(1, 2))",
    ],
)
def test_expressions_that_torch_writes_are_taken(text: str) -> None:
    check_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "Pow(Integer(3), Integer(9000000000000000000))",
        "Pow(Integer(10), Pow(Integer(10), Integer(10)))",
        "Pow(Pow(Pow(Integer(9), Integer(4)), Integer(4)), Integer(4))",
        "Mul(Integer(2), Pow(Add(Pow(Symbol('s'), Integer(4)), Integer(1)), Integer(4)))",
        "PowByNatural(Integer(3), Integer(99999999))",
        "Pow(Integer(2), Symbol('s'))",
        "Integer(10**1000000000)",
        "Integer(9 ** 9 ** 9)",
        f"Integer({'9' * 40})",
        "Float('1.0', precision=1000000000000)",
        "Symbol('s', precision=10)",
        "Symbol('__import__')",
        "Symbol(Integer(3))",
        "Integer(True)",
        "__import__('os').system('true')",
        "Add(*[Integer(1)])",
        "Add(**{})",
        "(lambda: 1)()",
        "Add" + "(Add" * 40 + ")" * 40,
        "Add(" * 900 + ")" * 900,
        f"Add({', '.join(['Integer(1)'] * 150)})",
        "[Integer(1) for x in y]",
        "factorial(Integer(9))",
        "Abs",
        "3",
        "'x'",
        "",
        None,
        3,
        ["Integer(1)"],
        "x" * 1_000_000,
    ],
)
def test_any_other_expression_is_refused_at_once(text: object) -> None:
    with pytest.raises(BundleError, match="is refused: it holds the expression") as error:
        check_expression(text)
    assert len(str(error.value)) < 400


# Sizes that torch doesn't look at


def changed(act: Callable[[Tensor], Tensor], edit: Callable[[Any], None], path: Path) -> Path:
    source = save(act, path, dynamic_shapes=None)
    return rewrite(source, path / "changed.pt2", editing(PROGRAM, edit))


def argument(operator: str, name: str, value: Any) -> Callable[[Any], None]:
    def edit(document: Any) -> None:
        for node in document["graph_module"]["graph"]["nodes"]:
            for given in node["inputs"]:
                if f".{operator}." in node["target"] and given["name"] == name:
                    given["arg"] = value

    return edit


@pytest.mark.parametrize(
    ("act", "edit", "said"),
    [
        (
            lambda x: F.pad(x[None], (1, 1), mode="replicate")[0],
            argument("pad", "pad", {"as_ints": [-20, 30]}),
            "pad.default with arguments that don't fit",
        ),
        (
            lambda x: F.interpolate(x[None], scale_factor=2.0)[0],
            argument("upsample_nearest1d", "scale_factors", {"as_floats": [1e-300]}),
            "upsample_nearest1d.vec with arguments that don't fit",
        ),
    ],
)
def test_arguments_that_torch_does_not_check_are(
    tmp_path: Path, act: Callable[[Tensor], Tensor], edit: Callable[[Any], None], said: str
) -> None:
    with pytest.raises(BundleError, match=said):
        made_functional(changed(act, edit, tmp_path))


@pytest.mark.parametrize(
    ("name", "arguments", "fits"),
    [
        ("lstm.input", (1, 4, 2, 8, 4), True),
        ("lstm.input", (1, 4, 2, 8, 3), False),
        ("lstm.input", (1, 4, 2, 7, 4), False),
        ("lstm.input", (1, 4, 2000, 8, 4), False),
    ],
)
def test_weights_of_an_lstm_have_the_sizes_of_its_state(
    name: str, arguments: tuple[int, ...], fits: bool
) -> None:
    batch, width, hidden, gates, columns = arguments
    state = [torch.zeros(1, batch, hidden)] * 2
    weights = [torch.ones(gates, columns), torch.ones(gates, 2)]
    call = (torch.ones(batch, 3, width), state, weights, False, 1, 0.0, False, False, True)
    expected = nullcontext() if fits else pytest.raises(BundleError, match="don't fit each other")
    with expected:
        check_arguments(f"aten.{name}", call, {})
    both = nn.LSTM(4, 5, num_layers=2, bidirectional=True, batch_first=True)
    state = [torch.zeros(4, 1, 5)] * 2
    call = (torch.ones(1, 3, 4), state, both._flat_weights, True, 2, 0.0, False, True, True)
    check_arguments("aten.lstm.input", call, {})


@pytest.mark.parametrize(
    ("query", "key", "value", "fits"),
    [
        ((1, 2, 40, 8), (1, 2, 50, 8), (1, 2, 50, 6), True),
        ((1, 2, 40, 8), (1, 2, 50, 8), (1, 2, 3, 8), False),
        ((1, 2, 40, 8), (1, 2, 50, 4), (1, 2, 50, 8), False),
        ((1, 2, 40, 8), (1, 1, 50, 8), (1, 2, 50, 8), False),
        ((9, 2, 40, 8), (1, 2, 50, 8), (1, 2, 50, 8), False),
        ((40, 8), (50, 8), (50, 8), True),
    ],
)
def test_every_key_of_an_attention_has_a_value(
    query: Any, key: Any, value: Any, fits: bool
) -> None:
    call = tuple(torch.ones(shape) for shape in (query, key, value))
    expected = nullcontext() if fits else pytest.raises(BundleError, match="don't fit each other")
    with expected:
        check_arguments("aten.scaled_dot_product_attention.default", call, {})


@pytest.mark.parametrize(
    ("name", "arguments", "fits"),
    [
        ("grid_sampler.default", (0, 0, False), True),
        ("grid_sampler.default", (2, 2, True), True),
        ("grid_sampler.default", (3, 0, False), False),
        ("grid_sampler.default", (0, -1, False), False),
        ("rrelu.default", (0.1, 0.3, False), True),
        ("rrelu.default", (0.1, 0.3, True), False),
        ("_upsample_nearest_exact2d.vec", ([1e-300, 2.0],), False),
        ("upsample_trilinear3d.vec", (None, False, [1e9] * 3), False),
    ],
)
def test_a_mode_that_is_none_answers_with_no_memory_of_ours(
    name: str, arguments: tuple[Any, ...], fits: bool
) -> None:
    image = torch.ones(1, 1, 4, 4)
    given = (image, torch.zeros(1, 2, 2, 2)) if name.startswith("grid") else (image,)
    expected = nullcontext() if fits else pytest.raises(BundleError, match="don't fit each other")
    with expected:
        check_arguments(f"aten.{name}", (*given, *arguments), {})


@pytest.mark.parametrize(
    ("shape", "dim", "fits"),
    [
        ((3, 1), 0, True),
        ((1, 2), 1, True),
        ((), -1, True),
        ((1, 1), -1, True),
        ((1, 1), 0, False),
        ((1,), 0, False),
        ((1, 1), 1, False),
        ((3, 1), 2, False),
        ((3, 1), -2, False),
    ],
)
def test_every_part_of_a_weight_has_its_norm(shape: tuple[int, ...], dim: int, fits: bool) -> None:
    expected = nullcontext() if fits else pytest.raises(BundleError, match="don't fit each other")
    with expected:
        check_arguments("aten._weight_norm.default", (torch.ones(3, 2), torch.ones(shape), dim), {})


@pytest.mark.parametrize(
    "call",
    [
        lambda x: F.embedding_bag(torch.full((3, 2), 99), x),
        lambda x: F.embedding_bag(torch.tensor([1, 2]), x, torch.tensor([0, 10**9, 1])),
        lambda x: F.embedding_bag(torch.tensor([1, 2]), x, torch.tensor([0, -5])),
        lambda x: F.embedding_bag(torch.tensor([1, 2]), x, torch.tensor([0, 9, 1]), mode="max"),
        lambda x: F.max_unpool2d(x[None, :2, :2], torch.full((1, 2, 2), 10**6), 2),
        lambda x: F.max_unpool3d(x[None, None, :2, :2], torch.full((1, 1, 2, 2), 10**6), 2),
        lambda x: aten.col2im(x[None], [9, 9], [2, 2], [1, 1], [0, 0], [1, 1]),
        lambda x: aten.gru_cell(x, x[:, :2], torch.ones(5, 4), torch.ones(5, 2)),
        lambda x: aten.lstm_cell(x, [x, x[:, :3]], torch.ones(16, 4), torch.ones(16, 4)),
        lambda x: aten.vdot(x[0], torch.ones(9)),
        lambda x: aten._upsample_bilinear2d_aa.vec(x[None, None], [3, 3], False, [1e-3, 5.0]),
    ],
)
def test_torch_checks_what_these_read(call: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises((IndexError, RuntimeError)):
        call(torch.ones(4, 4))


class Layers(nn.Module):
    """Calls several layers of torch on the same tensors."""

    def __init__(self, act: Callable[..., Any], layers: list[nn.Module]) -> None:
        super().__init__()
        self.act, self.layers = act, nn.ModuleList(layers)

    def forward(self, *inputs: Tensor) -> Any:
        return self.act(*self.layers, *inputs)


def cells(rnn: Any, gru: Any, lstm: Any, relu: Any, x: Tensor) -> Any:
    return rnn(x), gru(x), *lstm(x), relu(x)


def sizes(nearest: Any, exact: Any, linear: Any, x: Tensor) -> Any:
    flat = F.interpolate(x[:, :, 0], size=(3, 3), mode="bilinear", antialias=True)
    return nearest(x), exact(x), linear(x), exact(x[:, :, 0]), flat


def warped(x: Tensor, angles: Tensor) -> Tensor:
    grid = F.affine_grid(angles, [2, 3, 4, 4], align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def masks(x: Tensor) -> Any:
    known = x > 0
    known &= x < 1
    known |= x > 2
    return known.float(), torch.broadcast_tensors(x, x[:1])[1], torch.diag_embed(x), x.diff(dim=1)


LAYERS: dict[str, tuple[Callable[..., Any], list[nn.Module], tuple[Tensor, ...]]] = {
    "cells": (
        cells,
        [
            nn.RNNCell(4, 3),
            nn.GRUCell(4, 3),
            nn.LSTMCell(4, 3),
            nn.RNNCell(4, 3, nonlinearity="relu"),
        ],
        (torch.rand(2, 4),),
    ),
    "bags": (
        lambda total, mean, most, ids: (total(ids), mean(ids), most(ids)),
        [nn.EmbeddingBag(9, 4, mode=mode) for mode in ("sum", "mean", "max")],
        (torch.tensor([[1, 2, 3], [4, 5, 8]]),),
    ),
    "sizes": (
        sizes,
        [
            nn.Upsample(scale_factor=2),
            nn.Upsample(scale_factor=2, mode="nearest-exact"),
            nn.Upsample(scale_factor=2, mode="trilinear"),
        ],
        (torch.rand(2, 3, 4, 4, 4),),
    ),
    "grids": (warped, [], (torch.rand(2, 3, 4, 4), torch.rand(2, 2, 3))),
    "folds": (
        lambda fold, pool, unpool, x: (fold(x.flatten(2)), unpool(*pool(x))),
        [nn.Fold((4, 4), 2, stride=2), nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)],
        (torch.rand(2, 12, 2, 2),),
    ),
    "norms": (
        lambda weight, spectral, x: (weight(x), spectral(x)),
        [
            nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
            nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)),
        ],
        (torch.rand(2, 4),),
    ),
    "activations": (
        lambda leaky, drop, x: drop(leaky(x)),
        [nn.RReLU(0.1, 0.5), nn.FeatureAlphaDropout()],
        (torch.randn(2, 4),),
    ),
    "masks": (masks, [], (torch.randn(3, 4),)),
    "encoder": (
        lambda encoder, x, mask: encoder(x, src_key_padding_mask=mask),
        [
            nn.TransformerEncoder(
                nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
                1,
                enable_nested_tensor=False,
            )
        ],
        (torch.rand(2, 5, 8), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])),
    ),
    "decoder": (
        lambda decoder, x, y: decoder(x, y),
        [nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 1)],
        (torch.rand(2, 5, 8), torch.rand(2, 6, 8)),
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_torch_answer_as_they_did_in_torch_and_in_onnx(tmp_path: Path, name: str) -> None:
    act, layers, inputs = LAYERS[name]
    model = Layers(act, layers).eval()
    torch.export.save(torch.export.export(model, inputs), tmp_path / "model.pt2")
    source = open_program(tmp_path / "model.pt2")
    given = {spec.name: value.numpy() for spec, value in zip(source.inputs, inputs, strict=True)}
    session = onnxruntime.InferenceSession(source.graph.SerializeToString())
    found = [*source.ask(given).values()], session.run(None, given)
    with torch.inference_mode():
        expected = torch.utils._pytree.tree_leaves(model(*inputs))
    for answers in found:
        for answer, wanted in zip(answers, expected, strict=True):
            np.testing.assert_allclose(answer, wanted.numpy(), atol=1e-5)


def test_a_residual_network_with_norms_and_activations_in_place_answers_as_it_did(
    tmp_path: Path,
) -> None:
    torch.manual_seed(1)
    layers = (nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Linear(8, 3))
    model = nn.Sequential(*layers)
    model(torch.randn(50, 4))
    model.eval()
    source = open_program(save_program(model, tmp_path / "model.pt2"))
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(asked(source, rows), expected, atol=1e-6)
