"""Dynamic batching: rows that wait for the network run through it together.

For an expensive network, whose forward pass takes much longer than handing a row to another thread.
It has no thread and no timer of its own: rows wait only for the pass before theirs. It knows only a
runtime and the threads that call it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Event, Lock
from time import perf_counter

import numpy as np

from .pass_size import PassSize
from .runtime import Runtime
from .signature import Array, Tensors, row_count, select_rows

_PATIENCE_SECONDS = 1.0
"""Seconds for which a call waits for the pass before its own."""
_LARGEST_PADDED = 2
"""The multiple of the values of its rows alone that a pass may have: nobody pays for the length of
another's row."""


@dataclass(frozen=True, slots=True)
class Padding:
    """The values that fill up shorter rows: one for each of the tensors whose second dimension is
    the length of a row, before or behind those that it has.
    """

    values: Mapping[str, int]
    is_before: bool = False

    def length(self, inputs: Tensors) -> int:
        """Return how long the rows of ``inputs`` are."""
        length: int = max(inputs[name].shape[1] for name in self.values)
        return length

    def pad(self, name: str, array: Array, length: int) -> Array:
        """Return the rows of the tensor ``name``, with what they lack."""
        missing = length - array.shape[1]
        if name not in self.values or not missing:
            return array
        more = np.full((len(array), missing, *array.shape[2:]), self.values[name], array.dtype)
        return np.concatenate([more, array] if self.is_before else [array, more], axis=1)


class _OtherRows(Exception):
    """The network answered with another number of rows: whose they are can't be known."""


class _Call:
    """Waiting rows. Their caller is woken when the answer is there, or to lead the next pass."""

    __slots__ = ("alone", "answer", "inputs", "left", "rows", "woken")

    def __init__(self, inputs: Tensors) -> None:
        self.inputs = inputs
        self.rows = row_count(inputs)
        self.woken = Event()
        self.answer: Tensors | None = None
        self.alone = False
        self.left = False


