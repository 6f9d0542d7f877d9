"""A body is put together from whatever pieces it arrives in, and not copied where it is large."""

from __future__ import annotations

import numpy as np
import pytest

from app.worker.body import BodyBuffer

MIB = 1 << 20


def address(view: memoryview) -> int:
    return int(np.frombuffer(view, dtype=np.uint8).__array_interface__["data"][0])


def filled(length: int, piece: int, *, is_known: bool) -> tuple[BodyBuffer, bytes]:
    """Return a buffer that has received ``length`` bytes, into its room where it has some."""
    content = np.random.default_rng(length).bytes(length)
    body = BodyBuffer(length if is_known else None)
    while len(body) < length:
        data = content[len(body) : len(body) + piece]
        room = body.room
        if room is None:
            body.append(data)
        else:
            assert len(room) == length - len(body)
            room[: len(data)] = data
            body.fill(len(data))
    return body, content


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("piece", [7_001, 65_536, 131_072, 10 * MIB])
@pytest.mark.parametrize("length", [1, 65_536, 65_537, 600_000, 3 * MIB])
def test_a_body_is_what_arrived(length: int, piece: int, is_known: bool) -> None:
    body, content = filled(length, piece, is_known=is_known)
    stream = body.stream()
    assert stream.tell() == 0
    assert stream.read() == content


def test_a_large_body_is_read_where_it_was_received() -> None:
    body = BodyBuffer(600_000)
    body.append(b"a" * 70_000)
    room = body.room
    assert room is not None
    at = address(room)
    room.release()
    body.fill(530_000)
    content = body.stream().getvalue()
    assert address(memoryview(content)) == at - 70_000
    assert len(content) == 600_000


def test_the_first_read_of_an_image_is_enough_to_take_the_memory_for_all_of_it() -> None:
    body = BodyBuffer(602_112)
    body.append(b"a" * 20_000)
    assert body.room is None
    assert body.held == 20_000
    body.append(b"a" * 20_000)
    assert body.room is not None
    assert body.held == 602_112, "what is set aside counts"


def test_little_memory_is_taken_for_a_body_of_which_little_has_arrived() -> None:
    body = BodyBuffer(16 * MIB)
    for _ in range(127):
        body.append(b"a" * 65_536)
        assert body.room is None
        assert body.held == len(body)
    body.append(b"a" * 65_536)
    assert body.room is not None
    assert body.held == 16 * MIB, "what is set aside counts"


def test_a_body_of_unknown_length_is_never_set_aside() -> None:
    body, _ = filled(600_000, 65_536, is_known=False)
    assert body.room is None
    assert body.held == 600_000
