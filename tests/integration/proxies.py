"""Real proxies in front of services on loopback, with the configurations in ``deploy``."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.integration.conftest import free_port, wait_for

NGINX = ROOT / "deploy" / "nginx" / "prefix.conf"
HAPROXY = ROOT / "deploy" / "haproxy"
_LIVE = """
daemon off; master_process off; pid {directory}/pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/prefix.conf;
}}
"""


@contextmanager
def nginx(strips: int, keeps: int, directory: Path) -> Iterator[Mapping[str, int]]:
    """Start nginx in front of the services on two ports, and give its own ports by what it does."""
    fronts = {"strips": free_port(), "keeps": free_port()}
    text = NGINX.read_text()
    for written, port in (
        ("8000", strips),
        ("8001", keeps),
        ("8081", fronts["strips"]),
        ("8082", fronts["keeps"]),
    ):
        assert text.count(f"127.0.0.1:{written};") == 1
        text = text.replace(f"127.0.0.1:{written};", f"127.0.0.1:{port};")
    (directory / "prefix.conf").write_text(text)
    configuration = directory / "nginx.conf"
    configuration.write_text(_LIVE.format(directory=directory))
    command = ["nginx", "-e", "stderr", "-p", str(directory), "-c", str(configuration)]
    with _running(command, os.environ, fronts, directory / "nginx.log"):
        yield fronts


@contextmanager
def haproxy(strips: int, keeps: int, directory: Path) -> Iterator[Mapping[str, int]]:
    """Start HAProxy likewise."""
    fronts = {"strips": free_port(), "keeps": free_port()}
    nobody = f"127.0.0.1:{free_port()}"
    environ = {
        **os.environ,
        "HAPROXY_SOCKET": str(directory / "haproxy.sock"),
        "LANTERN_FRONT": nobody,
        "LANTERN_STRIPS_FRONT": f"127.0.0.1:{fronts['strips']}",
        "LANTERN_KEEPS_FRONT": f"127.0.0.1:{fronts['keeps']}",
        "LANTERN_STRIPS": f"127.0.0.1:{strips}",
        "LANTERN_KEEPS": f"127.0.0.1:{keeps}",
    }
    command = ["haproxy", "-db"]
    for name in ("haproxy.cfg", "prefix.cfg"):
        command += ["-f", str(HAPROXY / name)]
    with _running(command, environ, fronts, directory / "haproxy.log"):
        yield fronts


@contextmanager
def _running(
    command: list[str], environ: Mapping[str, str], fronts: Mapping[str, int], log: Path
) -> Iterator[None]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]} to stand in front")
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", *command],
            env=dict(environ),
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(lambda: process.poll() is not None or all(map(_listens, fronts.values())))
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
