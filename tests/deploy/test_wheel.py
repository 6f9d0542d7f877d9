"""The wheel, installed in an environment of its own: the command works in any directory."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import Distribution, distributions, packages_distributions
from pathlib import Path
from typing import Any

import onnx
import pytest
import requests
from onnx import TensorProto, helper
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from trove_classifiers import classifiers

from app import __version__
from app.client import DEFAULT_URL
from benchmarks.peers import read_pins
from tests.conftest import BUNDLE, ROOT
from tests.deploy.conftest import build_wheel, install, make_serving_environment
from tests.integration.conftest import free_port, wait_for
from tests.test_readme import README, blocks

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def environ_of(settings: Mapping[str, str]) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LANTERN_", "PYTHON"))}
    return clean | {"PATH": "/usr/bin:/bin"} | settings


@pytest.fixture
def lantern(python: Path, tmp_path: Path) -> Run:
    """Run the command in an empty directory: ``lantern("config", LANTERN_SERVER__PORT="1")``."""

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python.with_name("lantern"), *arguments],
            cwd=tmp_path,
            env=environ_of(settings),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return run


@pytest.fixture
def metadata(python: Path) -> Distribution:
    """What the installed wheel says of itself."""
    [site] = (python.parent.parent / "lib").glob("python*/site-packages")
    [installed] = distributions(name="lantern-serving", path=[str(site)])
    return installed


@contextmanager
def running(
    command: Sequence[str | Path], directory: Path, settings: Mapping[str, str], port: int
) -> Iterator[str]:
    """Run a service that listens on ``port``, give its address, and stop it by SIGTERM."""
    process = subprocess.Popen(command, cwd=directory, env=environ_of(settings))
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None
        with suppress(requests.ConnectionError):
            return requests.get(f"{url}/health/ready", timeout=120).ok
        return False

    try:
        wait_for(answers)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0


@contextmanager
def serving(python: Path, directory: Path, *arguments: str, **settings: str) -> Iterator[str]:
    """Serve from ``directory`` on one worker, and give the address."""
    port = free_port()
    options = (*arguments, "--port", str(port), "--workers", "1")
    command = [python.with_name("lantern"), "serve", *options]
    with running(command, directory, settings, port) as url:
        yield url


def ask(url: str, features: Mapping[str, Any]) -> dict[str, Any]:
    answer = requests.post(f"{url}/predict", json={"features": features}, timeout=120)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def softmax(tmp_path: Path) -> Path:
    """A network of another library, made with onnx alone: two numbers to two probabilities."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "softmax",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor("w", TensorProto.FLOAT, [2, 2], [1.0, 0.0, 0.0, 1.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "softmax.onnx"
    onnx.save(model, path)
    features = "".join(f'[[features]]\nname = "{name}"\n' for name in "ab")
    (tmp_path / "features.toml").write_text(f'name = "letters"\nclasses = ["a", "b"]\n{features}')
    (tmp_path / "samples.csv").write_text("a,b\n1,0\n0,1\n2,3\n")
    return path


def test_the_package_has_a_name_of_its_own_and_needs_neither_torch_nor_onnx(python: Path) -> None:
    program = (
        "import importlib.util as u, lantern_serving\n"
        "print([n for n in ('app', 'torch', 'onnx', 'lantern_serving') if u.find_spec(n)])\n"
        "print(type(lantern_serving.create_app().logger.handlers[0]).__name__)"
    )
    ran = subprocess.run(
        [python, "-P", "-c", program], env=environ_of({}), capture_output=True, check=True
    )
    assert ran.stdout.decode() == "['lantern_serving']\nLineHandler\n"


def test_the_example_is_served_from_an_empty_directory(
    python: Path, tmp_path: Path, sample: dict[str, Any]
) -> None:
    with serving(python, tmp_path) as url:
        assert sum(ask(url, sample)["probabilities"].values()) == pytest.approx(1, abs=1e-6)
        for path in ("/", "/docs/", "/openapi.json", "/static/page.css", "/metrics"):
            assert requests.get(f"{url}{path}", timeout=120).status_code == 200, path
        # The README's own, which a checkout can run under another name alone.
        [program] = [text for kind, text in blocks(README, "Quickstart") if kind == "python"]
        command = [python, "-P", "-c", program.replace(DEFAULT_URL, url)]
        ran = subprocess.run(
            command, cwd=tmp_path, env=environ_of({}), capture_output=True, check=True
        )
        assert sum(ast.literal_eval(ran.stdout.decode()).values()) == pytest.approx(1, abs=1e-6)
    assert not list(tmp_path.iterdir())


def test_a_bundle_is_served_by_its_path(
    python: Path, tmp_path: Path, sample: dict[str, Any]
) -> None:
    (tmp_path / "copied").symlink_to(BUNDLE)
    with serving(python, tmp_path, "copied") as url:
        assert ask(url, sample)["model_version"] == "1"


