"""A route is declared once, at its view, and everything that needs to know it reads it there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Blueprint, Flask, Response
from marshmallow import Schema, fields

from app import blueprints
from app.access.guard import OPEN, Access
from app.access.keys import METRICS, create_key
from app.blueprints import health
from app.http.body import reply
from app.http.handlers import predict as predict_handler
from app.http.routes import Description, Route, RouteTable, declare, declared, route
from app.telemetry import metrics
from tests.conftest import ROOT


class BuildSchema(Schema):
    build = fields.String(required=True)


def add(extra: Blueprint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make applications register one more blueprint."""
    register = blueprints.init_app

    def register_all(app: Flask) -> None:
        register(app)
        app.register_blueprint(extra)

    monkeypatch.setattr(blueprints, "init_app", register_all)


@pytest.fixture
def make_extended(
    monkeypatch: pytest.MonkeyPatch, make_app: Callable[..., Flask]
) -> Callable[..., Flask]:
    """Make applications that have one more view."""
    extra = Blueprint("extra", __name__)

    @route(
        extra,
        *("/build", "/models/<name>/build"),
        access=Access(METRICS, opened_by="open_metrics"),
        description=Description("Which build this is", "Service", BuildSchema()),
    )
    def build(name: str = "first") -> Response:
        return reply(BuildSchema(), {"build": name})

    add(extra, monkeypatch)
    return make_app


