"""What stands in front: which requests are let in, how the others are refused, and headers.

Nearly everything is tested with the fast path and without: one guard is before both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.access.guard import ANY_KEY, OPEN
from app.access.keys import ADMIN, METRICS, PREDICT, create_key, revoke_key
from app.http.routes import access_by_rule
from tests.descriptors import open_files

Lines = Callable[[], list[dict[str, Any]]]
TYPES = "urn:lantern:problem:"
PATHS = ("/", "/predict", "/models", "/model/info", "/metrics", "/docs", "/openapi.json", "/nope")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture(params=["true", "false"], ids=["short", "flask"])
def guarded(
    request: pytest.FixtureRequest, make_app: Callable[..., Flask], keys: Path
) -> Callable[..., FlaskClient]:
    """Make clients of applications that require keys."""

    def make(**settings: str) -> FlaskClient:
        options = {"ACCESS__AUTH": "keys", "ACCESS__KEYS_FILE": str(keys)}
        options["SERVER__FAST_PATH"] = request.param
        return make_app(**options | settings).test_client()

    return make


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_every_route_declares_who_may_ask(app: Flask) -> None:
    """One that is forgotten takes an admin's key, which is safe and not meant."""
    rules = {rule.rule for rule in app.url_map.iter_rules()}
    assert dict(access_by_rule(app)).keys() == rules


def test_without_keys_required_nobody_is_asked(
    client: FlaskClient, sample: dict[str, float]
) -> None:
    for headers in ({}, bearer("nonsense"), bearer("a") | {"X-API-Key": "b"}):
        assert (
            client.post("/predict", json={"features": sample}, headers=headers).status_code == 200
        )


def test_a_key_opens_what_its_scope_is_for(
    guarded: Callable[..., FlaskClient], keys: Path, sample: dict[str, float]
) -> None:
    client = guarded()
    expected = {
        PREDICT: {"/predict": 200, "/model/info": 200, "/models": 200, "/metrics": 403},
        METRICS: {"/predict": 403, "/model/info": 403, "/models": 403, "/metrics": 200},
        ADMIN: {"/predict": 200, "/model/info": 200, "/models": 200, "/metrics": 200},
    }
    for scope, statuses in expected.items():
        _, key = create_key(keys, scope, [scope])
        for headers in (bearer(key), {"X-API-Key": key}, bearer(key) | {"X-API-Key": key}):
            for path, status in statuses.items():
                sent = {"json": {"features": sample}} if path == "/predict" else {}
                method = "POST" if sent else "GET"
                response = client.open(path, method=method, headers=headers, **sent)
                assert response.status_code == status, (scope, path)
        for path in ("/", "/docs", "/openapi.json"):
            assert client.get(path, headers=bearer(key)).status_code == 200
        assert client.get("/nope", headers=bearer(key)).status_code == 404


def test_without_a_key_there_is_nothing_to_see_but_health(
    guarded: Callable[..., FlaskClient],
) -> None:
    client = guarded()
    for path in PATHS:
        for method in ("GET", "POST", "HEAD", "OPTIONS", "DELETE", "BREW"):
            response = client.open(path, method=method)
            assert response.status_code == 401, (method, path)
            assert response.headers["WWW-Authenticate"] == 'Bearer realm="lantern"'
            if method == "HEAD":
                assert response.data == b""
            else:
                assert response.get_json()["type"] == TYPES + "unauthorized"
                assert response.headers["Content-Type"] == "application/problem+json"
    for path in ("/health", "/health/live", "/health/ready", "/static/page.css"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        *("/predict", "//predict", "/predict/", "predict", "/predict;x", "/./predict", "/PREDICT"),
        *("/models/campaign-response/predict", "//models//campaign-response/predict"),
        *("/models/other/predict", "/%70redict", "/predict\0", "/predict\xe9"),
    ],
)
def test_no_way_of_writing_a_path_leads_past_the_scope(
    guarded: Callable[..., FlaskClient], keys: Path, sample: dict[str, float], path: str
) -> None:
    client = guarded()
    _, key = create_key(keys, "prometheus", [METRICS])
    # As a server gives it: the client would take what follows two slashes for a host.
    asked = {"json": {"features": sample}, "environ_overrides": {"PATH_INFO": path}}
    assert client.post("/", **asked).status_code == 401
    response = client.post("/", **asked, headers=bearer(key))
    assert response.status_code in (403, 404, 405, 308)
    assert b"probabilities" not in response.data


