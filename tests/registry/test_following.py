"""The service follows the release: what is new proves itself beside what serves, or stays out."""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from app.model.errors import BundleError, ModelUnavailable, VersionNotLoaded
from app.model.model import Model
from app.model.signature import FEATURES
from app.registry import service as service_module
from app.registry.loading import ModelSource
from app.registry.release import FILE_NAME, Release, write_release
from app.registry.rollout import Rollout
from app.registry.service import ModelObserver, ModelService
from app.registry.watcher import Watcher
from app.telemetry.registry import Registry
from app.telemetry.versions import ServedVersions
from tests.damage import edit_golden, golden_arrays
from tests.integration.conftest import wait_for
from tests.model.test_bundle import change
from tests.model.test_network import foreign_checkpoint

ROW = {FEATURES: np.array([[30, 20_000, 1]], dtype=np.float32)}
RUNTIMES = ["onnx", "torch"]


class News(ModelObserver):
    """What a service told."""

    def __init__(self) -> None:
        self.models: list[str] = []
        self.rollouts: list[Rollout] = []
        self.faults: list[str] = []

    def loaded(self, model: Model, seconds: float) -> None:
        self.models.append(model.version)

    def served(self, rollout: Rollout) -> None:
        self.rollouts.append(rollout)

    def rejected(self, name: str, fault: str) -> None:
        self.faults.append(fault)


def answer(service: ModelService) -> tuple[str, tuple[float, ...]]:
    prediction = service.current().predict(ROW)
    return prediction.model_version, prediction.probabilities


def test_without_a_release_the_highest_version_serves(versions: Path) -> None:
    service = ModelService(ModelSource(versions))
    assert answer(service)[0] == "3"
    change(versions / "2", lambda manifest: manifest.update(version="10"))
    (versions / "2").rename(versions / "10")
    service.refresh()
    assert answer(service)[0] == "10"
    shutil.rmtree(versions / "10")
    service.refresh()
    assert answer(service)[0] == "3"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_promotion_is_followed_and_each_version_gives_its_own_answers(
    versions: Path, runtime: str
) -> None:
    news = News()
    service = ModelService(ModelSource(versions, runtime=runtime), news)
    own = {}
    for version in ("1", "2", "3", "1"):
        write_release(versions, Release(version))
        service.refresh()
        told, probabilities = answer(service)
        assert told == version
        assert own.setdefault(version, probabilities) == probabilities
    assert len(set(own.values())) == 3
    assert news.models == ["1", "2", "3", "1"]
    assert not any(news.faults)


def test_what_was_taken_before_a_swap_serves_to_its_end(versions: Path) -> None:
    write_release(versions, Release("1"))
    service = ModelService(ModelSource(versions))
    before = service.rollout
    write_release(versions, Release("2"))
    service.refresh()
    assert before.stable.predict(ROW).model_version == "1"
    assert service.rollout.stable.version == "2"


def test_nothing_is_loaded_again_while_nothing_changes(versions: Path) -> None:
    write_release(versions, Release("1"))
    news = News()
    service = ModelService(ModelSource(versions), news)
    service.load()
    for _ in range(5):
        service.refresh()
    write_release(versions, Release("1", "2", "canary", 0.5))
    service.refresh()
    write_release(versions, Release("2"))
    service.refresh()
    assert news.models == ["1", "2"]  # the candidate becomes stable as it is


def test_a_bundle_that_is_replaced_under_its_version_is_loaded_again(
    versions: Path, three_versions: Path
) -> None:
    write_release(versions, Release("1"))
    service = ModelService(ModelSource(versions))
    before = answer(service)[1]
    (versions / "1").rename(versions / "old-1")
    shutil.copytree(three_versions / "2", versions / "1-new")
    change(versions / "1-new", lambda manifest: manifest.update(version="1"))
    (versions / "1-new").rename(versions / "1")
    service.refresh()
    assert answer(service) != ("1", before)


@pytest.fixture
def logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """What the service logs."""
    monkeypatch.setattr(logging.getLogger("lantern"), "propagate", True)
    return caplog


