"""A model's name in a real service, whose storage swaps links under it and is mounted late."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.conftest import BUNDLE
from tests.damage import edit_manifest
from tests.integration.conftest import Server, wait_for
from tests.telemetry.test_metrics import samples


def place_bundle(directory: Path, name: str, version: str) -> None:
    shutil.copytree(BUNDLE, directory)
    edit_manifest(directory, lambda manifest: manifest.update(name=name, version=version))


def swap(link: Path, target: str) -> None:
    """Lead a link elsewhere in one step, as git-sync and Kubernetes do."""
    link.with_name(".new").symlink_to(target)
    link.with_name(".new").rename(link)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Path], Server]]:
    servers: list[Server] = []

    def begin(path: Path) -> Server:
        settings = {"MODEL__PATH": str(path), "RELEASE__POLL_SECONDS": "0.05"}
        servers.append(Server(["-w", "2"], settings, tmp_path / f"log-{len(servers)}"))
        servers[-1].wait_until_up()
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


def by_all(server: Server, seen: Callable[[requests.Response], object]) -> set[object]:
    """Ask so often that each worker answers."""
    return {seen(requests.get(f"{server.url}/model/info", timeout=20)) for _ in range(16)}


def serves(server: Server, version: str) -> Callable[[], bool]:
    def version_of(response: requests.Response) -> object:
        return response.json().get("model_version")

    return lambda: by_all(server, version_of) == {version}


def labels(server: Server) -> set[str]:
    found = samples(requests.get(f"{server.url}/metrics", timeout=20).text)
    return {value for _, pairs in found for key, value in pairs if key == "model"}


def test_a_link_that_is_swapped_is_followed_and_names_nothing(
    start: Callable[[Path], Server], tmp_path: Path, sample: dict[str, float]
) -> None:
    link = tmp_path / "volume" / "current"
    server = start(link)
    # Each worker, however slow its start, has found nothing before there is something to find.
    wait_for(lambda: len({line["pid"] for line in server.lines("model not loaded")}) == 2)
    # Nothing is mounted yet: nobody can know the name, and no other is made up.
    assert by_all(server, lambda response: response.status_code) == {503}
    listed = requests.get(f"{server.url}/models", timeout=20).json()["models"]
    assert [each["name"] for each in listed] == [None]
    url = f"{server.url}/models/churn/predict"
    body = {"features": sample}
    assert requests.post(url, json=body, timeout=20).status_code == 503
    place_bundle(tmp_path / "volume" / "rev-a", "churn", "1")
    swap(link, "rev-a")
    wait_for(serves(server, "1"))
    assert {requests.post(url, json=body, timeout=20).status_code for _ in range(16)} == {200}
    assert labels(server) == {"churn", ""}
    # Another revision, whose manifest has another name: it serves under the one that was there.
    place_bundle(tmp_path / "volume" / "rev-b", "leavers", "2")
    swap(link, "rev-b")
    wait_for(serves(server, "2"))
    # So it does in a worker that begins only now.
    [first, second] = server.workers()
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: len(server.workers()) == 2 and first not in server.workers())
    wait_for(serves(server, "2"))
    assert by_all(server, lambda response: response.json()["name"]) == {"churn"}
    assert {requests.post(url, json=body, timeout=20).status_code for _ in range(16)} == {200}
    assert labels(server) == {"churn", ""}
    assert {line["model"] for line in server.lines("model loaded")} == {"churn"}
    told = [line for line in server.lines() if "another name" in line["message"]]
    assert {(line["model"], line["manifest"], line["level"]) for line in told} == {
        ("churn", "leavers", "WARNING")
    }
    assert second in {line["pid"] for line in told}
    server.stop()
    again = start(link)
    wait_for(serves(again, "2"))
    assert by_all(again, lambda response: response.json()["name"]) == {"leavers"}
    assert labels(again) == {"leavers"}
