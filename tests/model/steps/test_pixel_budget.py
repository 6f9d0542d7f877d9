"""Threads decode as many pixels at once as the budget has; what waits comes in its order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from threading import Condition, Event, Thread

import pytest
from PIL import PngImagePlugin

from app.model.errors import InvalidSamples
from app.model.steps import image as images
from app.model.steps.declaration import Sample
from app.model.steps.limits import IMAGES_AT_ONCE
from app.model.steps.pixel_budget import PixelBudget
from tests.integration.conftest import wait_for
from tests.model.steps.test_image import encoder_of
from tests.step_models import PHOTO, PIXELS, picture


class Taker:
    """A thread that takes pixels from a budget, until it is told to give them back."""

    def __init__(self, budget: PixelBudget, pixels: int, most: int = 100) -> None:
        self.has = Event()
        self._give_back = Event()
        self._thread = Thread(target=self._go, args=(budget, pixels, most), daemon=True)
        before = len(budget._waiting)
        self._thread.start()
        wait_for(lambda: self.has.is_set() or len(budget._waiting) > before)

    def _go(self, budget: PixelBudget, pixels: int, most: int) -> None:
        with budget.take(pixels, most):
            self.has.set()
            assert self._give_back.wait(60)

    def end(self) -> None:
        self._give_back.set()
        self._thread.join(60)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_what_is_too_much_together_waits_and_keeps_its_turn(stack: ExitStack) -> None:
    budget = PixelBudget()
    first, second, third, fourth = (Taker(budget, pixels) for pixels in (60, 40, 60, 10))
    for taker in (first, second, third, fourth):
        stack.callback(taker.end)
    assert first.has.is_set()
    assert second.has.is_set()
    assert not third.has.is_set()
    second.end()
    assert not fourth.has.is_set(), "it came after one that waits, and would fit"
    first.end()
    assert third.has.wait(60)
    assert fourth.has.wait(60)


def test_one_that_is_larger_than_all_is_taken_alone() -> None:
    budget = PixelBudget()
    small, large = Taker(budget, 1), Taker(budget, 1000)
    assert not large.has.is_set()
    small.end()
    assert large.has.wait(60)
    large.end()


def test_one_that_gives_up_leaves_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = PixelBudget()
    first = Taker(budget, 100)

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Condition, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt), budget.take(1, 100):
            pass
    first.end()
    with budget.take(100, 100):
        pass


def test_a_worker_decodes_few_of_the_largest_images_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And those that can't be decoded keep no others waiting."""
    decoding: dict[int, object] = {}
    go_on = Event()
    load = PngImagePlugin.PngImageFile.load

    def slow(image: PngImagePlugin.PngImageFile) -> object:
        decoding[id(image)] = image
        assert go_on.wait(60)
        return load(image)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", slow)
    largest = picture(size=(100, 100))
    encoder = encoder_of(PHOTO, PIXELS, 10_000)

    def encode(data: bytes) -> None:
        try:
            encoder.encode([Sample(image=data)])
        except InvalidSamples:
            assert data != largest

    sent = [largest, largest[:-30], largest, largest[:-30], largest]
    threads = [Thread(target=encode, args=(data,), daemon=True) for data in sent]
    for thread in threads:
        thread.start()
    waiting = len(sent) - IMAGES_AT_ONCE
    wait_for(lambda: len(images._decoded._waiting) == waiting)
    assert len(decoding) == IMAGES_AT_ONCE
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert len(decoding) == len(sent)
    assert not images._decoded._taken