def test_the_guard_and_flask_agree_on_the_rule_of_every_path(
    guarded: Callable[..., FlaskClient], keys: Path
) -> None:
    """A key for predictions alone: what Flask would answer as metrics is refused as such."""
    client = guarded()
    _, key = create_key(keys, "caller", [PREDICT])
    for path in ("/metrics", "//metrics", "///metrics"):
        # As a server gives it: the client would take the second for a host.
        response = client.get("/", headers=bearer(key), environ_overrides={"PATH_INFO": path})
        assert response.status_code == 403, path


def test_a_route_that_nobody_thought_of_takes_an_admins_key(
    make_app: Callable[..., Flask], keys: Path
) -> None:
    app = make_app(ACCESS__AUTH="keys", ACCESS__KEYS_FILE=str(keys))
    app.add_url_rule("/added", view_func=lambda: "secret")
    _, key = create_key(keys, "caller", [PREDICT, METRICS])
    _, admins = create_key(keys, "admin", [ADMIN])
    client = app.test_client()
    assert client.get("/added").status_code == 401
    assert client.get("/added", headers=bearer(key)).status_code == 403
    assert client.get("/added", headers=bearer(admins)).text == "secret"


@pytest.mark.parametrize(
    ("method", "path", "takes"),
    [
        ("POST", "/predict", True),
        ("POST", "//predict", True),
        ("POST", "/added", True),
        ("POST", "/added/7", True),
        ("GET", "/added", False),
        ("PUT", "/added", False),
        ("PUT", "//predict", False),
        ("POST", "/nope", False),
        ("POST", "/models/nope/predict", False),
    ],
)
def test_a_body_that_is_still_to_arrive_is_received_if_a_view_may_read_it(
    make_app: Callable[..., Flask], method: str, path: str, takes: bool
) -> None:
    """Otherwise the view would find an empty body, depending on how it is cut into packets."""
    app = make_app()
    for rule in ("/added", "/added/<number>"):
        app.add_url_rule(rule, rule, view_func=str, methods=["GET", "POST"])
    environ = app.test_request_context(method=method).request.environ | {"PATH_INFO": path}
    assert app.extensions["lantern"].may_send_body(environ) is takes


