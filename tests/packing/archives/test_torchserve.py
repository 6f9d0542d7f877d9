"""Archives of TorchServe: their handlers answer as TorchServe answered, and what is not taken is
named.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from app.model.code.errors import HandlerFailed, HandlerRefusal
from app.model.code.golden import read_golden_requests
from app.model.code.request import HandlerRequest
from app.model.errors import BundleError
from app.model.isolation import ProcessLimits
from app.model.model import Model
from app.packing.archives.container import METADATA
from app.packing.file import Packed, pack_file
from app.packing.statement import Statement
from app.registry.loading import ModelSource, load_model
from tests.handler_bundles import answer

DIGITS = Path(__file__).parent.parent / "cases" / "mar_digits"
ALLOWED = Statement(allow_code=True)
ECHO = """
def handle(data, context):
    if data is None:
        return None
    return [repr(data[0])]
"""


def pack(source: Path, out: Path, samples: Path | None, statement: Statement = ALLOWED) -> Packed:
    return pack_file(source, out, samples=samples, statement=statement)


def archive(
    tmp_path: Path, source: str, files: Mapping[str, str | bytes] | None = None, **model: str
) -> Path:
    document = {"runtime": "python", "model": {"modelName": "m", "handler": "handler.py"} | model}
    path = tmp_path / "m.mar"
    with zipfile.ZipFile(path, "w") as made:
        for name, content in {"handler.py": source, **(files or {})}.items():
            made.writestr(name, content)
        made.writestr(METADATA, json.dumps(document))
    return path


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    (tmp_path / "sample.bin").write_bytes(b"x")
    return tmp_path / "sample.bin"


def served(
    tmp_path: Path, sample: Path, handler: str, files: Mapping[str, str | bytes] | None = None,
    **model: str,
) -> Model:  # fmt: skip
    out = tmp_path / "m" / "1"
    pack(archive(tmp_path, handler, files, **model), out, sample)
    return load_model(ModelSource(out, allow_code=True, max_answer_values=1000))


def test_digits_answer_as_torchserve_did(tmp_path: Path) -> None:
    out = tmp_path / "digits" / "1"
    packed = pack(DIGITS / "digits.mar", out, DIGITS / "digit0.png")
    assert packed.manifest.classes[:3] == ("zero", "one", "two")
    assert packed.notes == (
        "The classes are zero, one, two, three, four, five, six, seven, eight, nine.",
        "Its handler, handler.py, is carried over, and runs where model.allow_code says so.",
        "The handler answers 1 golden request.",
    )
    model = load_model(ModelSource(out, allow_code=("digits",)))
    wanted = json.loads((DIGITS / "torchserve_answers.json").read_text())
    for index, expected in enumerate(wanted):
        found = answer(model, HandlerRequest((DIGITS / f"digit{index}.png").read_bytes()))
        probabilities = json.loads(found.body)
        assert list(probabilities) == list(expected)
        assert all(abs(probabilities[name] - expected[name]) <= 1e-6 for name in expected)
        assert found.body.startswith(b'{\n  "')  # as TorchServe writes it
    with pytest.raises(HandlerFailed):
        answer(model, HandlerRequest(b"no image"))


def test_without_leave_the_handler_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = archive(tmp_path, f"open({str(trace)!r}, 'w')")
    with pytest.raises(BundleError, match="has code of its own, handler.py, .* with --allow-code"):
        pack(path, tmp_path / "m" / "1", None, Statement())
    assert not trace.exists()
    assert not (tmp_path / "m" / "1").exists()


@pytest.mark.parametrize(
    ("request_", "row"),
    [
        (HandlerRequest(b"x"), "{'body': bytearray(b'x')}"),
        (HandlerRequest(b"x", "image/png", field="data"), "{'data': bytearray(b'x')}"),
        (HandlerRequest(b'{"a": 1}', "application/json; charset=utf-8"), "{'body': {'a': 1}}"),
        (HandlerRequest(b"{", "application/json"), "{'body': bytearray(b'{')}"),
        (HandlerRequest("ü".encode(), "text/plain"), "{'body': 'ü'}"),
        (
            HandlerRequest(b"x", "", {}, {"k": "5"}),
            "{'k': bytearray(b'5'), 'body': bytearray(b'x')}",
        ),
    ],
)
def test_a_request_becomes_the_row_that_a_handler_knows(
    request_: HandlerRequest, row: str, tmp_path: Path, sample: Path
) -> None:
    found = answer(served(tmp_path, sample, ECHO), request_)
    assert (found.body.decode(), found.content_type) == (row, "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    ("returned", "body", "content_type"),
    [
        ("{'ü': [1, 2.5]}", b'{\n  "\\u00fc": [\n    1,\n    2.5\n  ]\n}', "application/json"),
        ("b'raw'", b"raw", "application/octet-stream"),
        ("bytearray(b'raw')", b"raw", "application/octet-stream"),
        ("7", b"7", "application/json"),
        ("__import__('numpy').arange(2)", b"[\n  0,\n  1\n]", "application/json"),
    ],
)
def test_what_a_handler_returns_is_sent_as_torchserve_sends_it(
    returned: str, body: bytes, content_type: str, tmp_path: Path, sample: Path
) -> None:
    handler = f"def handle(data, context):\n    return [{returned}]\n"
    found = answer(served(tmp_path, sample, handler), HandlerRequest(b""))
    assert (found.body, found.content_type) == (body, content_type)


def test_a_handler_sets_status_and_type_and_reads_headers(tmp_path: Path, sample: Path) -> None:
    handler = """
