"""The server of ``lantern serve``, without a process of its own."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from flask import Flask

from app.server import gunicorn_config
from app.server.addresses import find_unusable
from app.server.application import LanternServer


def test_a_reload_counts_the_cores_again(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gunicorn_config, "usable_cores", lambda: 3)
    server = LanternServer(lambda: app)
    assert server.cfg.workers == 3
    monkeypatch.setattr(gunicorn_config, "usable_cores", lambda: 5)
    server.reload()
    assert server.cfg.workers == 5


def test_a_reload_in_a_checkout_counts_the_cores_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from gunicorn.app.wsgiapp import WSGIApplication

    monkeypatch.setattr("sys.argv", ["gunicorn", "wsgi:app"])
    monkeypatch.setattr(gunicorn_config, "usable_cores", lambda: 3)
    server = WSGIApplication()
    assert server.cfg.workers == 3
    monkeypatch.setattr(gunicorn_config, "usable_cores", lambda: 5)
    server.reload()
    assert server.cfg.workers == 5


def test_an_address_that_can_be_listened_on_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        assert "Address already in use" in find_unusable([address])
        assert find_unusable([taken.fileno(), str(path), "\0lantern-test"]) == ""
    assert find_unusable([address, ("::1", 0)]) == ""
    assert find_unusable([address, address]).endswith(": it is named twice")
    assert find_unusable([address, address], reuse_port=True) == ""
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert find_unusable([str(path)]) == ""  # a server that was killed leaves it
    assert path.is_socket()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (("203.0.113.1", 80), "203.0.113.1:80: Cannot assign requested address"),
        (("no.such.host.invalid", 80), "no.such.host.invalid:80: "),
        (("127.0.0.1", 70000), "127.0.0.1:70000: "),
        ("/nowhere/socket", "unix:/nowhere/socket: No such file or directory"),
        ("/" + "x" * 200, "too long"),
        (10_000, "fd://10000: Bad file descriptor"),
    ],
)
def test_an_address_that_can_not_be_listened_on_is_named(
    address: tuple[str, int] | str | int, said: str
) -> None:
    assert said in find_unusable([address])
