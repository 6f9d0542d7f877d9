"""What all tests share: the bundled model, an application on it, and samples for it."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from app.model import isolation
from app.model.bundle import open_bundle
from app.model.golden import Golden
from app.settings import load_settings
from app.telemetry.logs import JsonFormatter
from tests.parallel import (  # noqa: F401 (hooks, which pytest looks for here)
    pytest_collection,
    pytest_collection_modifyitems,
    pytest_xdist_auto_num_workers,
    pytest_xdist_make_scheduler,
)

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "models" / "campaign-response" / "1"


# What a test says depends neither on chance (`make fuzz` takes it) nor on how fast the machine is.
hypothesis.settings.register_profile(
    "suite",
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("suite")


def without_coverage() -> dict[str, str]:
    """The environment for a process that is killed, and would leave half a file of coverage."""
    return {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}


def _run_here(function: Callable[..., Any], *arguments: Any, path: Path, limits: Any) -> Any:
    """Do what `app.model.isolation.run` does, without a process."""
    return json.loads(json.dumps(function(*arguments)))


@pytest.fixture(autouse=True)
def isolation_in_this_process(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spare tests a start of Python and torch a file, but those that are marked isolated."""
    if "isolated" not in request.keywords:
        monkeypatch.setattr(isolation, "run", _run_here)


@pytest.fixture(scope="session")
def manifest() -> dict[str, Any]:
    """The manifest of the bundled model, as it is written."""
    return json.loads((BUNDLE / "manifest.json").read_text())


@pytest.fixture(scope="session")
def golden() -> Golden:
    """The golden data of the bundled model."""
    found = open_bundle(BUNDLE).read_golden()
    assert found is not None
    return found


@pytest.fixture
def sample(manifest: dict[str, Any]) -> dict[str, float]:
    """A sample that the bundled model accepts."""
    return {feature["name"]: feature["example"] for feature in manifest["features"]}


@pytest.fixture
def make_app() -> Callable[..., Flask]:
    """Make applications whose settings differ from the defaults: ``make_app(LIMITS__X="1")``."""

    def make(**settings: str) -> Flask:
        return create_app(load_settings({f"LANTERN_{k}": v for k, v in settings.items()}))

    return make


@pytest.fixture(scope="session")
def app() -> Flask:
    """The application with default settings."""
    return create_app(load_settings({}))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def post(client: FlaskClient) -> Callable[..., TestResponse]:
    """Post a value as JSON, or bytes as they are: ``post("/predict", value)``."""

    def send(path: str, body: Any, content_type: str = "application/json") -> TestResponse:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return client.post(path, data=data, content_type=content_type)

    return send


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@pytest.fixture
def log_lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Return the lines that the service logged in this test, as written in JSON."""
    handler = _Lines()
    # On each logger itself: making an application replaces the handlers of their parent.
    loggers = [logging.getLogger(f"lantern.{n}") for n in ("request", "prediction", "errors")]
    for logger in loggers:
        logger.addHandler(handler)
    yield lambda: handler.lines
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle, in a directory of versions; don't change it."""
    import numpy as np

    from app.packing.network import pack
    from tests.small_model import CLASSES, FEATURES, make_network

    out = tmp_path_factory.mktemp("models") / "example" / "1"
    golden = np.array([[30, 20_000, 1], [60, np.nan, 9], [300, 1e9, 0]], dtype=np.float32)
    pack(
        make_network(),
        out,
        name="example",
        version="1",
        features=FEATURES,
        classes=CLASSES,
        golden_samples=golden,
        training={"roc_auc": 0.8},
        documents={"README.md": b"# example\n"},
    )
    return out


@pytest.fixture
def bundle(packed: Path, tmp_path: Path) -> Path:
    """A copy of the small bundle, to be damaged."""
    return Path(shutil.copytree(packed, tmp_path / "example" / "1"))


@pytest.fixture(scope="session")
def three_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's directory of versions 1, 2 and 3, which answer differently; don't change it."""
    import numpy as np
    import torch

    from app.packing.network import pack
    from tests.small_model import CLASSES, FEATURES, make_network

    directory = tmp_path_factory.mktemp("lifecycle") / "example"
    golden = np.array([[30, 20_000, 1], [60, np.nan, 9], [300, 1e9, 0]], dtype=np.float32)
    network = make_network()
    for number in (1, 2, 3):
        pack(
            network,
            directory / str(number),
            name="example",
            version=str(number),
            features=FEATURES,
            classes=CLASSES,
            golden_samples=golden + number - 1,
            training={
                "rows": 100 * number,
                "cv": {"roc_auc": {"mean": round(0.8 + number / 100, 2)}},
            },
        )
        with torch.no_grad():
            network.classifier[-1].bias += torch.tensor([0.5, 0.0, -0.5])
    return directory


MANY = 200
"""The classes of `many_classes`."""


@pytest.fixture(scope="session")
def many_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a model with many classes, and three features; don't change it."""
    import numpy as np
    import torch

    from app.model.network import Network
    from app.packing.network import pack
    from tests.small_model import FEATURES

    directory = tmp_path_factory.mktemp("many") / "many"
    torch.manual_seed(11)
    pack(
        Network(len(FEATURES), 8, MANY),
        directory / "1",
        name="many",
        version="1",
        features=FEATURES,
        classes=[f"label {number}" for number in range(MANY)],
        golden_samples=np.array([[30, 2, 1], [60, np.nan, 9]], dtype=np.float32),
    )
    return directory


@pytest.fixture
def versions(three_versions: Path, tmp_path: Path) -> Path:
    """A copy of the three versions, to be released and damaged."""
    return Path(shutil.copytree(three_versions, tmp_path / "models" / "example"))
