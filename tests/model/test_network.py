"""Checkpoints and the networks they become."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from app.model.errors import BundleError
from app.model.network import build_network, read_checkpoint, save_checkpoint
from tests.small_model import make_network


def foreign_checkpoint(**changes: Any) -> dict[str, Any]:
    """A checkpoint as somebody else's training loop would save it."""
    network = nn.Sequential(
        OrderedDict(
            fc1=nn.Linear(4, 8), relu1=nn.ReLU(), fc2=nn.Linear(8, 8), relu2=nn.ReLU(),
            fc3=nn.Linear(8, 2),
        )
    )  # fmt: skip
    return {
        "model_state_dict": network.state_dict(),
        "input_dim": 4,
        "hidden_dim": 8,
        "output_dim": 2,
        "version": "2024-05",
    } | changes


def overflowing_checkpoint() -> dict[str, Any]:
    """One whose logits are all infinite, and so no probabilities, for the largest of inputs."""
    content = foreign_checkpoint()
    state = {name: torch.ones_like(t) for name, t in content["model_state_dict"].items()}
    return content | {"model_state_dict": state}


def test_a_saved_network_answers_the_same_when_it_is_loaded(tmp_path: Path) -> None:
    network = make_network().eval()
    save_checkpoint(network, "3", tmp_path / "model.pt")
    checkpoint = read_checkpoint(tmp_path / "model.pt")
    assert checkpoint.version == "3"
    x = torch.tensor([[30.0, torch.nan, 2.0], [1e30, -5.0, -1e30]])
    torch.testing.assert_close(build_network(checkpoint)(x), network(x), rtol=0, atol=0)


def test_a_classifier_trained_elsewhere_loads_by_the_order_of_its_layers(tmp_path: Path) -> None:
    content = foreign_checkpoint()
    torch.save(content, tmp_path / "model.pt")
    network = build_network(read_checkpoint(tmp_path / "model.pt"))
    state = content["model_state_dict"]
    x = torch.randn(5, 4)
    hidden = torch.relu(nn.functional.linear(x, state["fc1.weight"], state["fc1.bias"]))
    hidden = torch.relu(nn.functional.linear(hidden, state["fc2.weight"], state["fc2.bias"]))
    expected = nn.functional.linear(hidden, state["fc3.weight"], state["fc3.bias"])
    torch.testing.assert_close(network(x), expected)


def test_weights_in_double_precision_are_served_in_single(tmp_path: Path) -> None:
    content = foreign_checkpoint()
    content["model_state_dict"] = {k: v.double() for k, v in content["model_state_dict"].items()}
    torch.save(content, tmp_path / "model.pt")
    network = build_network(read_checkpoint(tmp_path / "model.pt"))
    assert network(torch.zeros(1, 4)).dtype == torch.float32


