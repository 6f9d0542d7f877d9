"""The start page and the documentation for models of images and texts, in a real Chromium."""

from __future__ import annotations

import json
import subprocess
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, FilePayload, Page, expect

from app.access.keys import PREDICT, create_key
from app.model.code.request import HandlerRequest
from tests import step_models
from tests.handler_bundles import with_handler
from tests.integration.browsing import ARTIFACTS, visit
from tests.integration.conftest import Server

RED, GREEN = step_models.picture(size=(320, 240)), step_models.picture((10, 190, 60))
DROP = """([area, base64, name]) => {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type: "image/png" }));
    for (const type of ["dragenter", "dragover", "drop"]) {
        const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
        area.dispatchEvent(new DragEvent(type, options));
    }
}"""


@pytest.fixture(scope="module")
def worker_class() -> str:
    return "keepalive"  # what is tested here doesn't know the worker


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pages")
    step_models.images(root / "photos" / "1")
    step_models.texts(root / "topics" / "1")
    return root


@pytest.fixture
def photos(start: Callable[..., Server], models: Path) -> Server:
    return start("-w", "1", MODEL__PATH=str(models / "photos"))


@pytest.fixture
def topics(start: Callable[..., Server], models: Path) -> Server:
    return start("-w", "1", MODEL__PATH=str(models / "topics"))


def chosen(image: bytes = RED, name: str = "red.png") -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": image}


def press_predict(page: Page) -> None:
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#result data").first).to_be_visible()


def drop(page: Page, image: bytes, name: str) -> None:
    """Drop a file on the field of the image, as a mouse would."""
    area = page.locator(".drop").element_handle()
    page.evaluate(DROP, [area, b64encode(image).decode(), name])


def test_a_picture_is_chosen_or_dropped_shown_and_predicted(
    browser: Browser, photos: Server
) -> None:
    with visit(browser, photos) as page:
        preview = page.get_by_alt_text("The chosen image")
        expect(preview).to_be_hidden()
        page.get_by_label("Image").set_input_files(chosen())
        expect(preview).to_be_visible()
        press_predict(page)
        expect(page.locator(".verdict")).to_have_text("red")
        expect(page.locator("#result .fill")).to_have_count(3)
        answer = requests.post(
            f"{photos.url}/predict", RED, headers={"Content-Type": "image/png"}, timeout=60
        ).json()
        numbers = page.locator("#result data").evaluate_all("all => all.map(d => +d.value)")
        assert numbers == list(answer["probabilities"].values())
        page.screenshot(path=ARTIFACTS / "page-image.png", full_page=True)
        drop(page, GREEN, "green.png")
        expect(page.locator("#stale")).to_be_visible()
        press_predict(page)
        expect(page.locator(".verdict")).to_have_text("green")
        page.get_by_role("button", name="Reset").click()
        expect(preview).to_be_hidden()
        expect(page.locator(".verdict")).to_have_count(0)


def test_what_is_wrong_with_a_picture_is_told_at_its_field(
    browser: Browser, photos: Server
) -> None:
    with visit(browser, photos, refused="/predict") as page:
        field = page.get_by_label("Image")
        page.get_by_role("button", name="Predict").click()
        expect(field).to_have_attribute("aria-invalid", "true")  # the browser's own: none is chosen
        drop(page, b"no picture", "notes.png")
        expect(field).not_to_have_attribute("aria-invalid", "true")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator(".message.error")).to_have_text(
            "Is no image of these formats: JPEG, PNG, WEBP, BMP, GIF."
        )
        expect(field).to_be_focused()
        field.set_input_files(chosen())
        press_predict(page)
        expect(page.locator(".message.error")).to_have_count(0)


def test_a_sentence_is_predicted_with_the_keyboard_and_a_pair_may_be_left_out(
    browser: Browser, topics: Server
) -> None:
    with visit(browser, topics) as page:
        text, pair = page.get_by_label("Text", exact=True), page.get_by_label("Second text")
        text.focus()
        page.keyboard.type('where is my "parcel" <b>')
        with page.expect_request("**/predict") as sent:
            press_predict(page)
        assert sent.value.post_data_json == {"text": 'where is my "parcel" <b>'}
        pair.fill("cannot log in")
        with page.expect_request("**/predict") as sent:
            press_predict(page)
        assert sent.value.post_data_json["pair"] == "cannot log in"
        page.screenshot(path=ARTIFACTS / "page-text.png", full_page=True)


