"""Under which prefix a request came: by the setting, by the server, and by proxies."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import __version__, create_app
from app.access.keys import METRICS, create_key
from app.http.prefix import BadPrefix, OutsidePrefix, PathPrefix
from app.http.request_head import head_of
from app.settings import load_settings
from app.settings.forms import parse_prefix

Lines = Callable[[], list[dict[str, Any]]]


def split(
    path: str,
    *,
    prefix: str = "",
    proxies: int = 0,
    mounted: str = "",
    forwarded: str | None = None,
) -> tuple[str, str] | type:
    """Split a path; where it is refused, by which class."""
    environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": mounted, "PATH_INFO": path}
    if forwarded is not None:
        environ["HTTP_X_FORWARDED_PREFIX"] = forwarded
    for _ in range(2):  # a head is looked at before its body arrives, and afterwards
        head = head_of(environ, PathPrefix(prefix, proxies))
    return type(head.outside) if head.outside else (environ["SCRIPT_NAME"], environ["PATH_INFO"])


@pytest.mark.parametrize(
    ("path", "rest"),
    [
        ("/lantern/health", "/health"),
        ("/lantern/", "/"),
        ("/lantern", "/"),
        ("/lantern//health", "//health"),
        ("/lantern/lantern/x", "/lantern/x"),
    ],
)
def test_the_prefix_is_taken_off_where_a_segment_ends(path: str, rest: str) -> None:
    assert split(path, prefix="/lantern") == ("/lantern", rest)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "/",
            "*",
            "/health",
            "/lanternhealth",
            "/lantern.health",
            "/lanter",
            "lantern/health",
        ),
        *("//lantern/health", "/LANTERN/health", "/./lantern/health", "/x/../lantern/health"),
    ],
)
def test_what_lacks_the_prefix_is_outside(path: str) -> None:
    assert split(path, prefix="/lantern") is OutsidePrefix


@pytest.mark.parametrize("prefix", ["", "/lantern"])
def test_a_server_that_has_split_the_path_itself_is_followed_and_checked(prefix: str) -> None:
    """Gunicorn without our configuration cuts at any byte."""
    for path, rest in (("/health", "/health"), ("", "/")):
        assert split(path, prefix=prefix, mounted="/lantern") == ("/lantern", rest)
    assert split("health", prefix=prefix, mounted="/lantern") is OutsidePrefix


@pytest.mark.parametrize(
    ("proxies", "forwarded", "found"),
    [
        (0, "/a", ""),
        (1, None, ""),
        (1, "", ""),
        (1, "/", ""),
        (1, "/a", "/a"),
        (1, "/a/", "/a"),
        (1, " /a/b.c-d_e~f\t", "/a/b.c-d_e~f"),
        (1, "/user/me@example.com", "/user/me@example.com"),
        (1, "/evil, /a", "/a"),
        (1, "<script>,/a", "/a"),
        (2, "/a", "/a"),  # by one of the two; the other strips nothing
        (2, "/evil, /a, /b/", "/a/b"),
        (2, "<script>, , /b", "/b"),
    ],
)
def test_what_was_stripped_is_what_our_own_proxies_say(
    proxies: int, forwarded: str | None, found: str
) -> None:
    assert split("/health", proxies=proxies, forwarded=forwarded) == (found, "/health")


def test_a_prefix_that_was_stripped_stands_before_the_one_that_was_left() -> None:
    options = {"prefix": "/lantern", "proxies": 1, "forwarded": "/apps"}
    assert split("/lantern/health", **options) == ("/apps/lantern", "/health")
    assert split("/health", **options) is OutsidePrefix


HOSTILE = (
    *("a", "//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)"),
    *("/a/../b", "/..", "/.", "/a//b", "/a//", "//", "/%2e%2e", "/a b", "/a?b", "/a#b", "/a;b"),
    *('/"><script>alert(1)</script>', "/'", "/{a}", "/a\n", "/a\r\nX: y", "/\x00", "/é", "/\xa0"),
    "/" + "a" * 200,
)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_prefix_is_refused(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"absolute path such as '/lantern'|exceeds the limit of 200"
    ):
        parse_prefix(text)
    assert split("/health", proxies=1, forwarded=text) is BadPrefix


# The application


def ask(client: FlaskClient, path: str, **variables: str) -> TestResponse:
    """Ask as a server does; a test client would take what follows two slashes for a host."""
    return client.get("/", environ_overrides={"PATH_INFO": path, **variables})


def make_client(**settings: str) -> FlaskClient:
    return create_app(load_settings({f"LANTERN_{k}": v for k, v in settings.items()})).test_client()


@pytest.fixture(scope="module")
def kept() -> FlaskClient:
    """A service whose paths arrive with the prefix, as Gunicorn is told of it."""
    return create_app(load_settings({"SCRIPT_NAME": "/lantern/"})).test_client()


@pytest.fixture(scope="module")
def stripped() -> FlaskClient:
    """A service behind a proxy that strips the prefix."""
    client = make_client(SERVER__PROXIES="1")
    client.environ_base["HTTP_X_FORWARDED_PREFIX"] = "/lantern"
    return client


@pytest.fixture(params=["kept", "stripped"])
def reach(request: pytest.FixtureRequest) -> Callable[..., TestResponse]:
    """Ask for a path as the client of either proxy knows it."""
    client = request.getfixturevalue(request.param)

    def get(path: str, **options: Any) -> TestResponse:
        sent = path.removeprefix("/lantern") if request.param == "stripped" else path
        return client.open(sent, **options)

    return get


def test_every_link_has_the_prefix(reach: Callable[..., TestResponse]) -> None:
    links = reach("/lantern/").get_json()
    assert links.pop("message").endswith(" /lantern/predict.")
    assert links.pop("version") == __version__
    for link in links.values():
        assert link.startswith("/lantern/")
        assert reach(link).status_code in (200, 405), link
    for page in ("/lantern/", "/lantern/docs"):
        html = reach(page, headers={"Accept": "text/html"}).text
        found = re.findall(r'(?:href|src|data-predict|data-openapi)="([^"#]+)"', html)
        assert len(found) > 3
        assert [link for link in found if not link.startswith("/lantern/")] == []
    # No scheme and host: those that the last proxy sent may not be the client's.
    for path in ("/docs/", "/apidocs/", "/apidocs", "/apidocs/index.html"):
        location = reach(f"/lantern{path}", headers={"Host": "inner:8000"}).location
        assert location in ("/lantern/docs", "/lantern/apidocs/")


def test_the_document_names_the_prefix_as_its_server(
    reach: Callable[..., TestResponse], stripped: FlaskClient
) -> None:
    assert reach("/lantern/openapi.json").get_json()["servers"] == [{"url": "/lantern"}]
    other = ask(stripped, "/openapi.json", HTTP_X_FORWARDED_PREFIX="/other").get_json()
    assert other["servers"] == [{"url": "/other"}]
    assert "servers" not in ask(stripped, "/openapi.json", HTTP_X_FORWARDED_PREFIX="").get_json()


def test_problems_and_logs_have_the_clients_path_and_metrics_the_route(
    reach: Callable[..., TestResponse], log_lines: Lines
) -> None:
    missing = reach("/lantern/nope").get_json()
    assert missing["instance"] == "/lantern/nope"
    assert missing["detail"] == "Not found: /lantern/nope"
    wrong = reach("/lantern/predict", method="POST", json={"features": {}})
    assert wrong.status_code == 400
    assert wrong.get_json()["instance"] == "/lantern/predict"
    assert [line["path"] for line in log_lines()] == ["/lantern/nope", "/lantern/predict"]
    text = reach("/lantern/metrics").text
    assert 'route="/predict",status="400"' in text
    assert "lantern/" not in text


def test_a_path_outside_the_prefix_is_answered_404(kept: FlaskClient) -> None:
    for path in ("/", "/health", "/lanternhealth", "/predict", "//lantern/health"):
        answer = ask(kept, path)
        assert answer.status_code == 404, path
        document = answer.get_json()
        assert document["type"] == "urn:lantern:problem:not-found"
        assert document["instance"] == path
        assert "begin with /lantern/ (server.prefix)" in document["detail"]
    assert kept.get("/lantern").get_json() == kept.get("/lantern/").get_json()
    assert 'route="unmatched",status="404"' in kept.get("/lantern/metrics").text


def test_a_hostile_prefix_is_answered_400_and_stands_in_no_page(stripped: FlaskClient) -> None:
    for forwarded in HOSTILE:
        answer = ask(stripped, "/docs", HTTP_X_FORWARDED_PREFIX=forwarded)
        assert answer.status_code == 400, forwarded
        assert answer.mimetype == "application/problem+json"
        assert answer.get_json()["detail"].startswith("X-Forwarded-Prefix ")


@pytest.mark.parametrize("fast_path", ["true", "false"])
def test_no_prefix_opens_what_takes_a_key(
    tmp_path: Path, sample: dict[str, float], fast_path: str
) -> None:
    """Whichever prefix a caller makes up, a path is let in by the rule that answers it."""
    keys = tmp_path / "keys.json"
    common = {
        "ACCESS__AUTH": "keys",
        "ACCESS__KEYS_FILE": str(keys),
        "SERVER__FAST_PATH": fast_path,
    }
    _, key = create_key(keys, "prometheus", [METRICS])
    tried = 0
    for settings in ({}, {"SERVER__PROXIES": "1"}, {"SERVER__PREFIX": "/lantern"}):
        client = make_client(**common, **settings)
        rules = [rule.rule for rule in client.application.url_map.iter_rules()]
        opened = ("/health", "/v2/health", "/ping", "/static/", "/docs/static/")
        paths = [rule for rule in rules if not rule.startswith(opened)]
        paths += ["/models/campaign-response/predict", "/predict/../health", "//predict", "/nope"]
        for path, (mounted, start), forwarded in product(
            paths,
            [("", ""), ("", "/lantern"), ("/health", ""), ("/lantern", ""), ("/static", "/x")],
            ["", "/", "/health", "/static", "/lantern", "/lantern/health", "/../health", "//"],
        ):
            asked = {
                "json": {"features": sample},
                "environ_overrides": {
                    "PATH_INFO": start + path,
                    "SCRIPT_NAME": mounted,
                    "HTTP_X_FORWARDED_PREFIX": forwarded,
                },
            }
            assert client.post("/", **asked).status_code == 401, asked
            tried += 1
            if "predict" in path:
                answer = client.post("/", **asked, headers={"X-API-Key": key})
                assert answer.status_code >= 400, asked
    assert tried > 1000