def handle(data, context):
    if data:
        context.set_response_content_type(0, "image/png")
        context.set_response_status(code=202, idx=0)
        context.metrics.add_counter("Seen.Images", 2)
        context.metrics.add_time("t", 1.0, None, "ms")
        context.metrics.get_metric("other").add_or_update(3, ["a"])
        name = context.get_request_header(0, "X-Name")
        return [f"{name} {context.model_name} {context.system_properties['gpu_id']}".encode()]
"""
    model = served(tmp_path, sample, handler)
    found = answer(model, HandlerRequest(b"", "", {"x-name": "Ann"}))
    assert (found.body, found.content_type, found.status) == (b"Ann m None", "image/png", 202)
    assert model.handler is not None
    counted: dict[str, float] = {}
    model.handler.counters.connect(lambda name: lambda n: counted.update({name: n}))
    assert counted == {"Seen_Images": 4, "other": 6}  # the golden request, too


def test_a_prediction_exception_is_for_the_caller_and_others_are_not(
    tmp_path: Path, sample: Path
) -> None:
    handler = """
from ts.utils.util import PredictionException
def handle(data, context):
    if data and data[0]["body"] == b"513":
        raise PredictionException("too dark", 513)
    if data and data[0]["body"] == b"two":
        return [1, 2]
    if data and data[0]["body"] == b"none":
        return None
    return [1 / len(data[0]["body"])] if data else None
"""
    model = served(tmp_path, sample, handler)
    with pytest.raises(HandlerRefusal, match="too dark") as refused:
        answer(model, HandlerRequest(b"513"))
    assert refused.value.status == 513
    for body in (b"", b"two", b"none"):
        with pytest.raises(HandlerFailed):
            answer(model, HandlerRequest(body))


def test_torchscript_and_its_configuration_are_loaded(tmp_path: Path, sample: Path) -> None:
    torch.jit.script(torch.nn.ReLU()).save(str(tmp_path / "model.pt"))  # type: ignore[no-untyped-call]
    handler = """
import torch
from ts.torch_handler.base_handler import BaseHandler
from ts.handler_utils.timer import timed
import helpers

class Mine(BaseHandler):
    def initialize(self, context):
        super().initialize(context)
        self.factor = context.model_yaml_config["handler"]["factor"]
    @timed
    def preprocess(self, data):
        return torch.tensor([[len(row["body"]) * 1.0, -1.0] for row in data]) * self.factor