def test_a_model_is_packed_and_then_served_from_models(
    python: Path, lantern: Run, softmax: Path, tmp_path: Path
) -> None:
    """Packing needs torch, which the environment that serves does without."""
    [here] = {path for path in sys.path if path.endswith("site-packages")}
    packed = lantern(
        *("model", "pack", softmax.name, "--features", "features.toml"),
        *("--samples", "samples.csv", "--out", "models/letters/1"),
        PYTHONPATH=here,
    )
    assert packed.returncode == 0, packed.stderr
    promoted = lantern("model", "promote", "1")
    assert promoted.returncode == 0, promoted.stderr
    origins = json.loads(lantern("config", "--json").stdout)
    assert origins["model.path"] == {
        "value": str(tmp_path / "models" / "letters"),
        "origin": "./models",
    }
    with serving(python, tmp_path) as url:
        answer = ask(url, {"a": 0, "b": 0})
        assert list(answer["probabilities"].values()) == [0.5, 0.5]
        assert answer["model_version"] == "1"


def test_without_packages_for_packing_it_says_what_to_install(
    lantern: Run, softmax: Path, metadata: Distribution
) -> None:
    ran = lantern(
        *("model", "pack", softmax.name, "--features", "features.toml"),
        *("--samples", "samples.csv", "--out", "models/letters/1"),
    )
    assert ran.returncode == 1
    [extra] = re.findall(r"pip install 'lantern-serving\[(\w+)\]'", ran.stderr)
    wanted = [one for one in map(Requirement, metadata.requires or ()) if one.marker]
    names = {one.name for one in wanted if one.marker and one.marker.evaluate({"extra": extra})}
    assert names == {"torch", "onnx", "onnxscript"}


def test_several_models_are_served_by_the_names_of_their_directories(
    python: Path, lantern: Run, tmp_path: Path, sample: dict[str, Any]
) -> None:
    for name in ("one", "two"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "1").symlink_to(BUNDLE)
    with serving(python, tmp_path) as url:
        listed = requests.get(f"{url}/models", timeout=120).json()["models"]
        assert [each["name"] for each in listed] == ["one", "two"]
        assert ask(f"{url}/models/two", sample)["model_version"] == "1"
    (tmp_path / "models" / "two").rename(tmp_path / "models" / "t w o")
    ran = lantern("serve")
    assert ran.returncode == 1
    assert ran.stderr.startswith("Lantern can't start. The models in ./models are served by the ")
    assert lantern("key", "list").returncode == 0


def test_the_example_of_the_package_is_only_read(lantern: Run, python: Path) -> None:
    [package] = (python.parent.parent / "lib").glob("python*/site-packages/lantern_serving")
    assert lantern("model", "list").returncode == 0
    before = sorted(package.rglob("*"))
    refused = lantern("model", "promote", "1")
    assert refused.returncode == 1
    assert "LANTERN_MODEL__PATH=models/NAME" in refused.stderr
    assert sorted(package.rglob("*")) == before


def test_keys_are_kept_in_the_current_directory(lantern: Run, tmp_path: Path) -> None:
    made = lantern("key", "create", "shop")
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "config" / "keys.json").is_file()
    assert "shop" in lantern("key", "list").stdout


def test_messages_name_the_command_that_there_is(
    python: Path, lantern: Run, tmp_path: Path
) -> None:
    with serving(python, tmp_path, LANTERN_ACCESS__AUTH="keys") as url:
        refused = requests.get(f"{url}/models", timeout=120)
        [command] = re.findall(r"`lantern (key create NAME)`", refused.json()["detail"])
        key = lantern(*command.replace("NAME", "shop").split()).stdout.strip()
        headers = {"Authorization": f"Bearer {key}"}
        assert requests.get(f"{url}/models", headers=headers, timeout=120).status_code == 200


def test_the_command_describes_itself(lantern: Run) -> None:
    assert lantern("--version").stdout == f"Lantern {__version__}\n"
    listed = lantern("--help").stdout.partition("Commands:")[2]
    assert re.findall(r"^  (\w+)", listed, re.MULTILINE) == ["config", "key", "model", "serve"]
    assert "MODEL is a directory of versions, one bundle" in lantern("serve", "--help").stdout
    assert "_LANTERN_COMPLETE" in lantern(_LANTERN_COMPLETE="bash_source").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nowhere",), 2, "Path 'nowhere' does not exist."),
        (("--port", "x"), 2, "'x' is not a valid integer range."),
        (("--host", ""), 1, "Lantern can't start. Setting server.host = '' "),
    ],
)
def test_what_can_not_be_served_is_refused_in_a_sentence(
    lantern: Run, arguments: tuple[str, ...], code: int, message: str
) -> None:
    ran = lantern("serve", *arguments)
    assert (ran.returncode, "Traceback" in ran.stderr) == (code, False)
    assert message in ran.stderr


