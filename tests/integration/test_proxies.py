"""The service under a path prefix, behind real proxies: each strips the prefix, and leaves it.

What a browser asks for is held to lie under the prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin

import pytest
import requests
from playwright.sync_api import Browser, expect

from app.client import ModelClient
from tests.integration.browsing import ARTIFACTS, visit
from tests.integration.conftest import Server
from tests.integration.proxies import haproxy, nginx


@dataclass(frozen=True)
class Front:
    """A service as its clients see it; ``origin`` is the URL of the proxy, without the prefix."""

    name: str
    origin: str

    @property
    def url(self) -> str:
        return f"{self.origin}/lantern"


@pytest.fixture(scope="module")
def worker_class() -> str:
    return "keepalive"  # test_prefix.py has them all


@pytest.fixture(scope="module")
def services(start: Callable[..., Server]) -> tuple[int, int]:
    """The ports of a service whose prefix is stripped, and of one that is asked with it."""
    strips = start("-w", "1", SERVER__PROXIES="1")
    keeps = start("-w", "1", SERVER__PREFIX="/lantern")
    return strips.port, keeps.port


@pytest.fixture(scope="module", params=[nginx, haproxy], ids=lambda proxy: proxy.__name__)
def proxy(
    request: pytest.FixtureRequest,
    services: tuple[int, int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mapping[str, int]]:
    """The ports of a proxy, by what it does with the prefix."""
    with request.param(*services, tmp_path_factory.mktemp("proxy")) as ports:
        yield ports


@pytest.fixture(scope="module", params=["strips", "keeps"])
def front(request: pytest.FixtureRequest, proxy: Mapping[str, int]) -> Front:
    return Front(request.param, f"http://127.0.0.1:{proxy[request.param]}")


def test_documents_links_and_redirects_lead_where_they_say(
    front: Front, sample: dict[str, float]
) -> None:
    with requests.Session() as session:
        index = session.get(f"{front.url}/", timeout=120)
        links = index.json()
        document = session.get(urljoin(index.url, links["openapi"]), timeout=120)
        (server,) = document.json()["servers"]
        base = urljoin(document.url, server["url"])
        assert base == front.url
        gets = [p for p, methods in document.json()["paths"].items() if "get" in methods]
        for path in gets:
            concrete = path.replace("{name}", "campaign-response").replace("{version}", "1")
            assert session.get(base + concrete, timeout=120).status_code == 200, path
        for path in ("", "/docs/", "/apidocs", "/apidocs/index.html"):
            landed = session.get(front.url + path, timeout=120)
            assert landed.status_code == 200
            assert landed.url.rstrip("/") in (front.url, f"{front.url}/docs")
        # What a client says of itself counts for nothing.
        forged = session.get(f"{front.url}/", headers={"X-Forwarded-Prefix": "/x"}, timeout=120)
        assert forged.json() == links
        missing = session.get(f"{front.url}/nope", timeout=120)
        assert missing.json()["instance"] == "/lantern/nope"
        for path in ("/", "/health", "/lanternhealth"):
            assert session.get(front.origin + path, timeout=120).status_code == 404
    with ModelClient(front.url) as client:
        assert client.predict(sample)["model_version"] == "1"


def test_the_pages_work_in_a_browser(browser: Browser, front: Front) -> None:
    with visit(browser, front) as page:
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#result .verdict")).to_be_visible()
        page.screenshot(path=ARTIFACTS / f"prefix-{front.name}-page.png")
        page.get_by_role("link", name="API docs").click()
        block = page.locator("#operations-Prediction-predict")
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
        block.get_by_role("button", name="Execute").click()
        live = block.locator(".live-responses-table")
        expect(live.locator("tbody .response-col_status")).to_have_text("200")
        expect(block.locator(".request-url pre")).to_have_text(f"{front.url}/predict")
        page.screenshot(path=ARTIFACTS / f"prefix-{front.name}-docs.png", full_page=True)
