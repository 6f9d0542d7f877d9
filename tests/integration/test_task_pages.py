"""The start page for models of every task and features of every kind, in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests import task_models
from tests.integration.browsing import ARTIFACTS, visit
from tests.integration.conftest import Server
from tests.task_models import CITIES, MIXED_SAMPLE, PLANS


@pytest.fixture(scope="module")
def worker_class() -> str:
    return "keepalive"  # what is tested here doesn't know the worker


@pytest.fixture
def serve(start: Callable[..., Server], tmp_path: Path) -> Callable[..., Server]:
    """Serve a model of `task_models`."""

    def serving(kind: str, **options: Any) -> Server:
        out = getattr(task_models, kind)(tmp_path / kind / "1", **options)
        return start("-w", "1", MODEL__PATH=str(out))

    return serving


def press_predict(page: Page) -> None:
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#result data").first).to_be_visible()


def numbers(page: Page) -> list[float]:
    """The exact numbers that the page shows."""
    found: list[float] = page.locator("#result data").evaluate_all("all => all.map(d => +d.value)")
    return found


def test_each_kind_of_feature_has_its_control_and_is_sent_as_its_type(
    browser: Browser, serve: Callable[..., Server]
) -> None:
    server = serve("mixed")
    with visit(browser, server) as page:
        city, plan, member = (page.get_by_label(name) for name in ("city", "plan", "member"))
        assert city.locator("option").all_inner_texts() == list(CITIES)
        assert plan.locator("option").all_inner_texts() == list(PLANS)
        city.select_option("Zürich")
        plan.select_option("pro")
        member.select_option("no")
        page.get_by_label("visits").fill("9007199254740993")  # no number of JavaScript holds it
        page.get_by_label("comment").fill("<b>new</b>")
        page.get_by_label("floor").fill("")
        with page.expect_request("**/predict") as sent:
            press_predict(page)
        page.screenshot(path=ARTIFACTS / "page-mixed.png")
        changed = {"city": "Zürich", "plan": "pro", "member": False, "comment": "<b>new</b>"}
        body = sent.value.post_data_json
        exact = {"visits": 9007199254740993, "floor": None}
        assert body["features"] == MIXED_SAMPLE | changed | exact
        answer = requests.post(f"{server.url}/predict", json=body, timeout=60).json()
        assert numbers(page) == list(answer["probabilities"].values())
        page.get_by_label("city").select_option("Oslo")
        expect(page.locator("#stale")).to_be_visible()
        page.get_by_label("visits").fill("1.5")
        page.get_by_role("button", name="Predict").click()
        expect(page.get_by_label("visits")).to_have_attribute("aria-invalid", "true")


def test_a_regression_shows_its_number_with_the_unit(
    browser: Browser, serve: Callable[..., Server]
) -> None:
    with visit(browser, serve("regression")) as page:
        press_predict(page)
        expect(page.locator("#result")).to_have_text("price88.5 EUR")
        assert numbers(page) == [88.5]
        page.screenshot(path=ARTIFACTS / "page-regression.png")


def test_several_targets_and_scores_are_a_table(
    browser: Browser, serve: Callable[..., Server]
) -> None:
    with visit(browser, serve("regression", targets=("price", "rent"))) as page:
        press_predict(page)
        rows = page.locator("#result tbody tr").all_inner_texts()
        assert rows == ["price\t88.5 EUR", "rent\t177 EUR"]
    with visit(browser, serve("scores")) as page:
        press_predict(page)
        expect(page.locator(".verdict")).to_have_text("flat")
        expect(page.locator("#result tr.predicted")).to_have_count(1)
        assert numbers(page) == [0, -11.5, -23]


def test_labels_are_bars_and_those_that_apply_are_named(
    browser: Browser, serve: Callable[..., Server]
) -> None:
    with visit(browser, serve("multilabel")) as page:
        page.get_by_label("area").fill("120")
        press_predict(page)
        expect(page.locator(".verdict")).to_have_text("large, airy")
        expect(page.locator("#result li.predicted")).to_have_count(2)
        expect(page.locator("#result .fill")).to_have_count(3)
        page.get_by_label("area").fill("-900")
        press_predict(page)
        expect(page.locator(".verdict")).to_have_text("None")


def test_an_embedding_shows_its_length_and_first_numbers(
    browser: Browser, serve: Callable[..., Server]
) -> None:
    with visit(browser, serve("embedding")) as page:
        press_predict(page)
        expect(page.locator(".verdict")).to_have_text("16 numbers")
        assert numbers(page) == [88.5 * i for i in range(1, 13)]
        page.screenshot(path=ARTIFACTS / "page-embedding.png")
