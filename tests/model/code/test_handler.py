"""A bundle's handler: its steps around a network or in its place, and what it does wrong."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from app.model import bundle as bundles
from app.model.code.errors import HandlerFailed, HandlerRefusal
from app.model.code.request import HandlerRequest
from app.model.errors import BundleError, NonFiniteOutput, OutputsTooLarge
from app.model.manifest_file import FILE_NAME, read_manifest, write_manifest
from app.model.model import Model
from app.model.signature import Tensors
from app.registry.loading import ModelSource, load_model
from tests import task_models
from tests.handler_bundles import PLAIN, answer, records, with_handler

AROUND = """
import numpy as np
from helpers import named

class Handler:
    def load(self, bundle):
        self.bundle = bundle
        self.units = bundle.read("units.txt").decode()
        self.seen = bundle.counter("rooms_seen_total", "Rooms")

    def preprocess(self, request):
        rooms, area = request.json()
        if rooms < 0:
            raise self.bundle.error(f"{rooms} rooms are too few.", status=422)
        self.seen.inc(rooms)
        return {"features": [rooms, area]}

    def postprocess(self, outputs, request):
        number = request.parameters.get("n")
        return {named("price"): outputs["values"][0], "in": self.units, "n": number}
"""
FILES = {"helpers.py": b"def named(x):\n    return x.title()\n", "units.txt": b"EUR"}


def json_request(value: Any, **parameters: str) -> HandlerRequest:
    return HandlerRequest(json.dumps(value).encode(), "application/json", {}, parameters)


def load(path: Path, **options: Any) -> Model:
    return load_model(ModelSource(path, allow_code=True, **options))


def around(tmp_path: Path, **options: Any) -> Model:
    bundle = task_models.regression(tmp_path / "flats" / "1")
    path = with_handler(bundle, AROUND, files=FILES, requests=[json_request([3, 80])])
    return load(path, **options)


def with_source(path: Path, source: str) -> None:
    """Replace the handler of a bundle, which its manifest lists."""
    (path / "handler.py").write_text(source)
    manifest = read_manifest(path / FILE_NAME)
    files = {**manifest.files, **records(path, ["handler.py"])}
    write_manifest(replace(manifest, files=files), path / FILE_NAME)


def predicting(tmp_path: Path, body: str, **options: Any) -> Model:
    """A model whose handler answers a request by ``body``."""
    source = f"class Handler:\n    def predict(self, request):\n        {body}\n"
    out = tmp_path / "m" / "1"
    wanted = [HandlerRequest(b"golden")]
    guarded = source.replace(
        "request):\n", "request):\n        if request.body == b'golden': return 1\n"
    )
    return load(with_handler(out, guarded, requests=wanted), **options)


def test_a_handler_makes_the_rows_of_a_network_and_words_its_answer(tmp_path: Path) -> None:
    model = around(tmp_path)
    found = answer(model, json_request([2, 50], n="7"))
    assert json.loads(found.body) == {"Price": 52.0, "in": "EUR", "n": "7"}
    assert found.content_type == "application/json"
    assert model.takes_samples


def test_the_requests_of_a_batch_run_together_and_one_that_is_refused_is_named(
    tmp_path: Path,
) -> None:
    model = around(tmp_path)
    runs: list[int] = []
    run = model.runtime.run

    def counted(inputs: Tensors) -> Tensors:
        runs.append(len(inputs["features"]))
        return run(inputs)

    model.runtime.run = counted  # type: ignore[method-assign]
    found = model.answer([json_request([i, 10]) for i in range(5)])
    assert [json.loads(each.body)["Price"] for each in found] == [10, 11, 12, 13, 14]
    assert runs == [5]
    with pytest.raises(HandlerRefusal, match="-1 rooms are too few") as refused:
        model.answer([json_request([1, 1]), json_request([-1, 1])])
    assert (refused.value.status, refused.value.index) == (422, 1)


def test_the_answers_of_a_batch_are_bounded_together_and_what_is_wrong_is_named(
    tmp_path: Path,
) -> None:
    body = "return float('nan') if request.body == b'nan' else 'x' * 1000"
    model = predicting(tmp_path, body, max_answer_values=100)
    assert len(model.answer([HandlerRequest(b"")] * 2)) == 2
    with pytest.raises(OutputsTooLarge):
        model.answer([HandlerRequest(b"")] * 3)
    with pytest.raises(NonFiniteOutput) as refused:
        model.answer([HandlerRequest(b""), HandlerRequest(b"nan")])
    assert refused.value.rows == (1,)
    with pytest.raises(NonFiniteOutput) as refused:
        answer(model, HandlerRequest(b"nan"))
    assert refused.value.rows is None


def test_a_handler_may_be_all_there_is(tmp_path: Path) -> None:
    model = load(with_handler(tmp_path / "double" / "1"))
    assert answer(model, json_request({"value": 21})).body == b"42"
    assert (model.runtime.name, model.signature.inputs) == ("handler", ())


def test_without_a_preprocess_the_body_has_the_arrays_of_a_sample(tmp_path: Path) -> None:
    bundle = task_models.regression(tmp_path / "flats" / "1")
    source = (
        "class Handler:\n    def postprocess(self, outputs, request):\n        return outputs\n"
    )
    model = load(with_handler(bundle, source, requests=[json_request({"features": [1, 2]})]))
    assert json.loads(answer(model, json_request({"features": [2, 3]})).body) == {"values": [5.0]}
    wrong_ones: list[Any] = [{"features": [1]}, {"x": 1}, [1], {"features": ["a", 2]}]
    for wrong in (*wrong_ones, {"features": [[]]}):
        with pytest.raises(HandlerRefusal):
            answer(model, json_request(wrong))


@pytest.mark.parametrize(
    ("body", "content", "content_type"),
    [
        ("return {'a': 1.5}", b'{"a":1.5}', "application/json"),
        ("return 'ü'", "ü".encode(), "text/plain; charset=utf-8"),
        ("return b'x'", b"x", "application/octet-stream"),
        ("return b'x', 'image/png'", b"x", "image/png"),
        ("import numpy; return [numpy.float32(0.5), numpy.arange(3)]", b"[0.5,[0,1,2]]", ""),
        ("return {1: None, 'b': (True, 'c')}", b'{"1":null,"b":[true,"c"]}', ""),
    ],
)
def test_what_a_handler_returns_becomes_a_body(
    body: str, content: bytes, content_type: str, tmp_path: Path
) -> None:
    found = answer(predicting(tmp_path, body), HandlerRequest(b""))
    assert found.body == content
    assert found.content_type == (content_type or "application/json")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("return float('nan')", NonFiniteOutput),
        ("import numpy; return numpy.array([numpy.inf])", NonFiniteOutput),
        ("return [0] * 101", OutputsTooLarge),
        ("return b'x' * 2501", OutputsTooLarge),
        ("return {'x' * 2000: 'x' * 2000}", OutputsTooLarge),
        ("import numpy; return numpy.zeros((11, 10))", OutputsTooLarge),
        ("return {1, 2}", HandlerFailed),
        ("return {(1, 2): 3}", HandlerFailed),
        ("return 2 ** 64", HandlerFailed),
        ("return b'x', 'image/png\\r\\nx: y'", HandlerFailed),
        ("x = []; x.append(x); return x", HandlerFailed),
        ("1 / 0", HandlerFailed),
    ],
)
def test_what_can_not_be_an_answer_is_refused(body: str, error: type, tmp_path: Path) -> None:
    model = predicting(tmp_path, body, max_answer_values=100)
    with pytest.raises(error):
        answer(model, HandlerRequest(b""))


def test_a_fault_of_a_handler_is_told_to_its_owner_and_not_to_callers(tmp_path: Path) -> None:
    model = predicting(tmp_path, "raise ValueError('secret of the owner')")
    with pytest.raises(HandlerFailed) as failed:
        answer(model, HandlerRequest(b""))
    assert str(failed.value) == "The model's handler failed on this request."
    assert failed.value.reason == (
        "predict raised ValueError in handler.py, line 4: secret of the owner"
    )
    assert isinstance(failed.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("SystemExit(3)", "SystemExit in handler.py, line 4: 3"),
        ("KeyboardInterrupt", "KeyboardInterrupt in handler.py, line 4: KeyboardInterrupt"),
        ("GeneratorExit('x')", "GeneratorExit in handler.py, line 4: x"),
        ("type('Own', (BaseException,), {})('y')", "Own in handler.py, line 4: y"),
        ("type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})", "Mute in handler.py, li"),
        ("type('Odd', (Exception,), {'__str__': lambda self: None})", "Odd in handler.py, line 4"),
        ("ValueError('x' * 10_000_000)", f"ValueError in handler.py, line 4: {'x' * 300}"),
    ],
)
def test_whatever_a_handler_raises_is_its_failure_on_that_request_alone(
    raised: str, said: str, tmp_path: Path
) -> None:
    model = predicting(tmp_path, f"raise {raised}")
    with pytest.raises(HandlerFailed) as failed:
        answer(model, HandlerRequest(b""))
    assert failed.value.reason.startswith(f"predict raised {said}")
    assert len(failed.value.reason) < 400
    assert answer(model, HandlerRequest(b"golden")).body == b"1"


@pytest.mark.parametrize("raised", ["SystemExit(1)", "KeyboardInterrupt", "GeneratorExit"])
def test_whatever_a_handler_raises_when_it_is_loaded_is_an_error_of_the_bundle(
    raised: str, tmp_path: Path
) -> None:
    path = with_handler(tmp_path / "m" / "1")
    begin = "class Handler:\n"
    made, looked_at = "    def __init__(self): ", "    @property\n    def predict(self): "
    for place in ("", begin + made, begin + looked_at):
        with_source(path, f"{place}raise {raised}\n")
        with pytest.raises(BundleError, match=rf"raised {raised.partition('(')[0]}"):
            load(path)


OBJECTS = """
import collections.abc