"""
    files: dict[str, str | bytes] = {
        "model.pt": (tmp_path / "model.pt").read_bytes(),
        "model-config.yaml": "handler:\n  factor: 3\n",
        "helpers.py": "",
        "requirements.txt": "# what it needs\ntorch>=2  # or later\n--extra-index x\n\npillow\n",
    }
    model = served(
        tmp_path, sample, handler, files, serializedFile="model.pt", configFile="model-config.yaml"
    )
    assert json.loads(answer(model, HandlerRequest(b"xx")).body) == [6.0, 0.0]
    assert model.manifest.handler is not None
    assert model.manifest.handler.requirements == ("torch>=2", "pillow")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"handler": "base_handler"}, "uses TorchServe's own handler 'base_handler'"),
        ({"handler": "other.py"}, "names the handler 'other.py', which isn't there"),
        ({"serializedFile": "x.pt"}, "names 'x.pt' (serializedFile), which it doesn't have"),
        ({"configFile": "../x"}, "names '../x' (configFile), which it doesn't have"),
    ],
)
def test_what_is_not_taken_is_named(model: Any, said: str, tmp_path: Path, sample: Path) -> None:
    with pytest.raises(BundleError) as refused:
        pack(archive(tmp_path, ECHO, **model), tmp_path / "m" / "1", sample)
    assert said in str(refused.value)


@pytest.mark.parametrize("metadata", ["", "{", "[]", "{}", '{"model": 1}', '{"model": {}}'])
def test_a_manifest_that_is_none_is_refused(metadata: str, tmp_path: Path) -> None:
    path = tmp_path / "m.mar"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("handler.py", ECHO)
        if metadata:
            made.writestr(METADATA, metadata)
    with pytest.raises(BundleError, match="MAR-INF/MANIFEST.json"):
        pack(path, tmp_path / "m" / "1", None)


@pytest.mark.parametrize("name", ["manifest.json", "golden_requests.json"])
def test_a_file_that_a_bundle_calls_its_own_is_refused(
    name: str, tmp_path: Path, sample: Path
) -> None:
    with pytest.raises(BundleError, match=f"has a file {name}, which a bundle calls one of its"):
        pack(archive(tmp_path, ECHO, {name: "{}"}), tmp_path / "m" / "1", sample)


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (
            "import ts.torch_handler.object_detector",
            "No module named 'ts.torch_handler.object_detector'",
        ),
        (
            "class A: pass\nclass B: pass",
            "it must have a function handle, or one class; it has A, B",
        ),
        ("x = 1", "it must have a function handle, or one class; it has none"),
        ("def handle(data, context): raise OSError('disk')", "OSError in handler.py, line 1: disk"),
        ("def handle(data, context): return data and [{1, 2}]", "a value of type set"),
    ],
)
def test_a_handler_that_can_not_be_run_is_refused_with_its_fault(
    handler: str, said: str, tmp_path: Path, sample: Path
) -> None:
    with pytest.raises(BundleError) as refused:
        pack(archive(tmp_path, handler), tmp_path / "m" / "1", sample)
    assert said in str(refused.value)
    assert not (tmp_path / "m" / "1").exists()


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        ("import nosuch", "{archive}: handler.py can't be loaded: "),
        ("import nosuch.a", "Install nosuch where Lantern runs, or pack it with the handler."),
        (
            "class H:\n def initialize(self, context):\n"
            "  open(context.system_properties['model_dir'] + '/gone.json')\n"
            " def handle(self, data, context): return ['x']",
            "No such file or directory: '{archive}: gone.json'.",
        ),
        (
            "def handle(data, context):\n if data: raise OSError('disk')",
            "{archive}: The handler failed on a golden request: predict raised OSError in",
        ),
    ],
)
def test_an_error_names_the_archive_and_not_where_it_was_unpacked_to(
    handler: str, said: str, tmp_path: Path, sample: Path
) -> None:
    path = archive(tmp_path, handler)
    with pytest.raises(BundleError) as refused:
        pack(path, tmp_path / "m" / "1", sample)
    assert said.format(archive=path) in str(refused.value)
    assert str(refused.value).startswith(f"{path}: ")
    assert f"{tmp_path}/m/" not in str(refused.value)


def test_samples_are_files_that_are_sent_as_they_are(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    (samples / "a.png").write_bytes(b"png")
    (samples / "b.json").write_bytes(b"[1]")
    out = tmp_path / "m" / "1"
    packed = pack(archive(tmp_path, ECHO), out, samples)
    golden = read_golden_requests(out / "golden_requests.json")
    assert [each.content_type for each in golden] == ["", "application/json"]
    assert "The handler answers 2 golden requests." in packed.notes


def test_an_archive_without_samples_says_that_nothing_verifies_it(tmp_path: Path) -> None:
    packed = pack(archive(tmp_path, ECHO), tmp_path / "m" / "1", None)
    assert "nothing verifies what the handler answers" in packed.notes[-1]
    load_model(ModelSource(tmp_path / "m" / "1", allow_code=True))


@pytest.mark.isolated
def test_it_is_packed_in_a_process_of_its_own(tmp_path: Path, sample: Path) -> None:
    handler = f"{ECHO}\nimport os\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getppid()))"
    pack(archive(tmp_path, handler), tmp_path / "m" / "1", sample)
    assert (tmp_path / "pid").read_text() == str(os.getpid())
    with pytest.raises(BundleError, match="still running after"):
        pack_file(
            archive(tmp_path, "while True: pass"),
            tmp_path / "m" / "2",
            samples=sample,
            statement=ALLOWED,
            limits=ProcessLimits(seconds=0.3),
        )
