"""Rate limiting by the generic cell rate algorithm, in memory or in Redis.

One number is stored for each caller: the theoretical arrival time of ITU-T I.371, annex A, at which
its whole rate is available again. A rate of 100/second allows 100 requests at once, and one more
every 10 ms after that. Times are whole microseconds, so that the last request of a rate is not lost
to rounding.

In memory each worker process counts for itself. In Redis all count together; while Redis is
unavailable, each counts in memory again, so that an outage neither admits nor rejects everything.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..settings.forms import IN_MEMORY, MICROSECONDS, Rate
from .errors import RateLimited

_MAX_CALLERS = 65536
"""Callers kept in memory; beyond that, the least recent are evicted."""
_REDIS_SECONDS = 0.1
"""The timeout of a call to Redis. A worker has one thread: all its callers wait meanwhile."""
_AWAY_SECONDS = 5.0
"""Seconds for which Redis is not tried again after a call has failed."""

log = logging.getLogger("lantern.access")


class Storage(Protocol):
    """Stores the arrival time of each caller."""

    def hit(self, caller: str, rate: Rate) -> int:
        """Count a request of ``caller`` and return 0 if it is within ``rate``.

        If not, return how many microseconds the caller has to wait, and count nothing.
        """
        ...


class MemoryStorage:
    """Counts in this process, by the monotonic clock."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}
        self._lock = threading.Lock()

    def hit(self, caller: str, rate: Rate) -> int:
        now = time.monotonic_ns() // 1000
        with self._lock:
            arrival = max(self._times.pop(caller, 0), now)
            wait = arrival - now - rate.burst
            # Inserted again at the end, so that the first one is the least recent.
            self._times[caller] = arrival if wait > 0 else arrival + rate.interval
            if len(self._times) > _MAX_CALLERS:
                del self._times[next(iter(self._times))]
        return max(wait, 0)


_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local arrival = tonumber(redis.call('GET', KEYS[1])) or now
-- One beyond the whole rate was written before the clock was set back.
if arrival < now or arrival > now + burst + interval then arrival = now end
local wait = arrival - now - burst
if wait > 0 then return wait end
arrival = arrival + interval
redis.call('SET', KEYS[1], string.format('%.0f', arrival),
    'PX', math.ceil((arrival - now) / 1000))
return 0
"""


class RedisStorage:
    """Counts in the Redis at ``url``, by its clock; in memory while it is unavailable."""

    def __init__(self, url: str) -> None:
        # Imported here: most services have no Redis.
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        # It connects on the first call, which is after the fork.
        client = Redis.from_url(
            url,
            socket_timeout=_REDIS_SECONDS,
            socket_connect_timeout=_REDIS_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._script: Any = client.register_script(_SCRIPT)
        self._memory = MemoryStorage()
        self._away_until = 0.0
        self._is_away = False

    def hit(self, caller: str, rate: Rate) -> int:
        if time.monotonic() < self._away_until:
            return self._memory.hit(caller, rate)
        try:
            wait = int(
                self._script(keys=[f"lantern:rate:{caller}"], args=[rate.interval, rate.burst])
            )
        except Exception as error:  # any error: a limit that fails must not fail requests
            self._away_until = time.monotonic() + _AWAY_SECONDS
            if not self._is_away:
                self._is_away = True
                # Without the error's own message, which may contain the address and its password.
                log.error(
                    "Redis is unavailable (%s): until it is back, this worker counts the requests "
                    "of each caller by itself",
                    type(error).__name__,
                )
            return self._memory.hit(caller, rate)
        if self._is_away:
            self._is_away = False
            log.warning("Redis is available again: requests are counted across all workers")
        return wait


@dataclass(slots=True)
class RateLimiter:
    """Limits each caller to ``rate``."""

    rate: Rate
    storage: Storage = field(default_factory=MemoryStorage)

    @classmethod
    def from_settings(cls, rate: str, storage: str) -> RateLimiter | None:
        """Return the limiter of ``limits.rate`` and ``limits.rate_storage``; None for no rate."""
        if not rate:
            return None
        kept = MemoryStorage() if storage == IN_MEMORY else RedisStorage(storage)
        return cls(Rate.parse(rate), kept)

    def hit(self, caller: str) -> None:
        """Count a request of ``caller``. Raises `RateLimited`."""
        wait = self.storage.hit(caller, self.rate)
        if wait:
            raise RateLimited(self.rate.text, -(-wait // MICROSECONDS))