class Mapped(collections.abc.Mapping):
    def __getitem__(self, key): raise KeyError(key)
    def __len__(self): return 1
    def __iter__(self): raise KeyboardInterrupt("its items")

class Listed:
    def tolist(self): raise SystemExit("its list")

class Handler:
    def preprocess(self, request):
        return {"features": [1, 2]} if request.body != b"arrays" else {"features": Listed()}

    def postprocess(self, outputs, request):
        answers = {b"mapped": Mapped(), b"listed": Listed(), b"long": {10 ** 5000: 1}}
        return answers.get(request.body)
"""


@pytest.mark.parametrize("body", ["mapped", "listed", "long", "arrays"])
def test_the_code_of_what_a_handler_returns_is_its_own_too(body: str, tmp_path: Path) -> None:
    bundle = task_models.regression(tmp_path / "flats" / "1")
    model = load(with_handler(bundle, OBJECTS, requests=[HandlerRequest(b"")]))
    with pytest.raises(HandlerFailed):
        answer(model, HandlerRequest(body.encode()))


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("[1, 2]", "preprocess must return a dict of arrays by the names of the inputs (features)"),
        ("{'x': [1, 2]}", "preprocess must return features; it returned x"),
        ("{'features': [1, 2, 3]}", "'features' of shape [3], and the input is of shape [2]"),
        ("{'features': ['a', 'b']}", "'features' as <U1, and the input is FP32"),
        ("{'features': [[[1, 2]]]}", "of shape [1, 1, 2], and the input is of shape [-1, 2]"),
        ("{'features': [[1], [1, 2]]}", "'features', which is no array"),
        ("{'features': [[]]}", "of shape [1, 0], and"),
        ("{'features': __import__('numpy').zeros((0, 2))}", "one row or more"),
    ],
)
def test_arrays_that_the_network_does_not_take_are_the_owners_fault(
    returned: str, said: str, tmp_path: Path
) -> None:
    bundle = task_models.regression(tmp_path / "flats" / "1")
    source = (
        "class Handler:\n    def preprocess(self, request):\n"
        f"        return {{'features': [1, 2]}} if request.body == b'golden' else {returned}\n"
    )
    model = load(with_handler(bundle, source, requests=[HandlerRequest(b"golden")]))
    with pytest.raises(HandlerFailed) as failed:
        answer(model, HandlerRequest(b""))
    assert said in failed.value.reason


def test_a_sample_may_be_several_rows(tmp_path: Path) -> None:
    bundle = task_models.regression(tmp_path / "flats" / "1")
    source = (
        "class Handler:\n    def preprocess(self, request):\n"
        "        return {'features': [[1, 2], [3, 4]]}\n"
    )
    model = load(with_handler(bundle, source, requests=[HandlerRequest(b"")]))
    found = model.answer([HandlerRequest(b""), HandlerRequest(b"")])
    assert [json.loads(each.body) for each in found] == [{"values": [[3.0], [7.0]]}] * 2


def test_two_versions_import_each_its_own_modules_now_and_later(tmp_path: Path) -> None:
    source = """