def test_a_text_that_is_too_long_is_told_at_its_field(
    browser: Browser, start: Callable[..., Server], models: Path
) -> None:
    path = str(models / "topics")
    server = start("-w", "1", MODEL__PATH=path, LIMITS__MAX_TEXT_CHARACTERS="60")
    with visit(browser, server, refused="/predict") as page:
        text = page.get_by_label("Text", exact=True)
        text.fill("x" * 61)
        page.get_by_role("button", name="Predict").click()
        expect(text).to_have_attribute("aria-invalid", "true")
        expect(page.locator(".message.error")).to_contain_text("limit of 60")


def test_a_key_is_sent_with_a_picture(
    browser: Browser, start: Callable[..., Server], models: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    _, key = create_key(keys, "page", [PREDICT])
    server = start(
        *("-w", "1"),
        MODEL__PATH=str(models / "photos"),
        ACCESS__AUTH="keys",
        ACCESS__KEYS_FILE=str(keys),
        ACCESS__OPEN_PAGE="true",
    )
    with visit(browser, server, refused="/predict") as page:
        page.get_by_label("API key").fill("wrong")
        page.get_by_label("Image").set_input_files(chosen())
        page.get_by_role("button", name="Predict").click()
        expect(page.get_by_label("API key")).to_have_attribute("aria-invalid", "true")
        page.get_by_label("API key").fill(key)
        press_predict(page)
        expect(page.locator(".verdict")).to_have_text("red")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_on_a_phone_in_both_schemes(
    browser: Browser, photos: Server, scheme: str
) -> None:
    size = {"width": 375, "height": 740}
    with visit(browser, photos, viewport=size, color_scheme=scheme) as page:
        page.get_by_label("Image").set_input_files(chosen())
        press_predict(page)
        page.screenshot(path=ARTIFACTS / f"page-image-phone-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 375


@pytest.fixture
def own(start: Callable[..., Server], tmp_path: Path) -> Server:
    """A service of a handler that was packed with a request in JSON."""
    with_handler(tmp_path / "own" / "1", ECHO, requests=[IN_JSON])
    return start("-w", "1", MODEL__PATH=str(tmp_path / "own"), MODEL__ALLOW_CODE="true")


@pytest.mark.parametrize("kind", ["photos", "topics", "own"])
def test_try_it_out_and_execute_give_a_prediction_without_typing(
    browser: Browser, kind: str, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue(kind)
    with visit(browser, server, "/docs/") as page:
        block = page.locator("#operations-Prediction-predict")
        block.locator(".opblock-summary").click()
        block.get_by_role("button", name="Try it out").click()
        with page.expect_response("**/predict*") as answered:
            block.get_by_role("button", name="Execute").click()
        assert answered.value.status == 200
        answer = answered.value.json()
        assert answer.get("top") or json.loads(answer["sent"]) == json.loads(IN_JSON.body)
        page.screenshot(path=ARTIFACTS / f"docs-{kind}.png")


ECHO = """
class Handler:
    def predict(self, request):
        return {"sent": request.body.decode("latin-1"), "as": request.content_type}
"""
IN_JSON = HandlerRequest(b'{"name": "it\'s <b>", "more": null}', "application/json")


@pytest.mark.parametrize(
    "sent",
    [
        IN_JSON,
        HandlerRequest('@file\n$HOME "größer"'.encode(), "text/plain; charset=utf-8"),
        HandlerRequest(RED[:200], "image/png"),
        HandlerRequest(b"\xff\0", "", parameters={"size": "2 & 3"}),
    ],
    ids=["json", "text", "image", "bytes"],
)
def test_the_page_of_a_handler_has_a_command_that_sends_its_golden_request(
    browser: Browser, start: Callable[..., Server], tmp_path: Path, sent: HandlerRequest
) -> None:
    path = with_handler(tmp_path / "own" / "1", ECHO, requests=[sent])
    server = start("-w", "1", MODEL__PATH=str(path.parent), MODEL__ALLOW_CODE="true")
    with visit(browser, server) as page:
        command, answer = page.locator("pre.command").all_inner_texts()
        assert page.locator("#card + dl dt").all_inner_texts() == ["Runtime", "Loaded"]
        page.screenshot(path=ARTIFACTS / "page-handler.png", full_page=True)
    expected = {"sent": sent.body.decode("latin-1"), "as": sent.content_type}
    assert json.loads(answer) == expected
    ran = subprocess.run(
        ["bash", "-c", f"{command} --silent --fail"], capture_output=True, check=True, timeout=60
    )
    assert json.loads(ran.stdout) == expected
