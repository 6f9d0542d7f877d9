"""The service: it loads what it can serve honestly, and says why when it can't."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from app.model.errors import ModelUnavailable, NonFiniteOutput
from app.model.model import Model
from app.model.onnx_runtime import OnnxRuntime
from app.model.signature import FEATURES, PROBABILITIES, Tensors
from app.packing.network import parity_samples
from app.registry.loading import ModelSource
from app.registry.service import ModelObserver, ModelService
from tests.conftest import BUNDLE, ROOT
from tests.damage import move_golden
from tests.model.test_bundle import change
from tests.model.test_network import foreign_checkpoint, overflowing_checkpoint
from tests.small_model import CLASSES

RUNTIMES = ["onnx", "torch"]


def load(path: Path, **source: Any) -> ModelService:
    service = ModelService(ModelSource(path, **source))
    assert service.load(), service.fault
    return service


def replace_file(bundle: Path, name: str, content: bytes) -> None:
    """Put another file into a bundle, and its checksum into the manifest."""
    (bundle / name).write_bytes(content)
    record = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    change(bundle, lambda m: m["files"].update({name: record}))


def onnx_graph(
    width: int = 3,
    classes: int = 3,
    kind: int = TensorProto.FLOAT,
    rows: int | str = "rows",
    outputs: int = 1,
) -> bytes:
    """Make a graph whose probabilities are the softmax of a matrix product."""
    weights = helper.make_tensor("w", kind, [width, classes], [0.0] * (width * classes))
    names = [f"p{i}" for i in range(outputs)]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"])]
    nodes += [helper.make_node("Softmax", ["z"], [name]) for name in names]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kind, [rows, width])],
        [helper.make_tensor_value_info(name, kind, [rows, classes]) for name in names],
        [weights],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def refusal(path: Path, **source: Any) -> str:
    """Load what can't be served, and give the reason."""
    service = ModelService(ModelSource(path, **source))
    assert not service.load()
    with pytest.raises(ModelUnavailable) as error:
        service.current()
    assert str(error.value) == service.fault
    return service.fault


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_prediction_names_class_probabilities_and_version(packed: Path, runtime: str) -> None:
    service = load(packed, runtime=runtime)
    prediction = service.current().predict(
        {FEATURES: np.array([[30, np.nan, 2]], dtype=np.float32)}
    )
    assert len(prediction.probabilities) == len(CLASSES)
    assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-6)
    assert prediction.confidence == max(prediction.probabilities)
    assert prediction.label == CLASSES[prediction.class_index]
    assert prediction.model_version == "1"
    assert prediction.timestamp.utcoffset() is not None


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_batch_answers_each_row_as_alone(packed: Path, runtime: str) -> None:
    service = load(packed, runtime=runtime)
    matrix = np.array([[30, 1e5, 2], [70, np.nan, 0], [18, 0, 50]], dtype=np.float32)
    batch = service.current().predict_batch({FEATURES: matrix})
    assert len(batch) == 3
    for row, prediction in zip(matrix, batch, strict=True):
        alone = service.current().predict({FEATURES: row[np.newaxis]})
        assert prediction.class_index == alone.class_index
        assert prediction.probabilities == pytest.approx(alone.probabilities, abs=1e-6)
    assert sum(batch.label_counts().values()) == 3


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_empty_batch_has_no_predictions(packed: Path, runtime: str) -> None:
    rows = {FEATURES: np.empty((0, 3), dtype=np.float32)}
    batch = load(packed, runtime=runtime).current().predict_batch(rows)
    assert list(batch) == []
    assert batch.label_counts() == {}


@pytest.mark.parametrize("path", ["packed", "bundled"])
def test_both_runtimes_agree_on_random_and_extreme_input(packed: Path, path: str) -> None:
    directory = packed if path == "packed" else BUNDLE
    onnx, pytorch = (load(directory, runtime=name) for name in RUNTIMES)
    samples = parity_samples(onnx.current().golden().inputs[FEATURES])
    answers = [
        each.current().predict_batch({FEATURES: samples}).answers for each in (onnx, pytorch)
    ]
    difference = np.abs(answers[0] - answers[1])
    assert len(samples) > 1000
    assert difference.max() <= 1e-5


