"""The rate of a caller: exact in memory, shared in a real Redis, and there when Redis is not."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.access import rate as rates
from app.access.errors import RateLimited
from app.access.rate import MemoryStorage, RateLimiter, RedisStorage
from app.settings.forms import IN_MEMORY, Rate
from tests.access.redis import Redis
from tests.conftest import _Lines
from tests.integration.conftest import wait_for


class Clock:
    """The monotonic clock, for a test to turn on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.microseconds = 10**12
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.microseconds * 1000)

    def pass_by(self, seconds: float) -> None:
        self.microseconds += round(seconds * 1_000_000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def let_in(storage: rates.Storage, caller: str, rate: Rate, most: int = 10_000) -> int:
    """Count how many requests of a caller are let in before one is refused."""
    counted = itertools.takewhile(lambda _: storage.hit(caller, rate) == 0, range(most))
    return len(list(counted))


@pytest.mark.parametrize("text", ["1/second", "7/second", "100/second", "999/minute", "3/hour"])
def test_a_whole_rate_is_let_in_at_once_and_no_more(clock: Clock, text: str) -> None:
    rate = Rate.parse(text)
    storage = MemoryStorage()
    requests = int(text.partition("/")[0])
    assert let_in(storage, "a", rate) == requests
    assert let_in(storage, "b", rate) == requests, "callers are counted apart"
    clock.pass_by(rate.interval / 1e6)
    assert let_in(storage, "a", rate) == 1
    clock.pass_by(86400)
    assert let_in(storage, "a", rate) == requests, "no more is saved up than the rate"


def test_the_wait_that_is_told_is_the_one_that_is_needed(clock: Clock) -> None:
    storage, rate = MemoryStorage(), Rate.parse("4/minute")
    assert let_in(storage, "a", rate) == 4
    clock.pass_by(2.5)
    assert storage.hit("a", rate) == 12_500_000
    clock.pass_by(12.499999)
    assert storage.hit("a", rate) == 1
    clock.pass_by(0.000001)
    assert storage.hit("a", rate) == 0


def test_seconds_to_wait_are_whole_and_never_zero(clock: Clock) -> None:
    limit = RateLimiter(Rate.parse("4/minute"))
    for _ in range(4):
        limit.hit("a")
    for passed, told in ((0, "15"), (0.5, "15"), (14.4, "1")):
        clock.pass_by(passed)
        with pytest.raises(RateLimited, match="rate limit of 4/minute") as refused:
            limit.hit("a")
        assert refused.value.headers == (("Retry-After", told),)


def test_what_is_remembered_of_callers_is_bounded(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "_MAX_CALLERS", 100)
    storage, rate = MemoryStorage(), Rate.parse("1/hour")
    for number in range(1000):
        storage.hit(str(number), rate)
    assert len(storage._times) == 100
    assert storage.hit("999", rate) > 0


def test_no_rate_is_no_limit() -> None:
    assert RateLimiter.from_settings("", IN_MEMORY) is None


@pytest.mark.parametrize(
    "text", ["0/second", "100", "/second", "1.5/second", "1/fortnight", "-1/second", "1/second\n"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match='such as "100/second"'):
        Rate.parse(text)


# Redis


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    yield server
    server.kill()


def test_redis_counts_as_memory_does_and_for_all_together(redis: Redis) -> None:
    one, other = RedisStorage(redis.url), RedisStorage(redis.url)
    rate = Rate.parse("50/hour")
    took = [(one, other)[number % 2].hit("a", rate) for number in range(52)]
    assert took[:50] == [0] * 50
    assert all(71e6 < wait <= 72e6 for wait in took[50:])
    assert one.hit("b", rate) == 0


def test_redis_forgets_callers_that_have_used_up_nothing(redis: Redis) -> None:
    storage = RedisStorage(redis.url)
    assert storage.hit("a", Rate.parse("1/second")) == 0
    gone, for_ever = -2, -1
    left = redis.client.pttl("lantern:rate:a")
    assert left == gone or for_ever < left <= 1000
    wait_for(lambda: not redis.client.keys())


def test_a_time_from_before_the_clock_was_set_back_holds_up_nobody(redis: Redis) -> None:
    redis.client.set("lantern:rate:a", (time.time() + 7200) * 1e6)
    assert let_in(RedisStorage(redis.url), "a", Rate.parse("3/minute")) == 3


def test_without_redis_each_counts_for_itself_until_it_is_back(
    redis: Redis, told: _Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "_AWAY_SECONDS", 0.2)
    storage, rate = RedisStorage(redis.url), Rate.parse("5/hour")
    assert let_in(storage, "a", rate) == 5
    redis.kill()
    assert let_in(storage, "a", rate) == 5, "neither everything nor nothing"
    time.sleep(0.25)  # so that it is asked in vain once more
    assert storage.hit("a", rate) > 0
    assert [line["level"] for line in told.lines] == ["ERROR"]
    redis.start()
    wait_for(lambda: storage.hit("b", rate) == 0 and len(told.lines) == 2)
    assert "available again" in told.lines[-1]["message"]
    assert let_in(storage, "a", rate) == 5, "this Redis knows of nobody"


def test_a_redis_that_hangs_is_waited_for_once_and_not_again_and_again(
    redis: Redis, told: _Lines
) -> None:
    storage, rate = RedisStorage(redis.url), Rate.parse("1000/hour")
    assert storage.hit("a", rate) == 0
    os.kill(redis.process.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        assert let_in(storage, "a", rate, 500) == 500
        assert time.monotonic() - begun < 500 * rates._REDIS_SECONDS / 10
    finally:
        os.kill(redis.process.pid, signal.SIGCONT)
    assert len(told.lines) == 1


def test_a_password_of_redis_is_not_logged(redis: Redis, told: _Lines) -> None:
    storage = RedisStorage(redis.url.replace("//", "//user:s3cret@"))
    assert storage.hit("a", Rate.parse("1/second")) == 0
    (line,) = told.lines
    assert "AuthenticationError" in line["message"]
    assert "s3cret" not in str(line)
