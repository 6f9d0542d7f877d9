"""Whose turn it is: requests that are here whole wait in one line, first come, first served.

The line knows how long who joins it now will wait, from what requests of such a size have taken
so far. One that would wait for longer than it may is handed over at once, ahead of the others, and
so is one that did wait for longer: the application finds `OVERDUE` in its environ and refuses it,
which costs little. What comes too late is thus not worked on, and those that are served are served
in time, however many come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from .environ import OVERDUE
from .head import Environ

if TYPE_CHECKING:
    from .connection import Connection

_SURELY_IN_TIME = 0.001
"""Nobody is in such a hurry; so most requests needn't be asked how long they may wait."""
_NEWS = 0.1
"""The weight of the last request in the mean of what those of its size take."""
_OUTLIER = 4.0
"""So many times the mean counts at most: one that was held up says little of the next."""
_MARGIN = 1.5
"""It may take longer than the mean: then who joined the line would have waited in vain."""
_LINE_SHARE = 3.0
"""So many times as long as one went on with something, requests in the line are served before the
next does."""


class Turns:
    """The line of one worker. ``budget`` gives the seconds that a request may wait, by its environ.

    Beside the line are the connections that go on with something: a long answer, a large body.
    While a request waits they have a fourth of the time together, and one after the other.

    ``now`` is the time by the monotonic clock, as of the last thing that happened; ``ahead`` the
    seconds that those who wait will take together.
    """

    def __init__(self, budget: Callable[[Environ], float]) -> None:
        self.now = self._counted_at = monotonic()
        self._budget = budget
        self._line: deque[Connection] = deque()
        self._going_on: deque[Connection] = deque()
        self._owed = 0.0  # the seconds that those in the line have before the others go on
        self._costs: dict[int, float] = {}
        self.ahead = 0.0
        self._stayed = 0.0
        self._is_refusing = False

    def __bool__(self) -> bool:
        return bool(self._line or self._going_on)

    @property
    def is_line(self) -> bool:
        """Whether a request waits."""
        return bool(self._line)

    def queue(self, connection: Connection) -> None:
        """Queue a connection that is not done, behind the others that go on."""
        connection.is_queued = True
        self._going_on.append(connection)

    def line_up(self, connection: Connection, environ: Environ, size: int) -> bool:
        """Have a request with a body of ``size`` bytes wait; False where it is to be refused now.

        It has waited since ``connection.arrived``.
        """
        wait = self.now - connection.arrived + self.ahead * _MARGIN
        if wait > _SURELY_IN_TIME and wait > self._budget(environ):
            environ[OVERDUE] = wait
            return False
        # Requests of a size are alike enough: one row, or a batch of about so many.
        connection.kind = kind = size.bit_length()
        connection.cost = cost = self._costs.get(kind, 0.0)
        self.ahead += cost
        connection.is_queued = True
        self._line.append(connection)
        return True

    def come_to(self, connection: Connection, environ: Environ) -> None:
        """Note in the environ of a request whose turn has come that it waited too long, if so."""
        wait = self.now - connection.arrived
        if wait > _SURELY_IN_TIME and wait > self._budget(environ):
            environ[OVERDUE] = wait
            self._is_refusing = True

    def serve(self, advance: Callable[[Connection], None], seconds: float) -> None:
        """Serve requests that wait, and connections that go on, for ``seconds``."""
        line, going_on = self._line, self._going_on
        until = self.now + seconds
        while self.now <= until:
            before = self.now
            if going_on and not (line and self._owed > 0):
                self._advance(advance, going_on.popleft())
                self._owed = (self.now - before) * _LINE_SHARE
            elif line:
                self._advance(advance, line.popleft())
                self._owed -= self.now - before
            else:
                break
        if not line:
            self.ahead = 0.0  # without what the sums and differences left over

    def _advance(self, advance: Callable[[Connection], None], connection: Connection) -> None:
        """Advance a connection, and learn how long its request took, if that was one."""
        connection.is_queued = False
        kind, connection.kind = connection.kind, None
        self.ahead -= connection.cost
        connection.cost = 0.0
        if connection.is_closed:
            return
        before, arrived = self.now, connection.arrived
        self._is_refusing = False
        advance(connection)
        self.now = monotonic()
        if kind is not None and not self._is_refusing:
            self._learn(kind, self.now - before)
            self._stayed += self.now - arrived

    def mean_in_flight(self) -> float:
        """Give how many requests waited or were served, on the average since this was last asked.

        By Little's law: the seconds that they stayed, of each second that went by.
        """
        stayed, self._stayed = self._stayed, 0.0
        before, self._counted_at = self._counted_at, self.now
        return stayed / max(self.now - before, 1e-9)

    def _learn(self, kind: int, seconds: float) -> None:
        mean = self._costs.get(kind)
        if mean is None:
            self._costs[kind] = seconds
        else:
            self._costs[kind] = mean + (min(seconds, mean * _OUTLIER) - mean) * _NEWS