def test_auto_picks_onnx_where_the_bundle_has_it_else_torch(bundle: Path) -> None:
    assert load(bundle).current().info()["runtime"] == "onnx"
    change(bundle, lambda m: m["files"].pop("model.onnx"))
    (bundle / "model.onnx").unlink()
    assert load(bundle).current().info()["runtime"] == "torch"
    assert "has no model.onnx" in refusal(bundle, runtime="onnx")


def test_a_bundle_of_onnx_alone_serves_without_torch(bundle: Path) -> None:
    """In a process of its own: this one has imported torch long ago."""
    change(bundle, lambda m: m["files"].pop("model.pt"))
    (bundle / "model.pt").unlink()
    assert "has no model.pt" in refusal(bundle, runtime="torch")
    program = f"""
import sys
from pathlib import Path
from app.registry.loading import ModelSource
from app.registry.service import ModelService
service = ModelService(ModelSource(Path({str(bundle)!r})))
service.import_libraries()
assert service.load(), service.fault
print("torch" in sys.modules)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "False\n"


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("off", [5e-5, 0.1])
def test_a_model_that_answers_its_golden_samples_differently_never_serves(
    bundle: Path, runtime: str, off: float
) -> None:
    move_golden(bundle, off)
    assert "answers to the golden samples differ" in refusal(bundle, runtime=runtime)


@pytest.mark.parametrize("rows", [1, 3])
def test_golden_samples_are_tried_alone_and_together(
    packed: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """A runtime that errs with one row, or with many, is found out either way."""
    run = OnnxRuntime.run

    def errs(self: OnnxRuntime, inputs: Tensors) -> Tensors:
        answers = run(self, inputs)[PROBABILITIES]
        is_wrong = len(inputs[FEATURES]) == rows
        return {PROBABILITIES: answers[:, ::-1] if is_wrong else answers}

    monkeypatch.setattr(OnnxRuntime, "run", errs)
    assert "answers to the golden samples differ" in refusal(packed)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (lambda n: np.full((n, 3), np.nan), "are not probabilities"),
        (lambda n: np.full((n, 3), 0.5), "are not probabilities"),
        (lambda n: np.tile([2.0, -1.0, 0.0], (n, 1)), "are not probabilities"),
        (lambda n: np.full((n, 2), 0.5), r"of shape \(3, 2\), not \[-1, 3\]"),
    ],
)
def test_a_network_whose_answers_are_no_probabilities_never_serves(
    packed: Path, monkeypatch: pytest.MonkeyPatch, answers: Any, said: str
) -> None:
    def answering(self: OnnxRuntime, inputs: Tensors) -> Tensors:
        return {PROBABILITIES: answers(len(inputs[FEATURES]))}

    monkeypatch.setattr(OnnxRuntime, "run", answering)
    assert re.search(said, refusal(packed))


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        ({"width": 7}, "input must be float32 of any number of rows and 3 columns"),
        ({"classes": 2}, "output must be float32 of any number of rows and 3 columns"),
        ({"kind": TensorProto.DOUBLE}, "it is tensor.double. of shape"),
        ({"outputs": 2}, "must have one input and one output; it has 1 and 2"),
    ],
)
def test_an_onnx_graph_of_another_form_is_refused_by_its_form(
    bundle: Path, graph: dict[str, Any], said: str
) -> None:
    replace_file(bundle, "model.onnx", onnx_graph(**graph))
    assert re.search(said, refusal(bundle))


def test_weights_in_a_file_that_nobody_verified_are_not_read(bundle: Path) -> None:
    model = onnx.load(bundle / "model.onnx")
    onnx.save(
        model,
        bundle / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    replace_file(bundle, "model.onnx", (bundle / "model.onnx").read_bytes())
    assert "can't be loaded by ONNX Runtime" in refusal(bundle)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_prediction_uses_as_many_threads_as_the_setting_says(packed: Path, threads: int) -> None:
    before = torch.get_num_threads()
    try:
        load(packed, runtime="torch", threads=threads)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    session = load(packed, runtime="onnx", threads=threads).current().runtime._session
    assert session.get_session_options().intra_op_num_threads == threads


def test_onnx_runtime_keeps_no_memory_and_no_thread_busy_between_runs(packed: Path) -> None:
    session = load(packed, runtime="onnx", threads=2).current().runtime._session
    options = session.get_session_options()
    assert not options.enable_cpu_mem_arena
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


IN_USE = """
import ctypes
from pathlib import Path
import numpy as np
from app.worker.malloc import keep_freed_memory
from app.registry.loading import ModelSource, load_model