def corrupt(bundle: Path) -> None:
    file = bundle / "model.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(bundle: Path) -> None:
    file = bundle / "model.onnx"
    os.truncate(file, file.stat().st_size // 2)


def other_answers(bundle: Path) -> None:
    edit_golden(
        bundle, lambda arrays: arrays.update(output_0=np.roll(arrays["output_0"], 1, axis=1))
    )


def other_format(bundle: Path) -> None:
    change(bundle, lambda manifest: manifest.update(format=99))


def wrong_checksum(bundle: Path) -> None:
    change(bundle, lambda m: m["files"]["model.onnx"].update(sha256="0" * 64))


def removed(bundle: Path) -> None:
    shutil.rmtree(bundle)


def half_a_release(bundle: Path) -> None:
    file = bundle.parent / FILE_NAME
    os.truncate(file, file.stat().st_size // 2 + 30)


FAULTS: list[tuple[Callable[[Path], None], str]] = [
    (corrupt, "does not match the SHA-256"),
    (truncate, "was altered or cut short"),
    (other_answers, "answers to the golden samples differ"),
    (other_format, "format must be 1"),
    (wrong_checksum, "does not match the SHA-256"),
    (removed, "has no version '2'"),
    (half_a_release, "is not TOML"),
]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("damage", "said"), FAULTS, ids=lambda v: getattr(v, "__name__", ""))
def test_a_version_that_fails_stays_out_is_told_once_and_gets_in_when_it_is_mended(
    versions: Path,
    three_versions: Path,
    damage: Callable[[Path], None],
    said: str,
    logged: pytest.LogCaptureFixture,
    *,
    runtime: str,
) -> None:
    write_release(versions, Release("1"))
    news = News()
    service = ModelService(ModelSource(versions, runtime=runtime), news)
    assert answer(service)[0] == "1"
    write_release(versions, Release("2"))
    damage(versions / "2")
    for _ in range(3):
        service.refresh()
    assert answer(service)[0] == "1"
    assert said in service.fault
    assert said in news.faults[-1]
    told = [record for record in logged.records if record.levelno >= logging.ERROR]
    assert len(told) == 1
    shutil.rmtree(versions / "2", ignore_errors=True)
    shutil.copytree(three_versions / "2", versions / "2")
    write_release(versions, Release("2"))
    service.refresh()
    assert answer(service)[0] == "2"
    assert service.fault == news.faults[-1] == ""


def test_a_candidate_that_fails_does_not_keep_the_stable_version_back(versions: Path) -> None:
    write_release(versions, Release("1"))
    service = ModelService(ModelSource(versions))
    service.load()
    corrupt(versions / "3")
    write_release(versions, Release("2", "3", "canary", 1.0))
    service.refresh()
    assert answer(service)[0] == "2"
    assert service.rollout.candidate is None
    assert "does not match" in service.fault


def test_a_service_without_a_model_finds_one_when_it_comes(
    tmp_path: Path, three_versions: Path
) -> None:
    service = ModelService(ModelSource(tmp_path / "example"))
    with pytest.raises(ModelUnavailable, match="There is no model"):
        service.current()
    shutil.copytree(three_versions, tmp_path / "example")
    service.refresh()
    assert service.current().version == "3"
    assert service.fault == ""


def test_a_version_that_the_settings_name_is_served_whatever_the_release_says(
    versions: Path,
) -> None:
    write_release(versions, Release("1"))
    service = ModelService(ModelSource(versions, version="2"))
    assert service.current().version == "2"
    service.refresh()
    assert service.current().version == "2"


def test_versions_that_were_replaced_are_freed(versions: Path) -> None:
    write_release(versions, Release("1"))
    service = ModelService(ModelSource(versions))
    old = weakref.ref(service.current())
    write_release(versions, Release("2"))
    service.refresh()
    gc.collect()
    assert old() is None


def test_the_watcher_follows_by_itself(versions: Path) -> None:
    write_release(versions, Release("1"))
    service = ModelService(ModelSource(versions))
    service.load()
    other = ModelService(ModelSource(versions))
    other.load()
    watcher = Watcher([service, other], 0.01)
    watcher.start()
    write_release(versions, Release("2"))
    wait_for(lambda: other.current().version == service.current().version == "2")
    assert watcher.stop(20)


def test_predictions_during_swaps_are_each_of_the_version_they_name(versions: Path) -> None:
    write_release(versions, Release("1"))
    service = ModelService(ModelSource(versions))
    own = {}
    for version in ("1", "2"):
        write_release(versions, Release(version))
        service.refresh()
        own[version] = answer(service)[1]
    wrong: list[object] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            prediction = service.current().predict(ROW)
            if own[prediction.model_version] != prediction.probabilities:
                wrong.append(prediction)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(20):
        write_release(versions, Release(str(number % 2 + 1)))
        service.refresh()
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_no_question_waits_for_a_load(versions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_release(versions, Release("1"))
    service = ModelService(ModelSource(versions))
    service.load()
    begun, go_on = threading.Event(), threading.Event()
    load_model = service_module.load_model

    def slow(source: ModelSource) -> Model:
        begun.set()
        assert go_on.wait(120)
        return load_model(source)

    monkeypatch.setattr(service_module, "load_model", slow)
    write_release(versions, Release("2"))
    following = threading.Thread(target=service.refresh)
    following.start()
    assert begun.wait(120)
    # Asked on this thread: one that waited would wait for ever.
    assert service.load()
    assert service.fault == ""
    assert service.loaded is service.current()
    assert answer(service)[0] == "1"
    go_on.set()
    following.join()
    assert answer(service)[0] == "2"


@pytest.mark.parametrize("damage", [corrupt, truncate, removed, half_a_release])
def test_a_process_that_begins_under_a_bad_release_serves_what_another_could(
    versions: Path, damage: Callable[[Path], None]
) -> None:
    memory = ServedVersions(Registry())
    write_release(versions, Release("1"))
    ModelService(ModelSource(versions), version_store=memory).load()
    write_release(versions, Release("2"))
    damage(versions / "2")
    late = ModelService(ModelSource(versions), version_store=memory)
    assert answer(late)[0] == "1"
    assert late.fault.endswith("Falling back to version 1.")
    write_release(versions, Release("3"))
    late.refresh()
    assert answer(late)[0] == "3"
    assert late.fault == ""


def test_a_process_that_begins_where_nothing_can_be_looked_at_says_so_and_stays(
    versions: Path, tmp_path: Path
) -> None:
    """Not even whether there is a directory: a name too long stands for a lack of permission."""
    memory = ServedVersions(Registry())
    link = tmp_path / "current"
    link.symlink_to(versions)
    ModelService(ModelSource(link), version_store=memory).load()
    link.unlink()
    link.symlink_to("x" * 300)
    late = ModelService(ModelSource(link), version_store=memory)
    assert not late.load()
    assert late.fault == f"{link} can't be read: File name too long."
    link.unlink()
    link.symlink_to(versions)
    late.refresh()
    assert (answer(late)[0], late.fault) == ("3", "")


def test_a_version_gets_in_when_only_its_network_is_mended(versions: Path) -> None:
    write_release(versions, Release("1"))
    service = ModelService(ModelSource(versions))
    service.load()
    network = versions / "2" / "model.onnx"
    kept = network.rename(versions / "model.onnx")
    write_release(versions, Release("2"))
    service.refresh()
    assert "model.onnx is missing" in service.fault
    kept.rename(network)
    service.refresh()
    assert answer(service)[0] == "2"


def test_what_failed_for_no_reason_in_its_files_is_tried_again(
    versions: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    write_release(versions, Release("1"))
    service = ModelService(ModelSource(versions))
    service.load()

    def no_memory(source: ModelSource) -> Model:
        raise BundleError("no memory")

    monkeypatch.setattr(service_module, "RETRY_SECONDS", 0.0)
    write_release(versions, Release("2"))
    with monkeypatch.context() as patch:
        patch.setattr(service_module, "load_model", no_memory)
        for _ in range(3):
            service.refresh()
    assert service.fault == "no memory"
    assert len([r for r in logged.records if r.levelno >= logging.ERROR]) == 1
    service.refresh()
    assert answer(service)[0] == "2"


def test_what_is_loaded_stays_good_though_its_files_are_gone(versions: Path) -> None:
    write_release(versions, Release("1", "2", "canary", 1.0))
    service = ModelService(ModelSource(versions))
    service.load()
    shutil.rmtree(versions / "1")
    write_release(versions, Release("1"))
    service.refresh()
    assert service.rollout.candidate is None
    assert answer(service)[0] == "1"
    assert "no version '1'" in service.fault


def test_a_release_that_is_only_touched_is_no_other(versions: Path) -> None:
    write_release(versions, Release("1"))
    news = News()
    service = ModelService(ModelSource(versions), news)
    service.load()
    os.utime(versions / FILE_NAME)
    service.refresh()
    write_release(versions, Release("1"))
    service.refresh()
    assert len(news.rollouts) == 1


@pytest.mark.parametrize(
    "alter",
    [
        lambda m: m["features"][2].update(name="calls"),
        lambda m: m["features"][1].update(nullable=False),
        lambda m: m.update(classes=m["classes"][::-1]),
    ],
    ids=["another feature", "no null", "classes in another order"],
)
def test_a_candidate_that_callers_would_break_on_is_left_out(
    versions: Path, alter: Callable[[dict], None]
) -> None:
    change(versions / "2", alter)
    write_release(versions, Release("1", "2", "canary", 1.0))
    service = ModelService(ModelSource(versions))
    assert service.rollout.candidate is None
    assert service.fault.startswith("The candidate 2 is ignored: ")


def test_a_checkpoint_that_is_another_version_than_its_directory_says_is_refused(
    tmp_path: Path,
) -> None:
    (tmp_path / "2").mkdir()
    torch.save(foreign_checkpoint(), tmp_path / "2" / "model.pt")  # it says 7
    service = ModelService(ModelSource(tmp_path, feature_names=("a", "b", "c", "d")))
    with pytest.raises(ModelUnavailable, match="its directory says '2'"):
        service.current()


# Canary


def rollout(versions: Path, traffic: float) -> Rollout:
    write_release(versions, Release("1", "2", "canary", traffic))
    return ModelService(ModelSource(versions)).rollout


def test_a_canary_answers_its_share_of_callers_and_each_caller_stays_on_one_side(
    versions: Path,
) -> None:
    keys = [f"caller-{number}" for number in range(4000)]
    sides = {}
    for traffic in (0.0, 0.1, 0.5, 1.0):
        chosen = rollout(versions, traffic)
        sides[traffic] = {key for key in keys if chosen.choose(key).version == "2"}
        again = rollout(versions, traffic)
        assert sides[traffic] == {key for key in keys if again.choose(key).version == "2"}
        assert len(sides[traffic]) == pytest.approx(traffic * len(keys), abs=120)
    assert sides[0.1] < sides[0.5]  # who tries a candidate goes on to try it when its traffic grows
    write_release(versions, Release("1", "3", "canary", 0.1))
    other = ModelService(ModelSource(versions)).rollout
    assert sides[0.1] != {key for key in keys if other.choose(key).version == "3"}
    assert not sides[0.0]
    assert len(sides[1.0]) == len(keys)


def test_a_version_can_be_pinned_if_it_is_loaded(versions: Path) -> None:
    chosen = rollout(versions, 0.5)
    assert chosen.pinned("1").version == "1"
    assert chosen.pinned("2").version == "2"
    with pytest.raises(VersionNotLoaded, match=r"'3' of example is not loaded; loaded: 1, 2"):
        chosen.pinned("3")


def test_the_manifest_of_the_versions_differs_only_where_it_should(versions: Path) -> None:
    """The tests above rely on it."""
    manifests = [json.loads((versions / v / "manifest.json").read_text()) for v in ("1", "2")]
    assert manifests[0]["features"] == manifests[1]["features"]
    answers = [golden_arrays(versions / v)["output_0"] for v in ("1", "2")]
    assert not np.array_equal(*answers)
