"""Directories of transformers, as far as they can be judged without the library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from app.model.errors import BundleError
from app.model.steps.declaration import ImageStep, Resize, Sample, Size
from app.packing.description import ModelDescription
from app.packing.file import pack_file
from app.packing.huggingface import directory as directories
from app.packing.huggingface.directory import read_directory
from app.packing.huggingface.images import image_step
from app.packing.huggingface.meaning import stated_by
from app.packing.huggingface.texts import text_step
from app.packing.material import gather
from app.packing.preprocessing import check_preprocessing
from app.packing.statement import Statement
from app.packing.step_tables import TOKENIZER
from tests.step_models import PHOTO, PIXELS, SENTENCE, TOKENS, tokenizer

BERT = {"architectures": ["BertForSequenceClassification"], "model_type": "bert"}


def written(directory: Path, weights: str = "model.safetensors", **files: Any) -> Path:
    """Write a directory whose files are JSON; ``config`` is that of `BERT` by default."""
    for name, document in ({"config": BERT} | files).items():
        (directory / f"{name}.json").write_text(json.dumps(document))
    if weights:
        (directory / weights).write_bytes(b"")
    return directory


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("BertForSequenceClassification", "text"),
        ("ViTForImageClassification", "image"),
    ],
)
def test_a_classifier_of_texts_or_images_is_taken(
    tmp_path: Path, architecture: str, kind: str
) -> None:
    path = written(tmp_path, config={"architectures": [architecture]})
    assert (read_directory(path).kind, read_directory(path).architecture) == (kind, architecture)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config": BERT | {"auto_map": {"AutoModel": "x.Y"}}}, "config.json asks for code of its"),
        ({"config": BERT | {"text_config": {"auto_map": {}}}}, "(auto_map), which is never run"),
        ({"config": BERT | {"custom_pipelines": {}}}, "(custom_pipelines), which is never run"),
        ({"tokenizer_config": {"auto_map": {}}}, "tokenizer_config.json asks for code of its own"),
        ({"preprocessor_config": [{"auto_map": 1}]}, "preprocessor_config.json must be an object"),
        ({"config": BERT | {"quantization_config": {"bits": 4}}}, "has quantization_config"),
        ({"adapter_config": {}}, "is an adapter (adapter_config.json). Merge it"),
        ({"config": {"architectures": ["BertForMaskedLM"]}}, "architectures is BertForMaskedLM"),
        ({"config": {}}, "architectures is nothing, and what is packed is *ForSequenceClass"),
        ({"config": BERT | {"architectures": 3}}, "architectures is nothing"),
        ({"config": [1]}, "config.json must be an object"),
        ({"weights": ""}, "has no weights: model.safetensors or pytorch_model.bin"),
    ],
)
def test_what_is_not_packed_is_named(tmp_path: Path, files: dict[str, Any], said: str) -> None:
    with pytest.raises(BundleError) as error:
        read_directory(written(tmp_path, **files))
    assert said in str(error.value)


def test_a_configuration_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (written(tmp_path) / "config.json").write_text("{")
    with pytest.raises(BundleError, match=r"config\.json is not JSON"):
        read_directory(tmp_path)


def test_another_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is a directory without config\.json"):
        pack_file(tmp_path, tmp_path / "models" / "mine" / "1")


def test_the_library_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directories, "find_spec", lambda name: None)
    with pytest.raises(BundleError, match="pip install transformers"):
        pack_file(written(tmp_path), tmp_path / "models" / "mine" / "1")


def config(*labels: str, problem_type: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(id2label=dict(enumerate(labels)), problem_type=problem_type)


@pytest.mark.parametrize(
    ("given", "stated"),
    [
        (config("a", "b"), ("classification", "logits", ("a", "b"))),
        (
            config("a", "b", problem_type="single_label_classification"),
            ("classification", "logits", ("a", "b")),
        ),
        (
            config("a", "b", problem_type="multi_label_classification"),
            ("multilabel", "logits", ("a", "b")),
        ),
        (config("stars", problem_type="regression"), ("regression", "values", ("stars",))),
    ],
)
def test_the_configuration_says_what_is_answered(given: Any, stated: tuple[Any, ...]) -> None:
    found, _ = stated_by(given, Path("dir"), Statement(), are_named=False)
    assert (found.task, found.role, found.names) == stated


def test_labels_are_in_the_order_of_their_numbers() -> None:
    given = SimpleNamespace(id2label={10: "k", 2: "c", 0: "a"}, problem_type=None)
    assert stated_by(given, Path("dir"), Statement(), are_named=False)[0].names == ("a", "c", "k")


def test_the_owner_may_say_otherwise() -> None:
    said = Statement("multilabel", names=("x",))
    found, notes = stated_by(config("LABEL_0"), Path("dir"), said, are_named=False)
    assert (found.task, found.role, found.names, notes) == ("multilabel", "logits", ("x",), ())


def test_what_was_assumed_of_labels_is_said() -> None:
    _, notes = stated_by(config("LABEL_0", "LABEL_1"), Path("dir"), Statement(), are_named=False)
    assert any("takes a softmax" in note for note in notes)
    assert any("has no names of the labels (id2label)" in note for note in notes)


@pytest.mark.parametrize("problem", [None, "single_label_classification"])
def test_one_label_is_not_guessed_to_be_a_number_or_a_probability(problem: str | None) -> None:
    with pytest.raises(BundleError, match="--task regression .* or --task multilabel"):
        stated_by(config("a", problem_type=problem), Path("d"), Statement(), are_named=False)


VIT = {
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.2, 0.1],
    "image_processor_type": "ViTImageProcessor",
}
MOBILE = VIT | {
    "size": {"shortest_edge": 256, "longest_edge": None},
    "do_center_crop": True,
    "crop_size": {"height": 200, "width": 220},
}


def step_of(said: Mapping[str, Any]) -> ImageStep:
    processor = SimpleNamespace(to_dict=lambda: dict(said))
    return image_step(processor, Path("dir"))


def test_an_image_processor_becomes_a_step() -> None:
    step = step_of(VIT)
    assert (step.resize, step.crop, step.filter) == (Resize(None, 224, 224), None, "bilinear")
    assert (step.scale, step.mean, step.std) == (1 / 255, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    step = step_of(MOBILE | {"resample": 3, "do_normalize": False})
    assert (step.resize, step.crop, step.filter) == (Resize(256), Size(220, 200), "bicubic")
    assert (step.mean, step.std, step.crop_rounding) == ((), (), "down")


def test_the_processor_of_efficientnet_divides_twice() -> None:
    step = step_of(VIT | {"include_top": True, "rescale_offset": False})
    assert step.mean == (0.5, 0.4, 0.3)
    assert step.std == pytest.approx((0.04, 0.04, 0.01))


def test_the_processor_of_convnext_resizes_as_its_share_says() -> None:
    convnext = VIT | {"size": {"shortest_edge": 224}, "crop_pct": 0.875}
    step = step_of(convnext)
    assert (step.resize, step.crop) == (Resize(256), Size(224, 224))
    step = step_of(convnext | {"size": {"shortest_edge": 384}})
    assert (step.resize, step.crop) == (Resize(None, 384, 384), None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"do_pad": True}, "do_pad can't be carried over"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order can't be carried over"),
        ({"rescale_offset": True}, "rescale_offset can't be carried over"),
        ({"size": {"shortest_edge": 9, "longest_edge": 10}}, "shortest_edge, longest_edge can't"),
        ({"size": {"max_height": 9, "max_width": 10}}, "size with max_height, max_width can't"),
        ({"do_resize": False}, "doesn't say which size an image gets"),
        ({"size": {"shortest_edge": 9}}, "doesn't say which size an image gets"),
    ],
)
def test_what_an_image_processor_does_beside_is_named(changes: Any, said: str) -> None:
    with pytest.raises(BundleError) as error:
        step_of(VIT | changes)
    assert said in str(error.value)


class Tokenizer:
    """What `text_step` asks of a tokenizer of transformers."""

    pad_token_id = 1
    padding_side = "right"
    truncation_side = "right"
    model_max_length = 10**30
    all_special_tokens = ("<s>",)

    def __init__(self, *made: str) -> None:
        self.made = made

    def __call__(self, text: str) -> dict[str, Any]:
        return {name: [1] for name in self.made}

    def get_vocab(self) -> dict[str, int]:
        return {"<s>": 0, "a": 2}

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.get_vocab()[token]


class Positions(torch.nn.Module):
    """A model with as many positions as its configuration says."""

    def __init__(self, positions: int, *, padding: int | None, stated: int | None) -> None:
        super().__init__()
        self.config = SimpleNamespace(max_position_embeddings=stated)
        self.first = 0 if padding is None else padding + 1
        self.position_embeddings = torch.nn.Embedding(positions, 2, padding_idx=padding)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        places = torch.arange(self.first, self.first + input_ids.shape[1])
        found: torch.Tensor = self.position_embeddings(places)
        return found


@pytest.mark.parametrize(("padding", "length"), [(None, 34), (1, 32)])
def test_the_positions_of_padding_are_no_places_of_tokens(padding: Any, length: int) -> None:
    model = Positions(34, padding=padding, stated=34)
    accepted = ("input_ids", "attention_mask")
    step, notes = text_step(
        Tokenizer("input_ids", "attention_mask", "token_type_ids"), model, accepted, Path("dir")
    )
    assert step.max_length == length
    assert (step.attention_mask, step.token_type_ids) == ("attention_mask", None)
    assert step.pad_id == 1
    assert f"Longer texts are cut to {length} tokens." in notes
    assert "The model takes no token_type_ids, which its tokenizer makes." in notes


def test_a_length_that_the_model_does_not_take_is_refused() -> None:
    model = Positions(10, padding=None, stated=None)
    model.first = 3
    with pytest.raises(BundleError, match="can't be run on 10 tokens, as many as it should take"):
        text_step(Tokenizer("input_ids"), model, ("input_ids",), Path("dir"))


def test_a_length_that_nothing_says_is_not_guessed() -> None:
    model: Any = torch.nn.Module()
    model.config = SimpleNamespace()
    with pytest.raises(BundleError, match="doesn't say how long a text may be"):
        text_step(Tokenizer("input_ids"), model, ("input_ids",), Path("dir"))


def test_another_input_than_steps_fill_is_named() -> None:
    model: Any = torch.nn.Module()
    with pytest.raises(BundleError, match="the tokenizer makes bbox, which no step does"):
        text_step(Tokenizer("input_ids", "bbox"), model, ("input_ids", "bbox"), Path("dir"))


def test_preprocessing_that_the_steps_do_not_do_is_found_by_its_answers(tmp_path: Path) -> None:
    material = gather(ModelDescription(steps=(PHOTO,)), None, [PIXELS])
    rows = dict(material.golden)
    check_preprocessing(lambda samples: rows, material, Path("dir"))
    moved = {"pixels": np.roll(rows["pixels"], 1, axis=3)}
    with pytest.raises(BundleError, match="the steps make another 'pixels' of example 1, by up to"):
        check_preprocessing(lambda samples: moved, material, Path("dir"))


def test_a_pair_is_compared_beside_texts(tmp_path: Path) -> None:
    (tmp_path / TOKENIZER).write_bytes(tokenizer())
    files = {TOKENIZER: tmp_path / TOKENIZER}
    material = gather(ModelDescription(steps=(SENTENCE,), files=files), None, list(TOKENS))
    steps = material.steps
    assert steps is not None
    check_preprocessing(steps.encode, material, Path("dir"))

    def turned(samples: Any) -> Any:
        pair = samples[-1]
        return steps.encode([*samples[:-1], Sample(text=pair.pair, pair=pair.text)])

    with pytest.raises(BundleError, match="of a pair of the first and the last text"):
        check_preprocessing(turned, material, Path("dir"))
