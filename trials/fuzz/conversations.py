"""Conversations: bytes that are sent on a connection of their own, and what comes back.

Each ends its sending side after its last byte, so that the server has to answer what there is and
close: one that isn't over in time is a hang.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import monotonic

from tests.worker.wire import Answer, MalformedAnswer, take_answer
from trials.answers import fault_of

MAX_SECONDS = 60.0
"""How long a conversation may last: more than it takes, however busy the machine is."""
_AT_ONCE = 16
_LOOK_SECONDS = 0.1
_READ_BYTES = 1 << 18


@dataclass(frozen=True)
class Conversation:
    """What is sent: ``segments``, one by one.

    ``paths`` are those of its requests, where they are known: then each is answered, unless the
    server said before that it would close.
    """

    name: str
    segments: tuple[bytes, ...]
    paths: tuple[str, ...] = ()

    @property
    def data(self) -> bytes:
        return b"".join(self.segments)


@dataclass
class Findings:
    """What came of conversations: the answers by status, and those that went wrong."""

    conversations: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[tuple[Conversation, str]] = field(default_factory=list)

    @property
    def answers(self) -> int:
        return self.statuses.total()

    def judge(self, conversation: Conversation, received: bytes) -> None:
        """Look at what came back, and note what is wrong with it."""
        self.conversations += 1
        try:
            answers = list(split(received, may_be_head=b"HEAD" in conversation.data))
        except MalformedAnswer as error:
            self.fault(conversation, str(error))
            return
        paths = conversation.paths
        ended_early = bool(answers) and answers[-1].all("connection") == ["close"]
        if paths and len(answers) != len(paths) and not ended_early:
            self.fault(conversation, f"{len(answers)} answers to {len(paths)} requests")
        for number, answer in enumerate(answers):
            self.statuses[answer.status] += 1
            fault = fault_of(answer, paths[number] if number < len(paths) else "")
            if fault:
                self.fault(conversation, f"answer {number + 1}: {fault}")

    def fault(self, conversation: Conversation, what: str) -> None:
        self.faults.append((conversation, what))


def split(received: bytes, *, may_be_head: bool) -> Iterator[Answer]:
    """Return the answers that were received until the server closed.

    Where a request may have been a HEAD, an answer may have a length and no body. Raises
    `MalformedAnswer` for what is none.
    """
    while received:
        try:
            taken = take_answer(received, ended=True)
        except MalformedAnswer:
            if not may_be_head:
                raise
            taken = None
        if taken is None or (may_be_head and taken[0].body.startswith(b"HTTP/1.")):
            taken = take_answer(received, ended=True, head=True)
        assert taken is not None
        answer, received = taken
        yield answer


class _Open:
    """A conversation under way."""

    __slots__ = ("conversation", "deadline", "received", "sock", "waiting")

    def __init__(self, port: int, conversation: Conversation) -> None:
        self.conversation = conversation
        self.deadline = monotonic() + MAX_SECONDS
        self.received: list[bytes] = []
        self.waiting = deque(conversation.segments)
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=MAX_SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)


def hold(
    port: int,
    conversations: Iterable[Conversation],
    findings: Findings,
    look: Callable[[list[Conversation]], None],
) -> None:
    """Hold conversations, many at once.

    ``look`` is called now and then, with those that are under way and those that have ended since.
    """
    coming = iter(conversations)
    poller = select.epoll()
    under_way: dict[int, _Open] = {}
    ended: list[Conversation] = []
    next_look = monotonic()

    def end(fd: int) -> None:
        one = under_way.pop(fd)
        one.sock.close()
        ended.append(one.conversation)
        findings.judge(one.conversation, b"".join(one.received))

    while True:
        while len(under_way) < _AT_ONCE and (conversation := next(coming, None)):
            try:
                one = _Open(port, conversation)
            except OSError as error:
                findings.fault(conversation, f"no connection: {error}")
                continue
            under_way[one.sock.fileno()] = one
            poller.register(one.sock, select.EPOLLIN | select.EPOLLOUT)
        if not under_way:
            break
        for fd, event in poller.poll(_LOOK_SECONDS):
            one = under_way[fd]
            if event & select.EPOLLOUT and not _send(one):
                poller.modify(fd, select.EPOLLIN)
            if event & ~select.EPOLLOUT and not _receive(one):
                end(fd)
        if (now := monotonic()) >= next_look:
            next_look = now + _LOOK_SECONDS
            look([*ended, *(one.conversation for one in under_way.values())])
            ended.clear()
            for fd, one in list(under_way.items()):
                if now > one.deadline:
                    findings.fault(one.conversation, f"not over within {MAX_SECONDS:g} s")
                    end(fd)
    poller.close()


def _send(one: _Open) -> bool:
    """Send the next segment; tell whether there is more to send."""
    try:
        if one.waiting:
            segment = one.waiting.popleft()
            sent = one.sock.send(segment)
            if sent < len(segment):
                one.waiting.appendleft(segment[sent:])
        if not one.waiting:
            one.sock.shutdown(socket.SHUT_WR)
    except BlockingIOError:
        one.waiting.appendleft(segment)
    except OSError:  # closed by the server, as it may be in the midst of nonsense
        one.waiting.clear()
    return bool(one.waiting)


def _receive(one: _Open) -> bool:
    """Receive what there is; tell whether more may come."""
    with contextlib.suppress(BlockingIOError):
        try:
            data = one.sock.recv(_READ_BYTES)
        except ConnectionResetError:
            return False
        if not data:
            return False
        one.received.append(data)
    return True
