"""The image that the Dockerfile makes, built and run: `make image-test`, minutes of it, as root."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from app import __version__
from tests.conftest import ROOT
from tests.deploy.buildah import BASE, PROGRAMS, Buildah, buildah, run_beside, start_sealed
from tests.integration.conftest import free_port, wait_for

pytestmark = [
    pytest.mark.image,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="building an image takes root"),
    pytest.mark.skipif(
        not all(map(shutil.which, PROGRAMS)), reason="buildah or debootstrap is not installed"
    ),
]

MEGABYTES = {"onnx": 400, "torch": 1200}
SETTINGS = {
    "LANTERN_SERVER__WORKERS": "2",
    "LANTERN_SERVER__DRAIN_SECONDS": "0",
    "LANTERN_ACCESS__AUTH": "none",
}


@dataclass
class Image:
    """An image that was built, a container of it, and its files on this machine."""

    target: str
    buildah: Buildah
    config: dict[str, Any]
    container: str
    root: Path


@dataclass
class Running:
    """A container that runs: ``process`` started it, ``pid`` is its first process."""

    url: str
    process: subprocess.Popen[bytes]
    environ: dict[str, str]
    pid: int = 0

    def get(self, path: str) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=10)

    def wait_until(self, status: int) -> None:
        def answers() -> bool:
            assert self.process.poll() is None
            with contextlib.suppress(requests.ConnectionError):
                return self.get("/health/ready").status_code == status
            return False

        wait_for(answers, 90)

    def stop(self) -> int:
        """Send the signal to stop to the first process; give what the container ends with."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(20)


@pytest.fixture(scope="module")
def workshop() -> Iterator[Buildah]:
    with buildah() as built:
        built.make_base()
        yield built


@pytest.fixture(scope="module", params=MEGABYTES)
def image(request: pytest.FixtureRequest, workshop: Buildah) -> Image:
    name = workshop.build(request.param)
    container = workshop("from", "--pull-never", name)
    root = Path(workshop("mount", container))
    return Image(request.param, workshop, workshop.inspect(name), container, root)


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End what a test left running: buildah doesn't take its children with it."""
    try:
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def sealed(image: Image, **settings: str) -> Iterator[Running]:
    """Run the image's command with a read-only root, as user and with variables as it says."""
    port = free_port()
    environ = {**SETTINGS, **settings, "LANTERN_SERVER__PORT": str(port)}
    process = start_sealed(image.root, image.config, environ)
    with ended(process):
        running = Running(f"http://127.0.0.1:{port}", process, environ)
        running.pid = wait_for(lambda: first_child(process.pid))
        yield running


def first_child(pid: int) -> int:
    """Return the pid of the process that any thread of ``pid`` started first; 0 for none."""
    lists = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return min((int(child) for children in lists for child in children), default=0)


