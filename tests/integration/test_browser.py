"""The pages for people, in a real Chromium against real Gunicorns.

Screenshots are kept in ``artifacts/``; ``artifacts/page.png`` is the README's.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
from playwright.sync_api import Browser, Locator, Page, expect

from app.access.keys import PREDICT, create_key
from app.model.network import Network, save_checkpoint
from tests.conftest import BUNDLE
from tests.integration.browsing import ARTIFACTS, visit
from tests.integration.conftest import Server


@pytest.fixture(scope="module")
def worker_class() -> str:
    return "keepalive"  # what is tested here doesn't know the worker


BROWSER_ACCEPTS = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


def ask(server: Server, features: dict[str, float | None]) -> dict[str, Any]:
    """Ask the API itself."""
    response = requests.post(f"{server.url}/predict", json={"features": features}, timeout=120)
    assert response.status_code == 200, response.text
    return response.json()


def fields(page: Page) -> Locator:
    return page.get_by_role("spinbutton")


def type_values(page: Page, values: list[float | None]) -> None:
    """Go from field to field by Tab, from wherever the focus is, and type."""
    for index, value in enumerate(values):
        tab_to(page, fields(page).nth(index))
        page.keyboard.press("ControlOrMeta+A")
        page.keyboard.press("Delete")
        page.keyboard.type("" if value is None else str(value))


def tab_to(page: Page, wanted: Locator) -> None:
    for _ in range(20):
        if wanted.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the Tab key does not lead to {wanted}")


def shown(page: Page) -> dict[str, float]:
    """Wait for a prediction and give the probabilities that the page shows, by class."""
    expect(page.locator("#result .verdict")).to_be_visible()
    return page.locator("#result li").evaluate_all(
        """rows => Object.fromEntries(rows.map(
            row => [row.querySelector("span").textContent, +row.querySelector("data").value]))"""
    )


def by_class(answer: dict[str, Any], classes: list[str]) -> dict[str, float]:
    return dict(zip(classes, answer["probabilities"].values(), strict=True))


# The start page


def test_a_prediction_is_made_with_the_keyboard_alone(
    browser: Browser, server: Server, manifest: dict[str, Any]
) -> None:
    names = [feature["name"] for feature in manifest["features"]]
    values: list[float | None] = [23, 90273, 197, 18, 110.61, 32]
    answer = ask(server, dict(zip(names, values, strict=True)))
    with visit(browser, server) as page:
        type_values(page, values)
        page.keyboard.press("Enter")
        assert shown(page) == by_class(answer, manifest["classes"])
        expect(page.locator(".verdict")).to_have_text(answer["label"])
        expect(page.locator(".message:visible")).to_have_count(0)
        page.evaluate("document.activeElement.blur()")
        page.screenshot(path=ARTIFACTS / "page.png")


def test_the_button_is_reached_and_pressed_with_the_keyboard(
    browser: Browser, server: Server, sample: dict[str, float], manifest: dict[str, Any]
) -> None:
    """The form is filled with the model's example already."""
    with visit(browser, server) as page:
        tab_to(page, page.get_by_role("button", name="Predict"))
        page.keyboard.press("Space")
        assert shown(page) == by_class(ask(server, sample), manifest["classes"])


def test_each_bar_is_as_long_as_its_class_is_probable(browser: Browser, server: Server) -> None:
    with visit(browser, server) as page:
        page.get_by_role("button", name="Predict").click()
        probabilities = shown(page)
        lengths = page.locator("#result .fill").evaluate_all(
            "bars => bars.map(bar => bar.offsetWidth / bar.parentElement.offsetWidth)"
        )
        assert lengths == pytest.approx(list(probabilities.values()), abs=0.01)
        for row, p in zip(page.locator("#result li").all(), probabilities.values(), strict=True):
            expect(row).to_contain_text(f"{100 * p:.1f} %")


def test_a_blank_field_is_sent_as_null_where_the_model_accepts_null(
    browser: Browser, server: Server, sample: dict[str, float], manifest: dict[str, Any]
) -> None:
    nullable = [feature["name"] for feature in manifest["features"] if feature["nullable"]]
    assert nullable
    features = sample | dict.fromkeys(nullable)
    with visit(browser, server) as page:
        type_values(page, list(features.values()))
        page.keyboard.press("Enter")
        assert shown(page) == by_class(ask(server, features), manifest["classes"])