def test_what_gunicorn_is_told_beside_it_is_in_force_or_refused(lantern: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = lantern("serve", GUNICORN_CMD_ARGS=f"--bind 127.0.0.1:{port} --workers 1")
    assert ran.returncode == 1
    assert f"It can't listen on 127.0.0.1:{port}: Address already in use." in ran.stderr
    assert lantern("serve", GUNICORN_CMD_ARGS="--no-such-option").returncode == 2


def test_a_gunicorn_of_ones_own_serves_the_package(python: Path, tmp_path: Path) -> None:
    """As docs/configuration.md has it, in an empty directory: no wsgi.py, no gunicorn.conf.py."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    [shown] = re.findall(r"^gunicorn (-c .*)$", page, re.MULTILINE)
    port = free_port()
    command = [python, "-P", "-m", "gunicorn", *shlex.split(shown), "-w", "1"]
    with running([*command, "-b", f"127.0.0.1:{port}"], tmp_path, {}, port) as url:
        assert requests.get(f"{url}/model/info", timeout=120).status_code == 200


def test_a_file_of_settings_is_where_its_paths_begin(lantern: Run, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "lantern.toml").write_text('[access]\nkeys_file = "keys.json"\n')
    assert lantern("key", "create", "a", LANTERN_CONFIG="etc/lantern.toml").returncode == 0
    assert (tmp_path / "etc" / "keys.json").is_file()
    assert lantern("key", "create", "a", LANTERN_ACCESS__KEYS_FILE="mine.json").returncode == 0
    assert (tmp_path / "mine.json").is_file()


def test_the_wheel_takes_the_versions_that_are_pinned(metadata: Distribution) -> None:
    assert metadata.version == __version__
    ranges = {one.name.lower(): one.specifier for one in map(Requirement, metadata.requires or ())}
    files = ("requirements.txt", "requirements-onnx.txt", "requirements-dev.txt")
    pins = {name.lower(): pin for file in files for name, pin in read_pins(ROOT / file).items()}
    assert {name: pins[name] in allowed for name, allowed in ranges.items()} == dict.fromkeys(
        ranges, True
    )
    serving = {name.lower() for name in read_pins(ROOT / "requirements-onnx.txt")}
    assert serving <= ranges.keys()
    assert PYPROJECT["build-system"]["requires"] == [f"hatchling=={pins['hatchling']}"]


OF_THE_OWNER = {"transformers"}
"""Imported only to pack what was made with it, and so brought by whoever has that."""
NOT_IMPORTED = {"swagger-ui-py", "onnxscript"}
"""The first is a directory of files that are served, the second what torch exports to ONNX with."""


def test_what_the_package_imports_is_declared_and_nothing_else(metadata: Distribution) -> None:
    """What another package happens to bring may be gone with its next version."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "app").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {
        str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level
    }
    modules = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - OF_THE_OWNER
    owners = packages_distributions()
    imported = {canonicalize_name(owner) for module in modules for owner in owners[module]}
    declared = {canonicalize_name(Requirement(one).name) for one in metadata.requires or ()}
    assert imported == declared - NOT_IMPORTED


def test_the_wheel_says_what_it_is(metadata: Distribution) -> None:
    about = metadata.metadata
    assert about["Summary"] == PYPROJECT["project"]["description"]
    assert about["License-Expression"] == "Apache-2.0"
    assert about.get_all("License-File") == ["LICENSE"]
    assert metadata.read_text("licenses/LICENSE") == (ROOT / "LICENSE").read_text()
    assert about["Requires-Python"] == ">=3.11"
    assert about["Description-Content-Type"] == "text/markdown"
    assert about.get_payload() == README
    assert set(about.get_all("Classifier") or ()) <= classifiers


def test_a_checkout_can_be_installed_to_be_edited(tmp_path: Path) -> None:
    """As `pip install -e .` does: the command then runs what stands in the checkout."""
    out = tmp_path / "dist"
    python = make_serving_environment(tmp_path / "venv")
    install(build_wheel(ROOT, out, "wheel:editable"), python)

    def run(*command: str | Path) -> str:
        ran = subprocess.run(
            command, cwd=out, env=environ_of({}), stdout=subprocess.PIPE, text=True, check=True
        )
        return ran.stdout

    found = run(python, "-P", "-c", "import lantern_serving as package; print(package.__file__)")
    assert Path(found.strip()).resolve() == ROOT / "app" / "__init__.py"
    assert run(python.with_name("lantern"), "model", "list").startswith("VERSION")