def test_the_format_before_zip_is_refused_before_torch_sees_it(tmp_path: Path) -> None:
    """Made to do harm, one has torch read for ever."""
    path = tmp_path / "model.pt"
    torch.save(foreign_checkpoint(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(BundleError, match="is a pickle, not a zip archive"):
        read_checkpoint(path)


class Malice:
    """Runs a command when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_checkpoint_that_hides_code_is_refused_and_the_code_never_runs(
    tmp_path: Path, how: str
) -> None:
    trace, path = tmp_path / "it-ran", tmp_path / "model.pt"
    content = foreign_checkpoint(version=Malice(trace))
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content | {"model_state_dict": {}}, protocol=2))
    with pytest.raises(
        BundleError, match=r"model\.pt .* refused: loading it could run hidden code"
    ):
        read_checkpoint(path)
    assert not trace.exists()
    # The pickle is what it claims to be: without the protection it runs.
    torch.load(path, weights_only=False) if how == "torch" else pickle.loads(path.read_bytes())
    assert trace.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"input_dim": 0},
            "of at least 1 and at most 1,000,000, not 0",
        ),
        ({"input_dim": True}, "input_dim must be an integer"),
        ({"hidden_dim": "64"}, "hidden_dim must be an integer"),
        ({"output_dim": 1}, "output_dim must be an integer of at least 2"),
        ({"hidden_dim": 2**62}, "at most 1,000,000"),
        ({"version": None}, "version must be"),
        ({"version": "\ud800"}, "version must be"),
        ({"version": "x" * 65}, "version must be"),
        ({"model_state_dict": {"a": torch.eye(2).to_sparse()}}, "sparse, complex or quantised"),
        ({"model_state_dict": {"a": torch.zeros(2, dtype=torch.cfloat)}}, "sparse, complex"),
        ({"model_state_dict": [1]}, "not a state dictionary"),
        ({"model_state_dict": {"a": 1}}, "holds 'a', which is not a tensor"),
    ],
)
def test_a_checkpoint_with_a_wrong_member_is_refused_by_its_name(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    torch.save(foreign_checkpoint(**change), tmp_path / "model.pt")
    with pytest.raises(BundleError, match=said):
        read_checkpoint(tmp_path / "model.pt")


def test_missing_keys_are_named(tmp_path: Path) -> None:
    content = foreign_checkpoint()
    del content["hidden_dim"], content["version"]
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(BundleError, match="lacks the key.* hidden_dim, version"):
        read_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.pt"):
        read_checkpoint(tmp_path / "model.pt")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        read_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "state",
    [
        nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).state_dict(),
        nn.Linear(4, 2).state_dict(),
        {},
    ],
)
def test_another_architecture_is_refused_and_its_tensors_named(
    tmp_path: Path, state: dict[str, Any]
) -> None:
    torch.save(foreign_checkpoint(model_state_dict=state), tmp_path / "model.pt")
    with pytest.raises(BundleError, match="three linear layers"):
        build_network(read_checkpoint(tmp_path / "model.pt"))


def test_tensors_of_other_sizes_are_refused(tmp_path: Path) -> None:
    torch.save(foreign_checkpoint(hidden_dim=16), tmp_path / "model.pt")
    with pytest.raises(BundleError, match="don't fit"):
        build_network(read_checkpoint(tmp_path / "model.pt"))


def test_a_compressed_zip_is_refused(tmp_path: Path) -> None:
    """What torch maps as weights would be the compressed bytes."""
    torch.save(foreign_checkpoint(), tmp_path / "stored.pt")
    with (
        zipfile.ZipFile(tmp_path / "stored.pt") as stored,
        zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_DEFLATED) as deflated,
    ):
        for entry in stored.namelist():
            deflated.writestr(entry, stored.read(entry))
    with pytest.raises(BundleError, match="is a compressed zip"):
        read_checkpoint(tmp_path / "model.pt")


def test_preprocessing_buffers_of_another_kind_are_refused(tmp_path: Path) -> None:
    network = make_network()
    network.preprocessing.log1p.selected = network.preprocessing.log1p.selected.float()
    save_checkpoint(network, "1", tmp_path / "model.pt")
    with pytest.raises(BundleError, match="log1p.selected is torch.float32, not torch.bool"):
        build_network(read_checkpoint(tmp_path / "model.pt"))


def test_preprocessing_holds_any_input_finite() -> None:
    largest = float(np.finfo(np.float32).max)
    extremes = torch.tensor([[largest] * 3, [-largest] * 3, [torch.nan] * 3, [-1.0] * 3])
    assert torch.isfinite(make_network().eval()(extremes)).all()


def test_preprocessing_does_what_it_says() -> None:
    steps = make_network().preprocessing
    got = steps(torch.tensor([[150.0, torch.nan, 1.0]]))
    expected = [(100 - 45) / 15, (np.log1p(50_000) - 10.5) / 0.8, (1 - 4) / 3]
    np.testing.assert_allclose(got.numpy(), [expected], rtol=1e-6)
