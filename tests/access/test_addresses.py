"""Whom a request is counted for, and whether a server is to be reached from elsewhere."""

from __future__ import annotations

import pytest

from app.access.addresses import address_of, is_exposed, is_loopback


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, None, "10.0.0.9"),
        (0, "1.2.3.4", "10.0.0.9"),
        (1, "1.2.3.4", "1.2.3.4"),
        (1, "6.6.6.6, 1.2.3.4", "1.2.3.4"),
        (2, "6.6.6.6, 1.2.3.4 ,10.0.0.8", "1.2.3.4"),
        (2, "1.2.3.4", "10.0.0.9"),
        (1, None, "10.0.0.9"),
        (1, "", "10.0.0.9"),
        (1, "unknown", "10.0.0.9"),
        (1, "6.6.6.6,", "10.0.0.9"),
        (1, "1.2.3.4:5678", "1.2.3.4"),
        (1, "[2001:db8:1:2:3::4]:5678", "2001:db8:1:2::/64"),
        (1, "2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        (1, "::ffff:1.2.3.4", "1.2.3.4"),
    ],
)
def test_the_callers_address_is_what_our_own_proxies_vouch_for(
    proxies: int, forwarded: str | None, address: str
) -> None:
    environ = {"REMOTE_ADDR": "10.0.0.9"}
    if forwarded is not None:
        environ["HTTP_X_FORWARDED_FOR"] = forwarded
    assert address_of(environ, proxies) == address


def test_a_peer_without_an_address_is_one_caller() -> None:
    assert address_of({"REMOTE_ADDR": ""}, 0) == address_of({}, 1) == ""


@pytest.mark.parametrize(
    ("names", "exposed"),
    [
        ([("127.0.0.1", 80)], False),
        ([("127.3.2.1", 80)], False),
        ([("::1", 80, 0, 0)], False),
        ([("::ffff:127.0.0.1", 80, 0, 0)], False),
        (["/run/lantern.sock"], False),
        ([b"\0abstract"], False),
        ([("0.0.0.0", 80)], True),
        ([("::", 80, 0, 0)], True),
        ([("10.0.0.1", 80)], True),
        ([("127.0.0.1", 80), ("10.0.0.1", 80)], True),
        ([(3, 1234)], True),  # a virtual machine's
        ([None], True),
    ],
)
def test_whatever_is_not_surely_this_machine_alone_is_exposed(
    names: list[object], exposed: bool
) -> None:
    assert is_exposed(names) is exposed


def test_a_name_is_taken_for_loopback_only_if_it_is_localhost() -> None:
    assert is_loopback("localhost")
    assert not is_loopback("lantern.example")
    assert not is_loopback("")