import helpers
from dataclasses import dataclass

@dataclass
class Pair:
    one: "int"

class Handler:
    def predict(self, request):
        import later
        return helpers.NAME + later.NAME + str(Pair(1).one)
"""
    models = []
    for version in ("1", "2"):
        files = {
            "helpers.py": f"NAME = 'helpers {version}, '".encode(),
            "later.py": b"import helpers\nNAME = 'later ' + helpers.NAME",
        }
        path = with_handler(
            tmp_path / "m" / version, source, files=files, requests=[HandlerRequest(b"")]
        )
        models.append(load(path))
    said = [answer(model, HandlerRequest(b"")).body.decode() for model in models]
    assert said == ["helpers 1, later helpers 1, 1", "helpers 2, later helpers 2, 1"]
    assert not {"helpers", "later", "handler"} & sys.modules.keys()


def test_its_modules_end_with_it(tmp_path: Path) -> None:
    gc.collect()  # those of other tests
    before = {name for name in sys.modules if name.startswith("_lantern_code")}
    model = load(with_handler(tmp_path / "m" / "1"))
    assert {name for name in sys.modules if name.startswith("_lantern_code")} > before
    del model
    gc.collect()
    assert {name for name in sys.modules if name.startswith("_lantern_code")} <= before


def test_what_is_executed_is_what_was_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is replaced between the check of its sum and its execution."""
    path = with_handler(tmp_path / "m" / "1")
    check = bundles.check_file

    def replaced(file: Path, record: Any) -> None:
        check(file, record)
        if file.name == "handler.py":
            file.write_text(PLAIN.replace("* 2", "* 3"))

    monkeypatch.setattr(bundles, "check_file", replaced)
    with pytest.raises(BundleError, match="does not match the SHA-256"):
        load(path)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "class Handler: pass",
            "the class Handler has none of the methods preprocess, predict, po",
        ),
        ("class handler: pass", "has no class Handler"),
        (
            "class Handler:\n  def preprocess(self, r): return r",
            "its class has no predict, and the",
        ),
        ("x = (", "can't be loaded: loading it raised SyntaxError"),
        ("import sys; sys.exit(0)", "can't be loaded: loading it raised SystemExit in handler.py"),
        ("import no_such_package", "raised ModuleNotFoundError in handler.py, line 1: No module"),
        (
            "class Handler:\n  def load(self, b): raise OSError('x')\n  def predict(self, r): pass",
            "can't be loaded: loading it raised OSError in handler.py, line 2: x.",
        ),
    ],
)
def test_a_handler_that_can_not_be_loaded_is_refused_with_a_sentence(
    source: str, said: str, tmp_path: Path
) -> None:
    path = with_handler(tmp_path / "m" / "1")
    (path / "handler.py").write_text(source)

    manifest = read_manifest(path / "manifest.json")
    files = {**manifest.files, **records(path, ["handler.py"])}
    write_manifest(replace(manifest, files=files), path / "manifest.json")
    with pytest.raises(BundleError) as refused:
        load(path)
    assert said in str(refused.value)


