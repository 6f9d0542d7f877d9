"""What the tests of access share: the lines that it logged."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.conftest import _Lines


@pytest.fixture
def told() -> Iterator[_Lines]:
    """The lines that `app.access` logged in this test."""
    handler = _Lines()
    logger = logging.getLogger("lantern.access")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
