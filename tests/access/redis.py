"""Debian's Redis for tests: on a free port of loopback, keeping nothing on the disk."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from redis import Redis as Client
from redis.exceptions import RedisError

from tests.integration.conftest import free_port, wait_for


class Redis:
    """A Redis that was started for a test; it may be killed and started again."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("there is no redis-server here: apt-get install redis-server")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = Client.from_url(self.url)
        self._directory = directory
        self.start()

    def start(self) -> None:
        command = f"redis-server --port {self.port} --bind 127.0.0.1 --save  --appendonly no"
        self.process = subprocess.Popen(
            command.split(" "), cwd=self._directory, stdout=subprocess.DEVNULL
        )
        wait_for(self._is_up)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _is_up(self) -> bool:
        try:
            return bool(self.client.ping())
        except RedisError:
            return False