class Used(ctypes.Structure):  # struct mallinfo2, see mallinfo(3)
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost").split()]

mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Used

def used():  # what is allocated and not freed, mapped for itself or not
    now = mallinfo2()
    return now.uordblks + now.hblkhd

keep_freed_memory()
runtime = load_model(ModelSource(Path({bundle!r}), runtime={runtime!r})).runtime
rows = np.ones((200_000, 3), dtype=np.float32)
runtime.run({{"features": rows[:1]}})
before = used()
for _ in range(2):
    runtime.run({{"features": rows}})
print(used() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this libc can't be asked")
@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_a_runtime_gives_back_what_a_large_batch_took(packed: Path, runtime: str) -> None:
    """Its largest layer takes 12.8 MB for these rows, which ONNX Runtime's arena would keep."""
    program = IN_USE.format(bundle=str(packed), runtime=runtime)
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) < 1 << 20


def test_the_info_tells_what_the_model_takes_and_how_it_was_loaded(packed: Path) -> None:
    info = load(packed, runtime="torch").current().info()
    manifest = json.loads((packed / "manifest.json").read_text())
    assert info["feature_names"] == ["age", "income", "visits"]
    assert info["classes"] == list(CLASSES)
    assert info["checksum"] == "sha256:" + manifest["files"]["model.pt"]["sha256"]
    assert [step["step"] for step in info["preprocessing"]] == [
        "impute", "clip", "log1p", "standardise",
    ]  # fmt: skip
    assert info["preprocessing"][1] == {
        "step": "clip", "minimum": {"age": 18.0}, "maximum": {"age": 100.0},
    }  # fmt: skip
    assert info["training"] == {"roc_auc": 0.8}


def test_a_bare_checkpoint_loads_with_feature_names_from_the_settings(tmp_path: Path) -> None:
    torch.save(foreign_checkpoint(), tmp_path / "model.pt")
    names = ("a", "b", "c", "d")
    for path in (tmp_path, tmp_path / "model.pt"):
        service = load(path, feature_names=names)
        info = service.current().info()
        assert info["feature_names"] == list(names)
        assert info["classes"] == ["class_0", "class_1"]
        assert info["model_version"] == "2024-05"
        assert info["runtime"] == "torch"
        row = service.current().encoder.encode(dict.fromkeys(names, 1.0))
        assert sum(service.current().predict(row).probabilities) == pytest.approx(1, abs=1e-6)
    named = load(tmp_path, feature_names=names, class_names=("stay", "go"))
    assert named.current().info()["classes"] == ["stay", "go"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({}, "set model.feature_names to the 4 names"),
        ({"feature_names": ("a", "b")}, "must be 4 different names.*; 2 are given"),
        ({"feature_names": ("a", "b", "c", "c")}, "must be 4 different names"),
        (
            {"feature_names": ("a", "b", "c", "d"), "class_names": ("x",)},
            "model.class_names must be 2 different names",
        ),
        ({"feature_names": ("a", "b", "c", "d"), "runtime": "onnx"}, "has no model.onnx"),
    ],
)
def test_a_bare_checkpoint_without_fitting_names_is_refused(
    tmp_path: Path, names: dict[str, Any], said: str
) -> None:
    torch.save(foreign_checkpoint(), tmp_path / "model.pt")
    assert re.search(said, refusal(tmp_path, **names))