def test_what_is_wrong_with_a_key_is_said(
    guarded: Callable[..., FlaskClient], keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import UTC, datetime, timedelta

    client = guarded()
    none = client.get("/models").get_json()
    assert "`python -m app key create NAME`" in none["detail"]
    _, key = create_key(keys, "caller", [PREDICT])
    assert "key create" not in client.get("/models").get_json()["detail"]
    past = datetime.now(UTC) - timedelta(days=1)
    _, old = create_key(keys, "old", [PREDICT], past)
    _, ended = create_key(keys, "ended", [PREDICT])
    revoke_key(keys, "ended")
    invalid = 'Bearer realm="lantern", error="invalid_token"'
    for headers, status, kind, detail, challenge in (
        (bearer("x"), 401, "unauthorized", "unknown or was revoked", invalid),
        (bearer(ended), 401, "unauthorized", "unknown or was revoked", invalid),
        (bearer(old), 401, "unauthorized", f"expired at {past:%Y-%m-%dT}", invalid),
        ({"Authorization": "Basic eDp5"}, 401, "unauthorized", "key is required", None),
        ({"Authorization": "Bearer"}, 401, "unauthorized", "key is required", None),
        # Spaces of HTTP stand around a value; those of other scripts belong to it.
        (bearer(f"{key}\xa0"), 401, "unauthorized", "is unknown", invalid),
        (bearer(f"\xa0{key}"), 401, "unauthorized", "is unknown", invalid),
        ({"X-API-Key": f"\x85{key}\xa0"}, 401, "unauthorized", "is unknown", invalid),
        (bearer(key) | {"X-API-Key": old}, 400, "two-keys", "different keys", "invalid_request"),
    ):
        response = client.get("/models", headers=headers)
        document = response.get_json()
        assert (response.status_code, document["status"]) == (status, status)
        assert document["type"] == TYPES + kind
        assert detail in document["detail"]
        if challenge:
            assert challenge in response.headers["WWW-Authenticate"]
        assert not [text for text in (key, old, ended) if text in response.text]
    forbidden = client.get("/metrics", headers=bearer(key))
    assert "scope metrics" in forbidden.get_json()["detail"]
    assert 'error="insufficient_scope", scope="metrics"' in forbidden.headers["WWW-Authenticate"]
    assert client.get("/models", headers=bearer(f" {key}\t")).status_code == 200
    basic = {"Authorization": "Basic eDp5", "X-API-Key": key}
    assert client.get("/models", headers=basic).status_code == 200


def test_a_file_of_keys_that_can_not_be_read_is_answered_503(
    guarded: Callable[..., FlaskClient], keys: Path
) -> None:
    client = guarded()
    _, key = create_key(keys, "caller", [PREDICT])
    keys.write_text("{")
    for headers in ({}, bearer(key)):
        response = client.get("/models", headers=headers)
        assert response.status_code == 503
        assert response.get_json()["type"] == TYPES + "keys-unavailable"
        assert str(keys) not in response.text
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("setting", "opened"),
    [
        ("OPEN_METRICS", {"/metrics"}),
        ("OPEN_DOCS", {"/docs", "/openapi.json"}),
        ("OPEN_PAGE", {"/"}),
    ],
)
def test_settings_open_metrics_documentation_and_the_page(
    guarded: Callable[..., FlaskClient], setting: str, opened: set[str]
) -> None:
    client = guarded(**{f"ACCESS__{setting}": "true"})
    assert {path for path in PATHS if client.get(path).status_code == 200} == opened


@pytest.mark.parametrize(
    ("auth", "host", "status", "warned"),
    [
        ("auto", "127.0.0.1", 200, ""),
        ("auto", "::1", 200, ""),
        ("auto", "localhost", 200, ""),
        ("auto", "0.0.0.0", 401, "key create NAME"),
        ("auto", "lantern.example", 401, "key create NAME"),
        ("keys", "127.0.0.1", 401, "key create NAME"),
        ("none", "0.0.0.0", 200, "anyone who can reach it"),
        ("none", "127.0.0.1", 200, ""),
    ],
)
def test_keys_are_required_by_the_setting_or_by_the_address(
    make_app: Callable[..., Flask], auth: str, host: str, status: int, warned: str
) -> None:
    app = make_app(ACCESS__AUTH=auth, SERVER__HOST=host, ACCESS__KEYS_FILE="/nowhere/keys.json")
    assert app.test_client().get("/models").status_code == status
    warnings = app.extensions["lantern"].guard.warnings()
    assert warned in " ".join(warnings)
    assert len(warnings) == bool(warned)


@pytest.mark.parametrize(("auth", "warned"), [("auto", True), ("keys", False), ("none", False)])
def test_a_proxy_on_this_machine_is_warned_of(
    make_app: Callable[..., Flask], keys: Path, auth: str, warned: bool
) -> None:
    app = make_app(ACCESS__AUTH=auth, ACCESS__KEYS_FILE=str(keys), SERVER__PROXIES="1")
    warnings = " ".join(app.extensions["lantern"].guard.warnings())
    assert ("anyone who can reach the proxy" in warnings) is warned