def test_a_blank_field_is_told_where_the_model_needs_a_number(
    browser: Browser, server: Server, sample: dict[str, float]
) -> None:
    with visit(browser, server) as page:
        type_values(page, [None, *list(sample.values())[1:]])
        page.keyboard.press("Enter")
        expect(fields(page).first).to_be_focused()
        expect(fields(page).first).to_have_attribute("aria-invalid", "true")
        expect(page.locator("#message-0")).not_to_be_empty()
        page.keyboard.type("35")
        expect(page.locator("#message-0")).to_be_hidden()
        page.keyboard.press("Enter")
        assert shown(page)


def test_a_value_outside_the_range_of_training_is_served_and_told_at_its_field(
    browser: Browser, server: Server, sample: dict[str, float], manifest: dict[str, Any]
) -> None:
    age = manifest["features"][0]
    features = sample | {age["name"]: age["maximum"] + 27}
    with visit(browser, server, viewport={"width": 390, "height": 844}) as page:
        type_values(page, list(features.values()))
        page.keyboard.press("Enter")
        assert shown(page) == by_class(ask(server, features), manifest["classes"])
        told = re.compile(r"Outside the range seen in training \(\d+ to \d+\)")
        expect(fields(page).first).to_have_accessible_description(told)
        expect(page.locator(".message:visible")).to_have_count(1)
        expect(page.locator("#result")).to_contain_text("Outside the range seen in training")
        expect(page.locator("#result")).to_be_in_viewport()
        page.evaluate("document.activeElement.blur()")
        page.screenshot(path=ARTIFACTS / "page-phone.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, "it scrolls sideways"


def test_a_refused_value_is_told_at_its_field_and_can_be_mended(
    browser: Browser, server: Server
) -> None:
    with visit(browser, server, refused="/predict", color_scheme="dark") as page:
        type_values(page, [44, 1e39])
        page.keyboard.press("Enter")
        income = fields(page).nth(1)
        expect(income).to_be_focused()
        expect(income).to_have_attribute("aria-invalid", "true")
        expect(income).to_have_accessible_description(re.compile("Must be finite as a 32-bit"))
        expect(page.get_by_role("alert")).to_contain_text("/features/income must be finite")
        page.screenshot(path=ARTIFACTS / "page-refused-dark.png", full_page=True)
        type_values(page, [44, 50000])
        page.keyboard.press("Enter")
        assert shown(page)
        expect(page.get_by_role("alert")).to_be_hidden()
        page.evaluate("document.activeElement.blur()")
        page.screenshot(path=ARTIFACTS / "page-dark.png", full_page=True)


def test_a_server_out_of_reach_is_told(browser: Browser, server: Server) -> None:
    with visit(browser, server, refused="/predict") as page:
        page.route("**/predict", lambda route: route.abort("connectionrefused"))
        page.get_by_role("button", name="Predict").click()
        expect(page.get_by_role("alert")).to_contain_text("can't be reached")
        page.unroute("**/predict")
        page.get_by_role("button", name="Predict").click()
        assert shown(page)


def test_an_answer_that_is_no_json_is_told_by_its_status(browser: Browser, server: Server) -> None:
    """A proxy in between may answer with a page of its own."""
    with visit(browser, server, refused="/predict") as page:
        page.route("**/predict", lambda route: route.fulfill(status=502, body="<h1>Bad</h1>"))
        page.get_by_role("button", name="Predict").click()
        expect(page.get_by_role("alert")).to_have_text("The server answered with status 502.")


def test_reset_brings_the_examples_back_and_takes_the_prediction_away(
    browser: Browser, server: Server, sample: dict[str, float]
) -> None:
    with visit(browser, server) as page:
        type_values(page, [101])
        page.keyboard.press("Enter")
        assert shown(page)
        tab_to(page, page.get_by_role("button", name="Reset"))
        page.keyboard.press("Enter")
        expect(page.locator("#result .verdict")).to_have_count(0)
        expect(page.locator(".message:visible")).to_have_count(0)
        assert float(fields(page).first.input_value()) == next(iter(sample.values()))


def test_a_prediction_is_called_old_once_a_value_changes(browser: Browser, server: Server) -> None:
    with visit(browser, server) as page:
        page.get_by_role("button", name="Predict").click()
        assert shown(page)
        expect(page.locator("#stale")).to_be_hidden()
        type_values(page, [45])
        expect(page.locator("#stale")).to_be_visible()
        page.keyboard.press("Enter")
        expect(page.locator("#stale")).to_be_hidden()


def test_the_page_shows_the_models_card(
    browser: Browser, server: Server, manifest: dict[str, Any]
) -> None:
    with visit(browser, server) as page:
        expect(page.get_by_role("heading", level=1)).to_contain_text(manifest["name"])
        expect(page.get_by_text(manifest["description"])).to_be_visible()
        for index, feature in enumerate(manifest["features"]):
            name = f"{feature['name']} {feature['unit']}"
            expect(fields(page).nth(index)).to_have_accessible_name(name)
            least, most = feature["minimum"], feature["maximum"]
            seen = f"{least:,.10g} to {most:,.10g} in training"
            expect(fields(page).nth(index)).to_have_accessible_description(
                re.compile(re.escape(feature["description"]) + r"\s*" + re.escape(seen))
            )
        card = page.get_by_role("region", name="Model")
        expect(card).to_contain_text("ONNX Runtime on cpu")
        expect(card).to_contain_text(", ".join(manifest["classes"]))
        training = page.get_by_role("region", name="Training")
        for name in manifest["training"]:
            expect(training).to_contain_text(name.replace("_", " "))


def test_the_links_of_the_page_lead_somewhere(browser: Browser, server: Server) -> None:
    with visit(browser, server) as page:
        links = page.locator("nav a, link[rel=icon]").evaluate_all("all => all.map(a => a.href)")
        for url in links:
            assert requests.get(url, timeout=120).status_code == 200, url
        for path in ("/docs", "/openapi.json", "/metrics", "/health"):
            assert server.url + path in links


def test_programs_get_json_where_browsers_get_the_page(server: Server) -> None:
    for accept, expected in (
        (BROWSER_ACCEPTS, "text/html"),
        ("text/html", "text/html"),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("text/html;q=0.5, application/json", "application/json"),
        (None, "application/json"),
    ):
        response = requests.get(server.url, headers={"Accept": accept}, timeout=120)
        assert response.headers["Content-Type"].split(";")[0] == expected, accept
        assert "Accept" in response.headers["Vary"]


def test_the_page_says_that_no_model_is_loaded_and_why(
    browser: Browser, start: Callable[..., Server]
) -> None:
    server = start("-w", "1", MODEL__PATH="/nonexistent")
    with visit(browser, server) as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("No model is loaded")
        expect(page.get_by_role("alert")).to_contain_text("/nonexistent")
        expect(page.get_by_role("link", name="API docs")).to_be_visible()
        expect(fields(page)).to_have_count(0)
        page.screenshot(path=ARTIFACTS / "page-no-model.png")


HOSTILE_FEATURES = (
    "\"quoted\" & 'single'",
    "<b>bold</b><img src=x onerror=alert(1)>",
    "a/b~c",
    "Größe, 測定 100%",
    "__proto__",
    "</form></script><script>alert(2)</script>",
)
HOSTILE_CLASSES = ("<i>nein</i>", "\"ja\" & 'oui' \U0001f980")


@pytest.fixture(scope="module")
def hostile(start: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """The bundled model, under names and figures that would break a careless page."""
    bundle = tmp_path_factory.mktemp("hostile") / "1"
    shutil.copytree(BUNDLE, bundle)
    path = bundle / "manifest.json"
    document = json.loads(path.read_text())
    for feature, name in zip(document["features"], HOSTILE_FEATURES, strict=True):
        feature |= {"name": name, "description": f"<u>{name}</u>", "unit": "<s>%</s>"}
    document["classes"] = list(HOSTILE_CLASSES)
    document["description"] = "{{ 7 * 7 }} <script>alert(3)</script>"
    document["training"] = {
        "<script>alert(4)</script>": "</dl><img src=x onerror=alert(5)>",
        "nothing": None,
        "flags": {"on": True, "off": False},
        "empty": [{}, [], {"a": {}, "b": []}],
        "objects": {"a": {"b": {"c": {"d": {"e": [1, {"f": "<hr>"}]}}}}},
        "items": {"keys": 1, "values": [], "items": {}},
        "curve": [0.5 / (1 + step) for step in range(1000)],
        "rows": [{"x": 1, "y": [1, 2]}, {"y": "<hr>"}, 3],
        "sizes": [1e300, -0.0, 1e-9, 123456789],
    }
    path.write_text(json.dumps(document))
    return start("-w", "1", MODEL__PATH=str(bundle))


def test_hostile_names_are_shown_as_they_are_and_inject_nothing(
    browser: Browser, hostile: Server
) -> None:
    with visit(browser, hostile) as page:
        for index, name in enumerate(HOSTILE_FEATURES):
            expect(fields(page).nth(index)).to_have_accessible_name(f"{name} <s>%</s>")
        expect(page.get_by_text("{{ 7 * 7 }}")).to_be_visible()
        expect(page.get_by_role("region", name="Training")).to_contain_text("and 990 more")
        page.get_by_role("button", name="Predict").click()
        features = {
            name: float(field.input_value())
            for name, field in zip(HOSTILE_FEATURES, fields(page).all(), strict=True)
        }
        answer = ask(hostile, features)
        assert shown(page) == by_class(answer, list(HOSTILE_CLASSES))
        expect(page.locator(".verdict")).to_have_text(answer["label"])
        expect(page.locator("main :is(b, i, u, s, hr, img, script)")).to_have_count(0)
        page.screenshot(path=ARTIFACTS / "page-hostile.png", full_page=True)


def test_warnings_and_refusals_find_fields_with_hostile_names(
    browser: Browser, hostile: Server
) -> None:
    with visit(browser, hostile, refused="/predict") as page:
        type_values(page, [1e6] * 6)
        page.keyboard.press("Enter")
        assert shown(page)
        expect(page.locator(".message:visible")).to_have_count(6)
        type_values(page, [1e39] * 6)
        page.keyboard.press("Enter")
        expect(page.locator("input[aria-invalid]")).to_have_count(6)
        expect(fields(page).first).to_be_focused()


def test_a_bare_checkpoint_of_many_classes_works(
    browser: Browser, start: Callable[..., Server], tmp_path: Path
) -> None:
    """It has no examples, ranges, units or figures: only names."""
    torch.manual_seed(0)
    save_checkpoint(Network(1, 4, 12), "1", tmp_path / "model.pt")
    classes = [f"kind {index}" for index in range(12)]
    server = start(
        "-w",
        "1",
        MODEL__PATH=str(tmp_path / "model.pt"),
        MODEL__FEATURE_NAMES="size",
        MODEL__CLASS_NAMES=",".join(classes),
    )
    with visit(browser, server) as page:
        type_values(page, [1.5])
        page.keyboard.press("Enter")
        probabilities = shown(page)
        assert probabilities == by_class(ask(server, {"size": 1.5}), classes)
        assert list(probabilities.values()) == sorted(probabilities.values(), reverse=True)
        more = page.get_by_text("4 more")
        tab_to(page, more)
        page.keyboard.press("Enter")
        expect(page.locator("#result li").last).to_be_visible()


def test_the_page_runs_and_loads_nothing_but_its_own_files(server: Server) -> None:
    """Its policy allows no inline script or style, and it has none."""
    response = requests.get(server.url, headers={"Accept": "text/html"}, timeout=120)
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "unsafe" not in response.headers["Content-Security-Policy"]
    assert not re.search(r"<script(?![^>]* src=)|<style|\s(style|on\w+)=|https?:", response.text)


# Keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def guarded(start: Callable[..., Server], keys: Path) -> Server:
    """A server that requires keys, and lets everybody see its pages."""
    return start(
        *("-w", "1"),
        ACCESS__AUTH="keys",
        ACCESS__KEYS_FILE=str(keys),
        ACCESS__OPEN_PAGE="true",
        ACCESS__OPEN_DOCS="true",
    )


@pytest.fixture(scope="module")
def key(keys: Path) -> str:
    return create_key(keys, "visitor", [PREDICT])[1]


def test_the_page_asks_for_a_key_where_one_is_required_and_keeps_it_nowhere(
    browser: Browser, guarded: Server, key: str
) -> None:
    with visit(browser, guarded, refused="/predict") as page:
        field = page.get_by_label("API key")
        page.get_by_role("button", name="Predict").click()
        expect(field).to_be_focused()
        expect(page.locator("#key-message")).to_be_visible()
        field.fill(f"{key}x")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("unknown or was revoked")
        expect(field).to_be_focused()
        page.screenshot(path=ARTIFACTS / "page-key-refused.png")
        field.fill(key)
        page.keyboard.press("Enter")
        assert shown(page)
        expect(page.get_by_role("alert")).to_be_hidden()
        page.get_by_role("button", name="Reset").click()
        expect(field).to_have_value(key)
        kept = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]")
        assert kept == [0, 0, ""]
        assert page.evaluate("location.href") == f"{guarded.url}/"
        page.reload()
        expect(field).to_have_value("")


def test_the_page_for_a_key_fits_on_a_phone_and_links_to_what_is_open(
    browser: Browser, guarded: Server
) -> None:
    with visit(browser, guarded, viewport={"width": 390, "height": 844}) as page:
        expect(page.get_by_label("API key")).to_be_visible()
        links = page.locator("nav a").evaluate_all("all => all.map(a => new URL(a.href).pathname)")
        assert links == ["/docs", "/openapi.json", "/health"]
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.screenshot(path=ARTIFACTS / "page-key-phone.png", full_page=True)


def test_the_documentation_takes_a_key_and_sends_it(
    browser: Browser, guarded: Server, key: str
) -> None:
    with visit(
        browser, guarded, "/docs", refused="/predict", viewport={"width": 1280, "height": 1720}
    ) as page:
        block = page.locator("#operations-Prediction-predict")
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
        block.get_by_role("button", name="Execute").click()
        status = block.locator(".live-responses-table tbody .response-col_status")
        expect(status).to_contain_text("401")
        page.get_by_role("button", name="Authorize", exact=True).first.click()
        dialog = page.locator(".modal-ux")
        page.screenshot(path=ARTIFACTS / "docs-authorize.png")
        dialog.get_by_label("auth-bearer-value").fill(key)
        dialog.get_by_role("button", name="Apply credentials").first.click()
        dialog.get_by_role("button", name="Close").first.click()
        block.get_by_role("button", name="Execute").click()
        expect(status).to_contain_text("200")
        page.screenshot(path=ARTIFACTS / "docs-key.png")


# The documentation page


def test_the_documentation_shows_every_operation_with_a_current_swagger_ui(
    browser: Browser, server: Server
) -> None:
    document = requests.get(f"{server.url}/openapi.json", timeout=120).json()
    operations = [path for path, methods in document["paths"].items() for _ in methods]
    with visit(browser, server, "/docs") as page:
        expect(page.locator(".opblock")).to_have_count(len(operations))
        shown_paths = page.locator(".opblock-summary-path").all_inner_texts()
        assert sorted(path.replace("\u200b", "") for path in shown_paths) == sorted(operations)
        version = page.evaluate("versions.swaggerUI.version")
        assert version.split(".")[0] == "5"
        page.screenshot(path=ARTIFACTS / "docs.png", full_page=True)


@pytest.mark.parametrize("operation", ["predict", "predict_batch"])
def test_try_it_out_and_execute_give_a_prediction_without_typing(
    browser: Browser, server: Server, sample: dict[str, float], operation: str
) -> None:
    with visit(browser, server, "/docs", viewport={"width": 1280, "height": 1720}) as page:
        block = page.locator(f"#operations-Prediction-{operation}")
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
        block.get_by_role("button", name="Execute").click()
        live = block.locator(".live-responses-table")
        expect(live.locator("tbody .response-col_status")).to_have_text("200")
        body = json.loads(live.locator("tbody .highlight-code code").first.inner_text())
        answers = body["predictions"] if operation == "predict_batch" else [body]
        expected = ask(server, sample)["probabilities"]
        for answer in answers:
            assert answer["probabilities"] == pytest.approx(expected, abs=1e-6)
        page.screenshot(path=ARTIFACTS / f"docs-{operation}.png")


def test_the_documentation_works_where_no_model_is_loaded(
    browser: Browser, start: Callable[..., Server]
) -> None:
    server = start("-w", "1", MODEL__PATH="/nonexistent")
    with visit(browser, server, "/docs", viewport={"width": 390, "height": 844}) as page:
        expect(page.get_by_text("No model is loaded.").first).to_be_visible()
        expect(page.locator("#operations-Prediction-predict")).to_be_visible()
        page.screenshot(path=ARTIFACTS / "docs-no-model-phone.png")