class BatchingRuntime:
    """A runtime that executes the rows of several callers in one forward pass of another.

    One pass runs at a time. A caller that finds the runtime free runs its rows at once. Otherwise
    it waits in line; when the current pass ends, the first in line leads the next one: its own rows
    and those of the calls behind it, whole calls in order, at most ``max_rows`` in total, and fewer
    if ``is_measured`` shows that more are not cheaper together. Then it hands over, so that no
    caller works for others twice. A call of more rows runs alone.

    A call that has waited for a second runs alone, beside a pass that takes so long: some networks
    do as much as their inputs say, and nobody pays for another's rows.

    If a pass of several calls fails, or returns another number of rows, each of them runs alone and
    gets its own result.

    Rows that run together may be answered with other last bits than alone (a product of matrices
    sums in another order than one of a matrix and a vector), as in every batch.

    Only rows of the same shape run together or, with ``padding``, of different lengths, unless that
    would more than double the work.

    ``on_run``, if set, is called with the number of rows of each pass; it must not raise.
    """

    def __init__(
        self,
        runtime: Runtime,
        max_rows: int,
        padding: Padding | None = None,
        *,
        is_measured: bool = False,
    ) -> None:
        self.name = runtime.name
        self.device = runtime.device
        self.max_rows = max_rows
        self._padding = padding
        self._size = PassSize(max_rows) if is_measured else None
        self.on_run: Callable[[int], None] | None = None
        self._runtime = runtime
        self._lock = Lock()  # of what follows, and of every call in line
        self._busy = False
        self._line: deque[_Call] = deque()

    def run(self, inputs: Tensors) -> Tensors:
        """Return the outputs for ``inputs``, which all have as many rows.

        An output may be a view of a larger array and must not be written to. Raises what the
        runtime raises for these rows.
        """
        call = self._enter(inputs)
        if call is None:
            try:
                return self._measured_pass(inputs)
            finally:
                self._hand_over()
        try:
            while not call.woken.wait(_PATIENCE_SECONDS):
                if self._withdraw(call):
                    return self._pass(call.inputs)
            return self._lead(call) if call.answer is None else call.answer
        finally:  # also if this thread is interrupted while it waits
            self._leave(call)

    def time_limit(self, seconds: float) -> AbstractContextManager[None]:
        """See `Runtime`."""
        return self._runtime.time_limit(seconds)

    def _enter(self, inputs: Tensors) -> _Call | None:
        """Take the runtime if it is free, and return None; else queue a call and return it."""
        with self._lock:
            if not self._busy:
                self._busy = True
                return None
            call = _Call(inputs)
            self._line.append(call)
            return call

    def _withdraw(self, call: _Call) -> bool:
        """Remove ``call`` from the line; return False if it isn't there, or owns the runtime."""
        with self._lock:
            if call.woken.is_set() or call not in self._line:
                return False
            self._line.remove(call)
            return True

    def _hand_over(self) -> None:
        """Wake the first in line, which then owns the runtime; if none waits, the runtime is
        free.
        """
        with self._lock:
            if self._line:
                self._line[0].woken.set()
            else:
                self._busy = False

    def _lead(self, call: _Call) -> Tensors:
        """Run ``call``, the first in line, together with those that fit."""
        followers = self._take()
        if not followers:
            return self._measured_pass(call.inputs)
        try:
            rows = call.rows + sum(follower.rows for follower in followers)
            answers = self._measured_pass(self._joined([call, *followers]))
            if any(array.shape[:1] != (rows,) for array in answers.values()):
                raise _OtherRows
            for array in answers.values():
                array.setflags(write=False)  # every caller gets a view of it
            end = call.rows
            for follower in followers:
                start, end = end, end + follower.rows
                follower.answer = select_rows(answers, slice(start, end))
                follower.woken.set()
            return select_rows(answers, slice(call.rows))
        except Exception:
            self._return(followers, alone=True)
        except BaseException:  # this thread is interrupted; the rows are not to blame
            self._return(followers, alone=False)
            raise
        return self._pass(call.inputs)

    def _take(self) -> list[_Call]:
        """Remove the leader from the line, and those behind it that fit; return the latter."""
        with self._lock:
            leader = self._line.popleft()
            followers: list[_Call] = []
            while self._line and self._may_join([leader, *followers], self._line[0]):
                followers.append(self._line.popleft())
            return followers

    def _may_join(self, calls: Sequence[_Call], call: _Call) -> bool:
        """Return True if ``call`` may run together with ``calls``."""
        leader, padding = calls[0], self._padding
        rows = call.rows + sum(each.rows for each in calls)
        most = self.max_rows if self._size is None else self._size.rows
        if leader.alone or call.alone or rows > most:
            return False
        padded = padding.values if padding is not None else ()
        if _form(call.inputs, padded) != _form(leader.inputs, padded):
            return False
        if padding is None:
            return True
        lengths = [(each.rows, padding.length(each.inputs)) for each in (*calls, call)]
        alone = sum(count * length for count, length in lengths)
        return rows * max(length for _, length in lengths) <= _LARGEST_PADDED * alone

    def _joined(self, calls: Sequence[_Call]) -> Tensors:
        """Return the rows of ``calls``, one after the other."""
        parts = [call.inputs for call in calls]
        padding = self._padding
        if padding is not None:
            length = max(map(padding.length, parts))
            parts = [
                {name: padding.pad(name, array, length) for name, array in each.items()}
                for each in parts
            ]
        return {name: np.concatenate([each[name] for each in parts]) for name in parts[0]}

    def _return(self, followers: list[_Call], *, alone: bool) -> None:
        """Put calls without an answer back at the head of the line, in order."""
        with self._lock:
            for follower in reversed(followers):
                if follower.answer is None and not follower.left:
                    follower.alone = alone
                    self._line.appendleft(follower)

    def _leave(self, call: _Call) -> None:
        """Withdraw ``call``, whose caller leaves; if it owned the runtime, hand that over.

        A call that was woken without an answer owns the runtime.
        """
        with self._lock:
            call.left = True
            if call in self._line:
                self._line.remove(call)
            had_runtime = call.woken.is_set() and call.answer is None
        if had_runtime:
            self._hand_over()

    def _measured_pass(self, inputs: Tensors) -> Tensors:
        """Run a pass of the call that owns the runtime, and learn how long it took."""
        if self._size is None:
            return self._pass(inputs)
        begun = perf_counter()
        answers = self._pass(inputs)
        self._size.learn(row_count(inputs), perf_counter() - begun)
        return answers

    def _pass(self, inputs: Tensors) -> Tensors:
        answers = self._runtime.run(inputs)
        if self.on_run is not None:
            self.on_run(row_count(inputs))
        return answers


def _form(inputs: Tensors, padded: Container[str]) -> list[tuple[int, ...]]:
    """Return what calls must have in common to run together: all dimensions but the rows, and but
    the lengths of those that are ``padded``.
    """
    return [array.shape[2 if name in padded else 1 :] for name, array in inputs.items()]