def test_a_golden_request_that_is_answered_otherwise_refuses_the_version(tmp_path: Path) -> None:

    path = with_handler(tmp_path / "m" / "1")
    document = json.loads((path / "golden_requests.json").read_text())
    assert document["requests"][0]["answer"] == 4
    for wrong, said in ((5, "it is 4, and was 5"), ([4], "it is 4, and was a value of type list")):
        document["requests"][0]["answer"] = wrong
        (path / "golden_requests.json").write_text(json.dumps(document))
        manifest = read_manifest(path / "manifest.json")
        files = {**manifest.files, **records(path, ["golden_requests.json"])}
        write_manifest(replace(manifest, files=files), path / "manifest.json")
        with pytest.raises(BundleError, match=said):
            load(path)


def test_calls_come_from_several_threads(tmp_path: Path) -> None:
    model = around(tmp_path, batch_rows=64)
    wrong: list[object] = []

    def call(number: int) -> None:
        for area in range(20):
            found = json.loads(answer(model, json_request([number, area])).body)["Price"]
            if found != number + area:
                wrong.append((number, area, found))

    threads = [Thread(target=call, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []


def test_a_counter_is_passed_on_once_it_is_connected(tmp_path: Path) -> None:
    model = around(tmp_path)
    assert model.handler is not None
    counted: list[float] = []
    answer(model, json_request([2, 50]))
    model.handler.counters.connect(lambda name: counted.append)
    answer(model, json_request([4, 50]))
    assert counted == [3 + 2, 4]  # the self-test had three


def test_keys_of_callers_do_not_reach_a_handler() -> None:
    request = HandlerRequest(b"", "", {"Authorization": "Bearer x", "X-API-Key": "x", "X-A": "1"})
    assert dict(request.headers) == {"x-a": "1"}
    assert request.headers["X-a"] == "1"


def test_a_body_that_is_not_json_is_refused_by_json_alone() -> None:
    with pytest.raises(HandlerRefusal, match="The body is not JSON") as refused:
        HandlerRequest(b"{").json()
    assert refused.value.status == 400


def test_a_status_that_is_no_error_is_the_handlers_fault(tmp_path: Path) -> None:
    for status in (200, 700, "422", True):
        with pytest.raises((TypeError, ValueError)):
            HandlerRefusal("x", status)  # type: ignore[arg-type]


def test_a_module_that_pickle_and_importlib_ask_for_is_found_while_it_loads(tmp_path: Path) -> None:
    source = """
import importlib, pickle

class Handler:
    def load(self, bundle):
        self.kind = importlib.import_module("shapes").Square
        self.made = pickle.loads(b"cshapes\\nSquare\\n.")
    def predict(self, request):
        return self.made is self.kind
"""
    path = with_handler(
        tmp_path / "m" / "1",
        source,
        files={"shapes.py": b"class Square: pass"},
        requests=[HandlerRequest(b"")],
    )
    assert answer(load(path), HandlerRequest(b"")).body == b"true"
    assert "shapes" not in sys.modules


def test_a_module_with_the_name_of_another_is_its_own_bundles_alone(tmp_path: Path) -> None:
    """Those of the service and of Python stay what they are, also while it loads."""
    source = """
import app, json, importlib

class Handler:
    def load(self, bundle):
        self.found = importlib.import_module("json"), importlib.import_module("app")
    def predict(self, request):
        return [app.NAME, json.NAME, hasattr(self.found[0], "NAME"), hasattr(self.found[1], "NAME")]
"""
    files = {"app.py": b"NAME = 'own app'", "json.py": b"NAME = 'own json'"}
    before = sys.modules["app"], sys.modules["json"]
    path = with_handler(tmp_path / "m" / "1", source, files=files, requests=[HandlerRequest(b"")])
    found = json.loads(answer(load(path), HandlerRequest(b"")).body)
    assert found == ["own app", "own json", False, False]
    assert (sys.modules["app"], sys.modules["json"]) == before


def test_an_array_that_is_larger_than_its_type_is_the_networks_to_answer(tmp_path: Path) -> None:
    bundle = task_models.regression(tmp_path / "flats" / "1")
    source = (
        "class Handler:\n    def preprocess(self, request):\n"
        "        return {'features': [1e300 if request.body else 1, 2]}\n"
    )
    model = load(with_handler(bundle, source, requests=[HandlerRequest(b"")]))
    with np.errstate(all="raise"), pytest.raises(NonFiniteOutput):
        answer(model, HandlerRequest(b"x"))
