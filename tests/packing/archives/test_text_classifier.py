"""Archives with TorchServe's own ``text_classifier`` become a step that answers as it does.

The vocabularies in ``data`` were written by torchtext 0.18 (torch 2.3) and 0.4 (in the older form
of torch's files), of twenty sentences on the news, and the ids and answers are those of TorchServe
0.12's own handler with them.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from inspect import getsource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from app import create_app
from app.model.code.request import HandlerRequest
from app.model.errors import BundleError
from app.model.steps.declaration import WordsStep
from app.packing.description import read_description
from app.packing.file import Packed, pack_file
from app.packing.statement import Statement
from app.registry.loading import ModelSource, load_model
from app.settings import load_settings
from tests.handler_bundles import answer

from .test_image_classifier import archive, script

DATA = Path(__file__).parent / "data"
CLASSES = {"0": "World", "1": "Sports", "2": "Business", "3": "Sci/Tec"}
ANSWERS = json.loads((DATA / "news_answers.json").read_text())
VOCABULARY = (DATA / "vocabulary_torchtext_0.18.pt").read_bytes()
WORDS = 464


class TextSentiment(nn.Module):
    """The network of TorchServe's example."""

    def __init__(self, vocab_size: int = WORDS, embed_dim: int = 8, num_class: int = 4) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(vocab_size, embed_dim, sparse=True)
        self.fc = nn.Linear(embed_dim, num_class)

    def forward(self, text: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        return self.fc(self.embedding(text, offsets))  # type: ignore[no-any-return]


MODEL_FILE = f"import torch\nfrom torch import nn\nWORDS = {WORDS}\n{getsource(TextSentiment)}"


def network() -> nn.Module:
    """Return the network with its weights."""
    module = TextSentiment()
    module.load_state_dict(torch.load(DATA / "news.pt"))
    return module.eval()


def news(path: Path, said: Mapping[str, str] | None = None, **changed: Any) -> Path:
    """Write an archive of an eager network to ``path``, with other files as ``changed`` says, and
    what else its manifest has ``said``.
    """
    files = {
        "model.py": MODEL_FILE,
        "model.pt": (DATA / "news.pt").read_bytes(),
        "source_vocab.pt": VOCABULARY,
        "index_to_name.json": CLASSES,
    }
    files |= {name.replace("__", "."): content for name, content in changed.items()}
    files = {name: content for name, content in files.items() if content is not None}
    return archive(
        path,
        files,
        **{
            **{"handler": "text_classifier", "serializedFile": "model.pt"},
            **({"modelFile": "model.py"} if "model.py" in files else {}),
            **(said or {}),
        },
    )


def of_script(path: Path, module: nn.Module) -> Path:
    return news(path, model__py=None, model__pt=script(module))


def pack(source: Path, out: Path, samples: Path | None = None, *, allowed: bool = True) -> Packed:
    return pack_file(source, out, samples=samples, statement=Statement(allow_code=allowed))


def saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def client(root: Path) -> Any:
    """Return a client of a service that allows no code."""
    return create_app(load_settings({"LANTERN_MODEL__PATH": str(root)})).test_client()


def check_answers(root: Path) -> None:
    """Check that the clients of TorchServe get what it answered."""
    caller = client(root)
    for each in ANSWERS:
        response = caller.post(f"/predictions/{root.name}", data=each["text"].encode())
        assert response.status_code == 200, response.text
        assert [*response.get_json()] == [*each["answer"]]
        assert response.get_json() == pytest.approx(each["answer"], abs=1e-6)


def check_values(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Check an answer of /predict, where classes have the keys of JSON."""
    values = [*wanted["answer"].values()]
    assert [*found["probabilities"].values()] == pytest.approx(values, abs=1e-6)


@pytest.mark.parametrize("version", ["0.18", "0.4"])
def test_an_archive_answers_as_torchserve_did_and_its_bundle_has_no_code(
    version: str, tmp_path: Path
) -> None:
    vocabulary = (DATA / f"vocabulary_torchtext_{version}.pt").read_bytes()
    root = tmp_path / "news"
    packed = pack(news(tmp_path / "news.mar", source_vocab__pt=vocabulary), root / "1")
    assert packed.manifest.steps == (WordsStep("vocabulary.json", "ids", 65536, 2, 0),)
    assert packed.manifest.classes == tuple(CLASSES.values())
    assert packed.manifest.handler is None
    assert packed.manifest.batch
    assert not any(file.suffix in (".py", ".pt") for file in (root / "1").iterdir())
    assert any(f"has {WORDS} words and pairs of words; any other" in n for n in packed.notes)
    check_answers(root)


def test_torchscript_answers_as_the_eager_network_does(tmp_path: Path) -> None:
    pack(of_script(tmp_path / "news.mar", network()), tmp_path / "news" / "1")
    check_answers(tmp_path / "news")


def test_a_network_that_takes_one_text_at_a_time_is_taken(tmp_path: Path) -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, text: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
            return self.inner(text, torch.zeros(1, dtype=torch.int64)) * (1.0 + 0 * offsets.sum())

    pack(of_script(tmp_path / "news.mar", One()), tmp_path / "news" / "1")
    check_answers(tmp_path / "news")
    texts = [each["text"] for each in ANSWERS[:3]]
    body = {"samples": [{"text": text} for text in texts]}
    found = client(tmp_path / "news").post("/predict/batch", json=body).get_json()
    for each, one in zip(ANSWERS, found["predictions"], strict=False):
        check_values(one, each)


def test_probabilities_get_another_softmax_as_in_torchserve(tmp_path: Path) -> None:
    class Probable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, text: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.inner(text, offsets), dim=1)

    pack(of_script(tmp_path / "news.mar", Probable()), tmp_path / "news" / "1")
    each = ANSWERS[1]
    response = client(tmp_path / "news").post("/predictions/news", data=each["text"].encode())
    again = torch.softmax(torch.tensor([*each["answer"].values()]), dim=0).tolist()
    assert [*response.get_json().values()] == pytest.approx(again, abs=1e-6)


def test_callers_send_texts_as_to_any_model_of_texts(tmp_path: Path) -> None:
    pack(news(tmp_path / "news.mar"), tmp_path / "news" / "1")
    caller, each = client(tmp_path / "news"), ANSWERS[1]
    text = each["text"].encode()
    plain = caller.post("/predict", data=text, content_type="text/plain")
    form = caller.post("/predictions/news/1", data={"data": (io.BytesIO(text), "text.txt")})
    check_values(plain.get_json(), each)
    assert form.get_json() == pytest.approx(each["answer"], abs=1e-6)
    body = {"samples": [{"text": each["text"]} for each in ANSWERS]}
    together = caller.post("/predict/batch", json=body).get_json()["predictions"]
    for each, one in zip(ANSWERS, together, strict=True):
        check_values(one, each)
    metadata = caller.get("/v2/models/news").get_json()
    assert metadata["inputs"] == [{"name": "ids", "datatype": "INT64", "shape": [-1, -1]}]


@pytest.mark.parametrize("text", ["", "?!", "<b></b> &amp;", "\u4e2d"])
def test_a_text_without_words_is_refused(text: str, tmp_path: Path) -> None:
    """TorchServe answers 503, "Prediction failed"."""
    pack(news(tmp_path / "news.mar"), tmp_path / "news" / "1")
    response = client(tmp_path / "news").post("/predictions/news", data=text.encode())
    assert response.status_code == 422
    assert "has no words" in response.get_json()["message"]


@pytest.mark.parametrize("form", ["torchtext", "dictionary"])
def test_without_a_default_an_unknown_word_is_refused_by_its_name(
    form: str, tmp_path: Path
) -> None:
    vocabulary = (DATA / "vocabulary_without_default.pt").read_bytes()
    if form == "dictionary":
        words = ["the", "bank", "the bank", *map(str, range(WORDS - 3))]
        vocabulary = saved({word: index for index, word in enumerate(words)})
    root = tmp_path / "news"
    packed = pack(news(tmp_path / "news.mar", source_vocab__pt=vocabulary), root / "1")
    assert any("a text with any other is refused" in note for note in packed.notes)
    caller = client(root)
    assert caller.post("/predictions/news", data="The bank").status_code == 200
    response = caller.post("/predictions/news", data="The bank bank")
    assert response.status_code == 422
    assert "has 'bank bank', which isn't in the model's vocab" in response.get_json()["message"]


def test_an_older_manifest_names_the_vocabulary(tmp_path: Path) -> None:
    path = news(
        tmp_path / "news.mar",
        {"sourceVocab": "words.pt"},
        source_vocab__pt=None,
        words__pt=VOCABULARY,
    )
    pack(path, tmp_path / "news" / "1")
    check_answers(tmp_path / "news")


def test_samples_are_lines_of_text(tmp_path: Path) -> None:
    samples = tmp_path / "texts.txt"
    samples.write_text("The bank said its profit fell.\n\nThe captain's knee\n")
    packed = pack(news(tmp_path / "news.mar"), tmp_path / "news" / "1", samples)
    assert any(note.startswith("line 3 of texts.txt -> ") for note in packed.notes)


def test_the_graph_and_its_vocabulary_can_be_packed_with_a_features_file(tmp_path: Path) -> None:
    pack(news(tmp_path / "news.mar"), tmp_path / "packed" / "1")
    features = tmp_path / "news.toml"
    features.write_text(
        """
        classes = ["World", "Sports", "Business", "Sci/Tec"]
        [[steps]]
        kind = "words"
        vocabulary = "packed/1/vocabulary.json"
        input = "ids"
        max_length = 1000
        ngrams = 2
        unknown = 0
        """
    )
    pack_file(
        tmp_path / "packed" / "1" / "model.onnx",
        tmp_path / "news" / "1",
        description=read_description(features),
        statement=Statement("classification", "probabilities"),
    )
    check_answers(tmp_path / "news")
    features.write_text(features.read_text().replace("packed/", "nowhere/"))
    with pytest.raises(
        BundleError, match=r"steps\[0\].vocabulary: .* is not a file. Give the path"
    ):
        read_description(features)


def test_without_leave_the_network_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = news(tmp_path / "news.mar", model__py=f"open({str(trace)!r}, 'w')")
    with pytest.raises(BundleError, match=r"runs its own program, model\.py.* --allow-code"):
        pack(path, tmp_path / "news" / "1", allowed=False)
    assert not trace.exists()


class _Runs:
    """Is pickled as a call of a program."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._trace}",)


def test_the_program_in_a_vocabulary_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for value in ({"a": _Runs(trace)}, _Runs(trace)):
        path = news(tmp_path / "news.mar", source_vocab__pt=saved(value))
        with pytest.raises(BundleError) as refused:
            pack(path, tmp_path / "news" / "1")
        assert str(refused.value).startswith(f"{path}: source_vocab.pt is no vocabulary of torchte")
        assert "posix.system" in str(refused.value)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("vocabulary", "said"),
    [
        (None, "it has no vocabulary, source_vocab.pt, which text_classifier needs."),
        (b"nothing", "source_vocab.pt is no vocabulary of torchtext, nor a dictionary of ids by"),
        (saved(nn.Linear(1, 1)), "torch.nn.modules.linear.Linear"),
        (saved(["the"]), "source_vocab.pt has a list, and no vocabulary of words."),
        (saved({}), "source_vocab.pt has 0 words: from 1 to 10,000,000 are taken."),
        (saved({1: 1}), "source_vocab.pt has a word that is no text: 1."),
        (saved({"\ud800": 1}), "source_vocab.pt has a word that is no text: '\\ud800'."),
        (saved({"a": -1}), "the id of 'a' must be from 0 to 2,147,483,647, and is -1."),
        (saved({"a": 1.0}), "the id of 'a' must be from 0 to 2,147,483,647, and is 1.0."),
        (saved({"a": 464}), "model.py can't be run: Index 2"),
        (saved({"a1": 1}), "vocabulary.json has no word of letters alone, of which to make an ex"),
    ],
)
def test_what_is_no_vocabulary_of_the_network_is_refused_with_its_place(
    vocabulary: bytes | None, said: str, tmp_path: Path
) -> None:
    path = news(tmp_path / "news.mar", source_vocab__pt=vocabulary)
    with pytest.raises(BundleError) as refused:
        pack(path, tmp_path / "news" / "1")
    assert str(refused.value).startswith(f"{path}: ")
    assert said in str(refused.value)
    assert not (tmp_path / "news" / "1").exists()


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Linear(2, 2), "model.pt can't be run: "),
        (TextSentiment(num_class=1), "answers FP32 of [-1, 1]"),
    ],
)
def test_a_network_for_something_else_is_refused(
    module: nn.Module, said: str, tmp_path: Path
) -> None:
    path = of_script(tmp_path / "news.mar", module)
    with pytest.raises(BundleError) as refused:
        pack(path, tmp_path / "news" / "1")
    assert str(refused.value).startswith(str(path))
    assert said in str(refused.value)


def test_a_handler_that_extends_text_classifier_needs_neither_torchtext_nor_captum(
    tmp_path: Path,
) -> None:
    handler = """
from ts.torch_handler.text_classifier import TextClassifier

class Mine(TextClassifier):
    def postprocess(self, data):
        return [{"mine": answer} for answer in super().postprocess(data)]
"""
    path = news(tmp_path / "news.mar", {"handler": "handler.py"}, handler__py=handler)
    pack(path, tmp_path / "news" / "1")
    model = load_model(ModelSource(tmp_path / "news" / "1", allow_code=True))
    for each in ANSWERS:
        found = answer(model, HandlerRequest(each["text"].encode(), "text/plain"))
        assert json.loads(found.body)["mine"] == pytest.approx(each["answer"], abs=1e-6)
