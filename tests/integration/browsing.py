"""A visit of a page in a browser, which also checks the page's traffic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page

from tests.conftest import ROOT

ARTIFACTS = ROOT / "artifacts"
"""Where screenshots are kept."""


class Addressed(Protocol):
    """A server, or a part of one: ``url`` is where its paths begin, without a slash at its end."""

    url: str


@contextmanager
def visit(
    browser: Browser, server: Addressed, path: str = "/", *, refused: str = "", **options: Any
) -> Iterator[Page]:
    """Open a page, and check at the end that no request left ``server``, that none failed and that
    the console stayed silent; requests for ``refused`` are meant to fail.
    """
    ARTIFACTS.mkdir(exist_ok=True)
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 860}} | options))
    asked: list[str] = []
    faults: list[str] = []

    def fault(url: str, what: str) -> None:
        if not refused or urlsplit(url).path != refused:
            faults.append(f"{url}: {what}")

    context.on("request", lambda request: asked.append(request.url))
    context.on("requestfailed", lambda request: fault(request.url, str(request.failure)))
    context.on(
        "response",
        lambda response: response.status >= 400 and fault(response.url, str(response.status)),
    )
    context.on(
        "console",
        lambda said: said.type in ("error", "warning") and fault(said.location["url"], said.text),
    )
    context.on("weberror", lambda error: faults.append(str(error.error)))
    context.on(
        "dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss())
    )
    page = context.new_page()
    page.set_default_timeout(120_000)
    try:
        page.goto(server.url + path)
        yield page
        page.wait_for_load_state("networkidle")
    finally:
        context.close()
    strangers = [url for url in asked if not url.startswith((f"{server.url}/", "data:", "blob:"))]
    assert asked, "the recording of requests doesn't work"
    assert not strangers
    assert not faults