def test_the_address_that_is_bound_wins_over_the_settings(
    make_app: Callable[..., Flask], keys: Path
) -> None:
    app = make_app(SERVER__HOST="0.0.0.0", ACCESS__KEYS_FILE=str(keys))
    guard = app.extensions["lantern"].guard
    guard.set_sockets(["/run/lantern.sock"])
    assert app.test_client().get("/models").status_code == 200
    guard.set_sockets([("127.0.0.1", 1), ("0.0.0.0", 2)])
    assert app.test_client().get("/models").status_code == 401


def test_a_server_that_tells_nothing_is_taken_at_its_name(make_app: Callable[..., Flask]) -> None:
    """Flask's own server, or Gunicorn without our configuration, on every address."""
    client = make_app(ACCESS__KEYS_FILE="/nowhere/keys.json").test_client()
    for name, status in (("127.0.0.1", 200), ("localhost", 200), ("0.0.0.0", 401)):
        response = client.get("/models", environ_overrides={"SERVER_NAME": name})
        assert response.status_code == status, name


def test_the_log_names_the_caller_and_never_a_key(
    guarded: Callable[..., FlaskClient], keys: Path, sample: dict[str, float], log_lines: Lines
) -> None:
    client = guarded()
    made, key = create_key(keys, "caller", [PREDICT])
    client.post("/predict", json={"features": sample}, headers=bearer(key))
    client.get("/metrics", headers=bearer(key))
    client.get("/health", headers=bearer(key))
    client.get("/models", headers={"X-API-Key": key[:-1] + "!"})
    lines = [line for line in log_lines() if line["message"] == "request"]
    assert [line["status"] for line in lines] == [200, 403, 200, 401]
    assert [line.get("caller") for line in lines] == [f"caller/{made.id}"] * 2 + [None] * 2
    assert [line["path"] for line in lines] == ["/predict", "/metrics", "/health", "/models"]
    assert key[20:-1] not in json.dumps(log_lines())


def test_a_refusal_names_the_path_as_flask_does(
    client: FlaskClient, guarded: Callable[..., FlaskClient]
) -> None:
    answers = [one.get("/caf%C3%A9/%FF").get_json() for one in (client, guarded())]
    assert [answer["status"] for answer in answers] == [404, 401]
    assert [answer["instance"] for answer in answers] == ["/café/\ufffd"] * 2


def test_a_refused_request_is_counted_by_its_route_and_keeps_its_id(
    guarded: Callable[..., FlaskClient],
) -> None:
    client = guarded(ACCESS__OPEN_METRICS="true")
    headers = {"X-Request-ID": "mine"}
    for path in ("/predict", "/models/campaign-response/predict", "/made-up"):
        response = client.post(path, json={}, headers=headers)
        assert response.headers["X-Request-ID"] == response.get_json()["request_id"] == "mine"
    text = client.get("/metrics").text
    for route in ("/predict", "/models/<name>/predict", "unmatched"):
        assert f'requests_total{{method="POST",route="{route}",status="401"}} 1.0' in text


# The rate