def test_a_route_without_a_rate_limit_still_requires_its_scope(
    monkeypatch: pytest.MonkeyPatch, make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    extra = Blueprint("extra", __name__)

    @route(extra, "/build", access=Access(METRICS, is_rate_limited=False))
    def build() -> Response:
        return reply(BuildSchema(), {"build": "first"})

    add(extra, monkeypatch)
    keys = tmp_path / "keys.json"
    right, wrong = (create_key(keys, name, scopes=[name])[1] for name in ("metrics", "predict"))
    guarded = {"ACCESS__AUTH": "keys", "ACCESS__KEYS_FILE": str(keys), "LIMITS__RATE": "1/day"}
    client = make_app(**guarded).test_client()
    for _ in range(3):
        assert client.get("/build").status_code == 401
        assert client.get("/build", headers={"X-API-Key": wrong}).status_code == 403
        assert client.get("/build", headers={"X-API-Key": right}).status_code == 200


def test_who_may_ask_is_said_at_the_view(
    make_extended: Callable[..., Flask], tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    right, wrong = (create_key(keys, name, scopes=[name])[1] for name in ("metrics", "predict"))
    guarded = {"ACCESS__AUTH": "keys", "ACCESS__KEYS_FILE": str(keys)}
    client = make_extended(**guarded).test_client()
    for path in ("/build", "/models/campaign-response/build", "/models/another/build"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"X-API-Key": wrong}).status_code == 403
        assert client.get(path, headers={"X-API-Key": right}).status_code == 200
    opened = make_extended(**guarded, ACCESS__OPEN_METRICS="true").test_client()
    assert opened.get("/build").get_json() == {"build": "first"}


def test_the_document_describes_it(make_extended: Callable[..., Flask]) -> None:
    document = make_extended().test_client().get("/openapi.json").get_json()
    operation = document["paths"]["/build"]["get"]
    assert operation["summary"] == "Which build this is"
    assert operation["operationId"] == "build"
    content = operation["responses"]["200"]["content"]["application/json"]
    assert content["schema"] == {"$ref": "#/components/schemas/Build"}
    assert document["components"]["schemas"]["Build"]["required"] == ["build"]
    by_name = document["paths"]["/models/{name}/build"]["get"]
    assert by_name["operationId"] == "build_by_name"
    assert by_name["summary"] == f"{operation['summary']} (model by name)"
    assert by_name["parameters"][0]["schema"]["enum"] == ["campaign-response"]


def test_the_fast_path_answers_what_has_a_handler_and_nothing_else(app: Flask) -> None:
    handlers = {
        rule: each.handler for each in declared(app).values() if each.handler for rule in each.rules
    }
    assert handlers["/predict"] is handlers["/models/<name>/predict"] is predict_handler
    assert handlers.keys() == {
        *("/predict", "/models/<name>/predict"),
        *("/predict/batch", "/models/<name>/predict/batch"),
        *("/v2/models/<name>/infer", "/v2/models/<name>/versions/<version>/infer"),
        *("/predictions/<name>", "/predictions/<name>/<version>"),
    }


def test_a_path_with_a_version_is_found_as_one_without(app: Flask) -> None:
    table = RouteTable(app, app.extensions["lantern"].services)
    app.extensions["lantern"].default_service.load()
    for path in ("/v2/models/campaign-response/infer", "/v2/models/campaign-response/ready"):
        found = table.find(path)
        pinned = table.find(path.replace("-response", "-response/versions/versions"))
        assert found is not None
        assert pinned is not None
        assert (found.route, found.service) == (pinned.route, pinned.service)
        assert (found.is_pinned, pinned.is_pinned) == (False, True)
    assert table.find("/v2/models/another/versions/1/infer") is None
    assert table.find("/v2/models/campaign-response/versions/1") is not None
    assert table.find("/v2/models/campaign-response/versions/1/2/infer") is None


def test_every_path_without_a_name_has_one_with_a_name(app: Flask) -> None:
    """What the first model answers, each answers under its name."""
    rules = {rule.rule for rule in app.url_map.iter_rules()}
    for path in ("/predict", "/predict/batch"):
        assert {path, f"/models/<name>{path}"} <= rules
    assert {"/model/info", "/models/<name>"} <= rules


def test_two_threads_may_add_the_paths_of_a_model_whose_name_becomes_known(app: Flask) -> None:
    class Service:
        """Its name becomes known, and another thread asks while this one reads it."""

        known = False
        reading = False

        @property
        def name(self) -> str:
            if self.known and not self.reading:
                self.reading = True
                assert table.find("/models/late/predict")
            return "late" if self.known else ""

    service = Service()
    table = RouteTable(app, [service])  # type: ignore[list-item]
    assert table.find("/models/late/predict") is None
    service.known = True
    found = table.find("/models/late/predict")
    assert found is not None
    assert found.service is service  # type: ignore[comparison-overlap]


def test_a_view_of_an_extension_is_declared_by_its_endpoint(app: Flask) -> None:
    other = Flask("other")
    declare(other, {"static": Route(Access(OPEN))})
    assert declared(other)["static"].access.scope == OPEN
    assert declared(app)["static"].access.scope == OPEN


def test_the_endpoint_that_the_documentation_adds_works(
    monkeypatch: pytest.MonkeyPatch, make_app: Callable[..., Flask]
) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    found = re.search(r"```python\n([^`]*class LoadedSchema.*?)```", page, re.DOTALL)
    assert found is not None
    extra = Blueprint("documented", __name__)
    names = vars(health) | {"blueprint": extra}
    exec(found[1], names)
    add(extra, monkeypatch)
    client = make_app().test_client()
    assert client.get("/health/models").get_json() == {"models": 1}
    document = client.get("/openapi.json").get_json()
    assert "Loaded" in document["components"]["schemas"]


def test_the_metric_that_the_documentation_adds_is_counted(app: Flask) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    declaration, method = re.findall(r"```python\n([^`]*_refresh[^`]*)```", page)
    own = app.extensions["lantern"].metrics
    names = dict(vars(metrics))
    exec(declaration, {"self": own})
    exec(method, names)
    names["cache_refreshed"](own, app.extensions["lantern"].default_service.loaded)
    counted = 'lantern_cache_refreshes_total{model="campaign-response",version="1"} 1.0'
    assert counted in app.test_client().get("/metrics").text