def gunicorn_below(pid: int) -> int:
    """Return the pid of the Gunicorn that a process started, itself or by others; 0 before that."""
    while pid := first_child(pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/exe").resolve().name.startswith("python"):
                return pid
    return 0


def status(pid: int, field: str) -> list[str]:
    [line] = [
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith(f"{field}:")
    ]
    return line.split()[1:]


def bytes_below(root: Path) -> int:
    command = ["du", "--summarize", "--bytes", "--one-file-system", str(root)]
    return int(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    )


def package_of(image: Image) -> Path:
    """Return where Lantern is installed."""
    return image.root / "opt/lantern/lib/python3.11/site-packages/lantern_serving"


def predict(running: Running, sample: dict[str, float]) -> dict[str, Any]:
    answer = requests.post(f"{running.url}/predict", json={"features": sample}, timeout=20)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_an_image_is_no_larger_than_it_may_be(
    image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    base = Path(image.buildah("mount", image.buildah("from", "--pull-never", BASE)))
    whole, below = bytes_below(image.root), bytes_below(base)
    libraries = bytes_below(image.root / "opt/lantern")
    package = bytes_below(package_of(image))
    directory = bytes_below(image.root / "lantern")
    with capsys.disabled():
        print(
            f"\n{image.target}: {whole / 1e6:.0f} MB unpacked: {below / 1e6:.0f} MB of the base, "
            f"{(libraries - package) / 1e6:.0f} MB of libraries, "
            f"{(package + directory) / 1e6:.1f} MB of Lantern and its models"
        )
    assert whole < MEGABYTES[image.target] * 1e6


def test_an_image_says_how_it_is_run(image: Image) -> None:
    config = image.config
    assert config["User"] == "10001:10001"
    assert config["WorkingDir"] == "/lantern"
    assert config["Cmd"] == ["lantern", "serve"]
    assert list(config["ExposedPorts"]) == ["8000/tcp"]
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == "Lantern"
    assert labels["org.opencontainers.image.version"] == __version__


def test_an_image_holds_what_it_needs_and_nothing_of_the_build(image: Image) -> None:
    packages = {
        path.name for path in image.root.glob("opt/lantern/lib/python3.11/site-packages/*/")
    }
    assert {"flask", "gunicorn", "lantern_serving", "onnxruntime"} <= packages
    assert ("torch" in packages) is (image.target == "torch")
    assert not packages & {"app", "hatchling", "pip", "pytest", "sklearn"}
    assert {path.name for path in (image.root / "lantern").iterdir()} == {"config", "models"}
    for left in ("etc/pip.conf", "root/.cache", "build", "opt/hatchling"):
        assert not (image.root / left).exists()


def test_every_module_of_lantern_is_compiled_once_and_only_root_may_change_it(image: Image) -> None:
    package = package_of(image)
    modules = list(package.rglob("*.py"))
    assert len(modules) == len(list((ROOT / "app").rglob("*.py")))
    compiled = [path.parent / "__pycache__" / f"{path.stem}.cpython-311.pyc" for path in modules]
    assert sorted(package.rglob("*.pyc")) == sorted(compiled)
    lantern = image.root / "lantern"
    for path in [package, *package.rglob("*"), lantern, *lantern.rglob("*")]:
        stat = path.stat()
        assert stat.st_uid == stat.st_gid == 0
        assert stat.st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


@contextlib.contextmanager
def run_by_buildah(image: Image, *options: str, **settings: str) -> Iterator[Running]:
    """Run the image's command by `buildah run`, with more of its options."""
    port = free_port()
    environ = {**SETTINGS, **settings, "LANTERN_SERVER__PORT": str(port)}
    variables = [word for name, value in environ.items() for word in ("--env", f"{name}={value}")]
    command = ["run", *options, *variables, image.container, "--", *image.config["Cmd"]]
    process = image.buildah.start(*command)
    with ended(process):
        yield Running(f"http://127.0.0.1:{port}", process, environ)


def test_a_container_predicts_as_its_user_and_stops_at_once(
    image: Image, sample: dict[str, float]
) -> None:
    with run_by_buildah(image) as running:
        running.wait_until(200)
        assert 0 < predict(running, sample)["probabilities"]["class_0"] < 1
        running.pid = gunicorn_below(running.process.pid)
        assert set(status(running.pid, "Uid")) == {"10001"}
        assert running.stop() == 0


def test_a_container_asks_for_a_key_that_the_same_image_makes(
    image: Image, tmp_path: Path, sample: dict[str, float]
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    os.chown(keys, 10001, 10001)
    volume, create = f"{keys}:/lantern/keys", ["lantern", "key", "create", "shop"]
    key = image.buildah("run", "--volume", volume, image.container, "--", *create)
    with run_by_buildah(image, "--volume", f"{volume}:ro", LANTERN_ACCESS__AUTH="auto") as running:
        running.wait_until(200)  # health is open
        body = {"features": sample}
        for headers, expected in (({}, 401), ({"Authorization": f"Bearer {key}"}, 200)):
            url = f"{running.url}/predict"
            answer = requests.post(url, json=body, headers=headers, timeout=20)
            assert answer.status_code == expected, answer.text
        running.pid = gunicorn_below(running.process.pid)
        assert running.stop() == 0


def test_a_container_serves_from_a_read_only_root_without_any_capability(
    image: Image, sample: dict[str, float]
) -> None:
    with sealed(image) as running:
        running.wait_until(200)
        assert predict(running, sample)["model_version"] == "1"
        assert 'status="200"' in running.get("/metrics").text
        assert status(running.pid, "NSpid")[-1] == "1"
        assert set(status(running.pid, "Uid")) == {"10001"}
        assert status(running.pid, "CapBnd") == ["0" * 16]
        assert status(running.pid, "NoNewPrivs") == ["1"]
        assert running.stop() == 0


def test_nothing_in_a_container_can_be_written_but_what_is_in_memory(image: Image) -> None:
    with sealed(image) as running:
        running.wait_until(200)

        def write(directory: str) -> bool:
            command = ["touch", f"{directory}/written"]
            return run_beside(running.pid, image.config, running.environ, command) == 0

        assert not any(map(write, ("", "/lantern", "/lantern/config", "/opt/lantern", "/var/tmp")))
        assert all(map(write, ("/tmp", "/dev/shm")))
        assert running.stop() == 0


def test_health_in_a_container_is_whether_it_can_predict(image: Image) -> None:
    [kind, *command] = image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    for version, expected in (("1", 200), ("99", 503)):
        with sealed(image, LANTERN_MODEL__VERSION=version) as running:
            running.wait_until(expected)
            healthy = run_beside(running.pid, image.config, running.environ, command) == 0
            assert healthy is (expected == 200)
            assert running.stop() == 0


def test_torch_serves_where_it_is_and_is_missed_in_a_sentence_where_it_is_not(
    image: Image, sample: dict[str, float]
) -> None:
    with sealed(image, LANTERN_MODEL__RUNTIME="torch") as running:
        if image.target == "torch":
            running.wait_until(200)
            assert predict(running, sample)["model_version"] == "1"
            assert 'runtime="torch"' in running.get("/metrics").text
        else:
            running.wait_until(503)
            assert "torch isn't installed: install" in running.get("/health").text
        assert running.stop() == 0


def test_a_request_that_is_under_way_is_answered_when_a_container_stops(
    image: Image, sample: dict[str, float]
) -> None:
    """The signal reaches Gunicorn, and not a shell that would end with its children left alone."""
    with sealed(image) as running:
        running.wait_until(200)
        body = f'{{"features": {sample}}}'.replace("'", '"').encode()

        def sent() -> Iterator[bytes]:
            yield body[:10]
            os.kill(running.pid, signal.SIGTERM)
            yield body[10:]

        headers = {"Content-Type": "application/json"}
        answer = requests.post(f"{running.url}/predict", sent(), headers=headers, timeout=20)
        assert answer.status_code == 200, answer.text
        assert running.process.wait(20) == 0