def test_a_caller_over_its_rate_is_refused_and_told_when_to_come_back(
    make_app: Callable[..., Flask], sample: dict[str, float]
) -> None:
    client = make_app(LIMITS__RATE="5/hour").test_client()
    body = {"features": sample}
    answers = [client.post("/predict", json=body) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    document = answers[-1].get_json()
    assert document["type"] == TYPES + "rate-limited"
    assert "rate limit of 5/hour is exceeded (limits.rate)" in document["detail"]
    assert 700 < int(answers[-1].headers["Retry-After"]) <= 720
    assert client.get("/nope").status_code == 429
    assert client.get("/health").status_code == 200
    other = {"REMOTE_ADDR": "10.1.2.3"}
    text = client.get("/metrics", environ_base=other).text
    assert 'lantern_http_requests_rejected_total{reason="rate"} 2.0' in text
    assert 'lantern_http_requests_total{method="POST",route="/predict",status="429"} 1.0' in text


def test_a_request_that_falls_through_to_flask_is_counted_once(
    make_app: Callable[..., Flask], sample: dict[str, float], log_lines: Lines
) -> None:
    client = make_app(LIMITS__RATE="3/hour").test_client()
    statuses = [client.post("/predict", json={"features": {}}).status_code for _ in range(4)]
    assert statuses == [400, 400, 400, 429]
    assert len([line for line in log_lines() if line["message"] == "request"]) == 4


def test_each_key_has_a_rate_of_its_own_wherever_it_is_used(
    guarded: Callable[..., FlaskClient], keys: Path
) -> None:
    client = guarded(LIMITS__RATE="2/hour")
    one, other = (create_key(keys, name, [PREDICT])[1] for name in ("one", "other"))
    for key in (one, other):
        statuses = [
            client.get("/models", headers=bearer(key), environ_base={"REMOTE_ADDR": address})
            for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3")
        ]
        assert [answer.status_code for answer in statuses] == [200, 200, 429]


def test_wrong_keys_count_for_the_address_that_shows_them(
    guarded: Callable[..., FlaskClient], keys: Path
) -> None:
    """And not for others behind it, whose keys are right: guesses are up against 256 bits."""
    client = guarded(LIMITS__RATE="2/hour")
    _, key = create_key(keys, "one", [PREDICT])
    guesses = [client.get("/models", headers=bearer("guess")).status_code for _ in range(4)]
    assert guesses == [401, 401, 429, 429]
    assert client.get("/models", headers=bearer(key)).status_code == 200


def test_callers_behind_a_proxy_are_told_apart(make_app: Callable[..., Flask]) -> None:
    client = make_app(LIMITS__RATE="1/hour", SERVER__PROXIES="1").test_client()

    def ask(forwarded: str) -> int:
        return client.get("/models", headers={"X-Forwarded-For": forwarded}).status_code

    assert [ask("1.1.1.1"), ask("2.2.2.2"), ask("9.9.9.9, 1.1.1.1")] == [200, 200, 429]


# Other origins

ORIGIN = "https://shop.example"
PREFLIGHT = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}


def test_without_origins_nothing_is_said_of_them(client: FlaskClient) -> None:
    response = client.get("/models", headers={"Origin": ORIGIN})
    assert not [name for name, _ in response.headers if name.startswith("Access-Control")]


def test_a_listed_origin_sees_answers_and_refusals_and_no_other_does(
    guarded: Callable[..., FlaskClient], keys: Path, sample: dict[str, float]
) -> None:
    client = guarded(ACCESS__CORS_ORIGINS=f"{ORIGIN},http://localhost:3000")
    _, key = create_key(keys, "page", [PREDICT])
    body = {"features": sample}
    for headers, status in ((bearer(key), 200), ({}, 401), (bearer("x"), 401)):
        response = client.post("/predict", json=body, headers={"Origin": ORIGIN} | headers)
        assert response.status_code == status
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        exposed = response.headers["Access-Control-Expose-Headers"]
        assert exposed == "X-Request-ID, X-Feature-Warnings, Retry-After"
        assert "Access-Control-Allow-Credentials" not in response.headers
    for origin in ("https://shop.example.evil", "https://SHOP.example", "null", ""):
        response = client.get("/models", headers=bearer(key) | {"Origin": origin})
        assert "Access-Control-Allow-Origin" not in response.headers
        assert "Origin" in response.headers.getlist("Vary")


