"""Directories of transformers beside the pipelines of the library, which must be installed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from app.model.errors import BundleError
from app.model.golden import read_golden
from app.model.manifest import Manifest
from app.model.steps.declaration import Sample
from app.model.steps.encoder import StepEncoder
from app.packing.file import pack_file
from app.registry.loading import ModelSource, load_model
from tests.step_models import picture, tokenizer

os.environ["HF_HUB_OFFLINE"] = "1"
transformers: Any = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.3,  # so that answers differ
}
TEXTS = (
    "where is my parcel",
    "i was charged twice for one order and want my money back " * 4,
    "Cannot log in! [SEP] Größe",
)


def labelled(*names: str) -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
    }


def of_texts(path: Path, *labels: str, **config: Any) -> Path:
    """Write a BERT with random weights, and its tokenizer."""
    torch.manual_seed(0)
    settings = {"vocab_size": 131, "max_position_embeddings": 32} | SMALL
    names = labelled(*(labels or ("billing", "delivery", "account")))
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(**settings, **names, **config)
    )
    model.save_pretrained(path)
    (path / "words.json").write_bytes(tokenizer())
    transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(path / "words.json"),
        **{f"{name}_token": f"[{name.upper()}]" for name in ("unk", "pad", "cls", "sep", "mask")},
    ).save_pretrained(path)
    return path


def of_images(path: Path) -> Path:
    """Write a ViT with random weights, whose processor crops."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        **SMALL, image_size=32, patch_size=8, **labelled("cat", "dog", "bird")
    )
    transformers.ViTForImageClassification(config).save_pretrained(path)
    document = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 43},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.48, 0.45, 0.4],
        "image_std": [0.26, 0.26, 0.27],
    }
    (path / "preprocessor_config.json").write_text(json.dumps(document))
    return path


def packed(source: Path, out: Path, **more: Any) -> tuple[Manifest, tuple[str, ...]]:
    made = pack_file(source, out, **more)
    return made.manifest, made.notes


def answered(out: Path, manifest: Manifest, samples: list[Sample]) -> list[dict[str, float]]:
    """Return what a bundle answers to ``samples`` together: a number by label."""
    model = load_model(ModelSource(out))
    encoder = StepEncoder(manifest.steps, manifest.inputs, lambda name: (out / name).read_bytes())
    found = model.predict_batch(encoder.encode(samples)).answers
    names = manifest.classes or manifest.labels or [t.name for t in manifest.targets]
    return [dict(zip(names, row.tolist(), strict=True)) for row in found]


def by_label(found: list[dict[str, Any]]) -> dict[str, float]:
    return {each["label"]: each["score"] for each in found}


@pytest.mark.parametrize(
    ("problem", "labels"),
    [
        (None, ("billing", "delivery", "account")),
        ("multi_label_classification", ("rude", "urgent")),
        ("regression", ("stars",)),
    ],
)
def test_texts_are_answered_as_the_pipeline_does(
    tmp_path: Path, problem: str | None, labels: tuple[str, ...]
) -> None:
    source = of_texts(tmp_path / "model", *labels, problem_type=problem)
    out = tmp_path / "models" / "mine" / "1"
    manifest, notes = packed(source, out)
    assert "Longer texts are cut to 32 tokens." in notes
    pipeline = transformers.pipeline("text-classification", model=str(source))
    samples = [*(Sample(text=text) for text in TEXTS), Sample(text=TEXTS[0], pair=TEXTS[2])]
    ours = answered(out, manifest, samples)
    for sample, found in zip(samples, ours, strict=True):
        given = {"text": sample.text} | ({"text_pair": sample.pair} if sample.pair else {})
        theirs = by_label(pipeline(given, top_k=None, truncation=True, max_length=32))
        assert found == pytest.approx(theirs, abs=1e-5)


def test_images_are_answered_as_the_pipeline_does(tmp_path: Path) -> None:
    source, out = of_images(tmp_path / "model"), tmp_path / "models" / "mine" / "1"
    manifest, _ = packed(source, out)
    processor = transformers.AutoImageProcessor.from_pretrained(str(source), backend="pil")
    pipeline = transformers.pipeline(
        "image-classification", model=str(source), image_processor=processor
    )
    sizes = ((40, 30), (31, 64), (57, 43), (43, 46), (300, 200))
    files = []
    for index, size in enumerate(sizes):
        files.append(tmp_path / f"{index}.png")
        files[-1].write_bytes(picture((40 * index, 90, 200 - 30 * index), size))
    ours = answered(out, manifest, [Sample(image=file.read_bytes()) for file in files])
    for file, found in zip(files, ours, strict=True):
        assert found == pytest.approx(by_label(pipeline(Image.open(file))), abs=1e-5)


def test_samples_may_be_given(tmp_path: Path) -> None:
    source, out = of_texts(tmp_path / "model"), tmp_path / "models" / "mine" / "1"
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    manifest, notes = packed(source, out, samples=tmp_path / "texts.txt")
    golden = read_golden(out / "golden.npz", manifest.signature, in_rows=True, steps=manifest.steps)
    assert [sample.text for sample in golden.samples] == [text.strip() for text in TEXTS]
    assert any(note.startswith("line 2 of texts.txt -> ") for note in notes)


def test_weights_in_a_pickle_are_read_as_data(tmp_path: Path) -> None:
    source, out = of_texts(tmp_path / "model"), tmp_path / "models" / "mine" / "1"
    model = transformers.BertForSequenceClassification.from_pretrained(str(source))
    torch.save(model.state_dict(), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    assert packed(source, out)[0].classes == ("billing", "delivery", "account")


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    source, out = of_texts(tmp_path / "model"), tmp_path / "models" / "mine" / "1"
    model = transformers.BertForSequenceClassification.from_pretrained(str(source))
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("classifier.")}
    (source / "model.safetensors").unlink()
    torch.save(state, source / "pytorch_model.bin")
    with pytest.raises(BundleError, match=r"weights are missing, .* random numbers: classifier"):
        packed(source, out)
    assert not out.exists()


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    source, out = of_texts(tmp_path / "model"), tmp_path / "models" / "mine" / "1"
    (source / "model.safetensors").unlink()
    torch.save({"x": np.random.default_rng}, source / "pytorch_model.bin")
    with pytest.raises(BundleError, match="can't be loaded by transformers"):
        packed(source, out)
