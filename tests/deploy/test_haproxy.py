"""The configuration of HAProxy goes with the settings of the instances behind it."""

from __future__ import annotations

import re

import pytest

from app.settings import Settings
from tests.deploy.conftest import settings_in_image
from trials.haproxy import CONFIGURATION
from trials.rolling_restart import Options

TEXT = CONFIGURATION.read_text()
UNITS = {"ms": 0.001, "s": 1.0}


def seconds(words: str) -> float:
    """Return the time that stands behind ``words``."""
    [(number, unit)] = re.findall(rf"^ +[^#\n]*\b{words} (\d+)(ms|s)\b", TEXT, re.MULTILINE)
    return int(number) * UNITS[unit]


@pytest.fixture(scope="module")
def settings() -> Settings:
    """The settings in force in a container."""
    return settings_in_image({})


def test_a_slow_client_is_held_up_for_as_long_as_by_lantern(settings: Settings) -> None:
    assert seconds("timeout http-request") == settings.server.headers_timeout_seconds
    assert seconds("timeout client") == settings.server.body_timeout_seconds


def test_idle_connections_are_ended_by_haproxy_and_not_by_lantern(settings: Settings) -> None:
    assert seconds("timeout http-keep-alive") < settings.server.keepalive_seconds


def test_an_instance_that_stops_serves_until_it_was_found_unready(settings: Settings) -> None:
    [fall] = re.findall(r"default-server .*\bfall (\d+)", TEXT)
    noticed = seconds("inter") * int(fall)
    assert noticed < Options().drain_seconds == settings.server.drain_seconds


def test_an_instance_is_sent_no_more_than_a_worker_takes(settings: Settings) -> None:
    [most] = re.findall(r"default-server .*\bmaxconn (\d+)", TEXT)
    assert int(most) <= settings.limits.max_connections