def test_a_preflight_needs_no_key_and_says_what_may_be_sent(
    guarded: Callable[..., FlaskClient],
) -> None:
    client = guarded(ACCESS__CORS_ORIGINS=ORIGIN, RELEASE__ROUTING_HEADER="X-Customer")
    response = client.options("/predict", headers=PREFLIGHT)
    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    allowed = response.headers["Access-Control-Allow-Headers"].split(", ")
    assert {"Authorization", "X-API-Key", "Content-Type", "X-Customer"} <= set(allowed)
    assert "Inference-Header-Content-Length" in allowed
    stranger = client.options("/predict", headers=PREFLIGHT | {"Origin": "https://evil.example"})
    assert stranger.status_code == 401
    assert "Access-Control-Allow-Origin" not in stranger.headers


def test_any_origin_is_allowed_by_an_asterisk(guarded: Callable[..., FlaskClient]) -> None:
    client = guarded(ACCESS__CORS_ORIGINS="*")
    assert client.options("/predict", headers=PREFLIGHT).status_code == 204
    response = client.get("/models", headers={"Origin": "https://any.example"})
    assert response.headers["Access-Control-Allow-Origin"] == "*"


# Headers


def test_every_answer_tells_browsers_to_be_careful(
    guarded: Callable[..., FlaskClient], keys: Path, sample: dict[str, float]
) -> None:
    client = guarded()
    _, key = create_key(keys, "admin", [ADMIN])
    answers = [client.get(path, headers=bearer(key)) for path in (*PATHS, "/health", "/apidocs/")]
    answers += [client.get(path) for path in ("/static/page.css", "/models")]
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none';")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "Cache-Control" in answer.headers
    predicted = client.post("/predict", json={"features": sample}, headers=bearer(key))
    assert predicted.headers["X-Content-Type-Options"] == "nosniff"
    page = client.get("/", headers=bearer(key) | {"Accept": "text/html"})
    assert page.headers["Referrer-Policy"] == "no-referrer"


def test_no_file_stays_open_for_a_client_that_does_not_read_it(client: FlaskClient) -> None:
    for path in ("/static/page.css", "/docs/static/swagger-ui-bundle.js"):
        answer = client.get(path, buffered=False)
        names = {Path(target).name for target in open_files("self").values()}
        assert Path(path).name not in names
        assert len(answer.data) == answer.content_length > 1000
        etag = {"If-None-Match": answer.headers["ETag"]}
        assert (client.get(path, headers=etag).status_code, client.head(path).data) == (304, b"")
        part = client.get(path, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.data) == (206, answer.data[10:20])


def test_only_what_is_no_secret_may_be_kept_by_caches(client: FlaskClient) -> None:
    for path in ("/models", "/model/info", "/metrics", "/openapi.json", "/", "/docs", "/nope"):
        assert client.get(path).headers["Cache-Control"] == "no-store", path
    assert client.get("/static/page.css").headers["Cache-Control"] == "no-cache"


# The documentation of it


def test_the_document_describes_keys_only_where_they_are_required(
    client: FlaskClient, guarded: Callable[..., FlaskClient], keys: Path
) -> None:
    plain = client.get("/openapi.json").get_json()
    assert "securitySchemes" not in plain["components"]
    assert not re.search(r'"(401|403|429)"', json.dumps(plain))
    guarded_client = guarded(ACCESS__OPEN_DOCS="true", LIMITS__RATE="100/second")
    document = guarded_client.get("/openapi.json").get_json()
    assert document["components"]["securitySchemes"].keys() == {"bearer", "header"}
    guard = guarded_client.application.extensions["lantern"].guard
    for path, operations in document["paths"].items():
        need = guard.required_scope(path.replace("{", "<").replace("}", ">"))
        for operation in operations.values():
            statuses = operation["responses"].keys()
            assert ("security" in operation) is (need != OPEN), path
            assert ("401" in statuses) is (need != OPEN)
            assert ("403" in statuses) is (need not in (OPEN, ANY_KEY))
            assert ("429" in statuses) is (not path.startswith(("/health", "/v2/health", "/ping")))