def test_values_on_which_a_network_overflows_are_refused_not_answered(tmp_path: Path) -> None:
    torch.save(overflowing_checkpoint(), tmp_path / "model.pt")
    service = load(tmp_path, feature_names=("a", "b", "c", "d"))
    largest = np.finfo(np.float32).max
    fine, overflow = [0, 0, 0, 0], [largest] * 4
    with pytest.raises(NonFiniteOutput) as one:
        service.current().predict({FEATURES: np.array([overflow], dtype=np.float32)})
    assert one.value.rows is None
    with pytest.raises(NonFiniteOutput) as many:
        rows = {FEATURES: np.array([fine, overflow, fine], dtype=np.float32)}
        service.current().predict_batch(rows)
    assert many.value.rows == (1,)


def test_a_checkpoint_that_differs_from_its_manifest_is_refused(bundle: Path, packed: Path) -> None:
    change(bundle, lambda m: m.update(version="2"))
    assert "version '1'; the manifest says 3, 3 and '2'" in refusal(bundle, runtime="torch")


def test_a_version_that_is_not_its_directorys_is_refused(bundle: Path) -> None:
    bundle.rename(bundle.with_name("10"))
    assert "should be version '10', but its manifest says '1'" in refusal(bundle.parent)
    load(bundle.with_name("10"))  # named itself, not picked by its version
    assert "should be version '7'" in refusal(bundle.with_name("10"), version="7")


def test_an_onnx_file_that_is_none_is_refused(bundle: Path) -> None:
    replace_file(bundle, "model.onnx", b"not onnx")
    assert "can't be loaded by ONNX Runtime" in refusal(bundle)


def test_a_fault_nobody_foresaw_leaves_the_service_up_and_in_the_log(
    packed: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(model: Model) -> None:
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr(Model, "self_test", broken)
    with caplog.at_level(logging.ERROR, logger="lantern.model"):
        monkeypatch.setattr(logging.getLogger("lantern"), "propagate", True)
        reason = refusal(packed)
    assert reason == "Loading failed unexpectedly (ZeroDivisionError); see the log."
    assert "a secret detail" in caplog.text


def test_a_model_is_loaded_once_whoever_asks_and_however_often(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Model] = []

    class Loads(ModelObserver):
        def loaded(self, model: Model, seconds: float) -> None:
            loads.append(model)

    service = ModelService(ModelSource(packed), Loads())
    self_test = Model.self_test

    def slow(model: Model) -> None:
        time.sleep(0.2)  # so that all ask while the first still loads
        self_test(model)

    monkeypatch.setattr(Model, "self_test", slow)
    threads = [threading.Thread(target=service.current) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert service.load()
    assert service.loaded is service.current()
    assert len(loads) == 1


def test_news_that_can_not_be_taken_do_not_keep_the_model_from_serving(packed: Path) -> None:
    class Broken(ModelObserver):
        def loaded(self, *_: object) -> None:
            raise OSError("No space left on device")

        served = refused = loaded

    assert ModelService(ModelSource(packed), Broken()).load()


def test_a_model_that_can_not_even_be_looked_for_stops_nothing(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", forbidden)
    service = ModelService(ModelSource(packed.parent))
    service.import_libraries()
    assert not service.load()
    assert service.fault.endswith("example can't be read: Permission denied.")


def test_a_load_that_failed_is_not_tried_again(bundle: Path) -> None:
    kept = shutil.move(bundle, bundle.with_name("kept"))
    service = ModelService(ModelSource(bundle))
    service.import_libraries()
    assert not service.load()
    shutil.move(kept, bundle)
    assert service.loaded is None
    assert "There is no model at" in service.fault


def test_a_graph_whose_weights_lie_elsewhere_is_refused(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be read from the working directory, and answers could tell what is in there."""
    weights = np.zeros((3, 3), dtype=np.float32)
    (tmp_path / "secret").write_bytes(weights.tobytes())
    monkeypatch.chdir(tmp_path)
    model = onnx.load_from_string(onnx_graph())
    (initializer,) = model.graph.initializer
    initializer.ClearField("float_data")
    initializer.data_location = TensorProto.EXTERNAL
    entry = initializer.external_data.add()
    entry.key, entry.value = "location", "secret"
    replace_file(bundle, "model.onnx", model.SerializeToString())
    assert "can't be loaded by ONNX Runtime" in refusal(bundle, runtime="onnx")
