"""Images without a container engine: built by buildah in a chroot, run in namespaces.

Nothing is pulled: in place of the base image that the Dockerfile names stands one of Debian with
the same Python, made by debootstrap. It takes root, and Debian's packages buildah and debootstrap.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from configparser import RawConfigParser
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

BASE = "localhost/python:3.11-slim"
PROGRAMS = ("buildah", "debootstrap", "unshare", "nsenter")
_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGES = "python3,python3-pip,python3-venv,ca-certificates"
_LEFT_OUT = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale")
_CACHE = ROOT / "artifacts" / "python-3.11-slim.tar"
_BUILD_SECONDS = 1200

# What an engine does for --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges.
# It is all undone when the first process ends, for it is done in a mount namespace of its own.
_SEALED = """
set -eu
root=$1; directory=$2; user=$3; shift 3
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o size=64m tmpfs "$root/dev/shm"
mount -t tmpfs -o size=64m tmpfs "$root/tmp"
exec unshare --root="$root" --wd="$directory" setpriv --reuid="$user" --regid="$user" \\
    --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""


class Buildah:
    """buildah with a storage of its own in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        registries = directory / "registries.conf"
        registries.write_text('unqualified-search-registries = ["localhost"]\n')
        self._environ = {
            **os.environ,
            "BUILDAH_ISOLATION": "chroot",
            "CONTAINERS_REGISTRIES_CONF": str(registries),
            "TMPDIR": str(directory),
        }

    def command(self, *arguments: str) -> list[str]:
        storage, run = (str(self._directory / name) for name in ("storage", "run"))
        options = ["--storage-driver", "vfs", "--root", storage, "--runroot", run]
        return ["buildah", *options, *arguments]

    def __call__(self, *arguments: str) -> str:
        """Run one command and give what it prints."""
        ran = subprocess.run(
            self.command(*arguments),
            env=self._environ,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=_BUILD_SECONDS,
        )
        return ran.stdout.strip()

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start one command, with all it starts in a process group of their own."""
        return subprocess.Popen(self.command(*arguments), env=self._environ, start_new_session=True)

    def make_base(self) -> None:
        """Make the base image, of a root that is kept for the next time."""
        if not _CACHE.exists():
            _debootstrap(self._directory / "root")
        container = self("from", "scratch")
        self("add", "--quiet", container, str(_CACHE), "/")
        self("config", "--env", f"PATH={_PATH}", container)
        self("commit", "--quiet", "--rm", container, BASE)

    def build(self, target: str) -> str:
        """Build ``target`` of the Dockerfile and give the image's name."""
        name = f"localhost/lantern:{target}"
        config = self._directory / "pip.conf"
        options = ["--pull-never", "--format", "docker", "--target", target, "--tag", name]
        for place in _write_pip_config(config):
            options += ["--volume", f"{place}:{place}:ro"]
        # An engine's default; buildah's own is the image format that has no health check.
        self("bud", *options, "--secret", f"id=pip,src={config}", ".")
        return name

    def inspect(self, image: str) -> dict[str, Any]:
        """Return the configuration of an image: ``User``, ``Env``, ``Cmd`` and the like."""
        found = json.loads(self("inspect", "--type", "image", image))
        config: dict[str, Any] = found["Docker"]["config"]
        return config


def _debootstrap(root: Path) -> None:
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(root)],
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=_BUILD_SECONDS,
    )
    (root / "usr" / "bin" / "python").symlink_to("python3")
    for name in _LEFT_OUT:  # as they are of the image that this stands for
        shutil.rmtree(root / name)
    _CACHE.parent.mkdir(exist_ok=True)
    part = _CACHE.with_suffix(".part")
    with tarfile.open(part, "w") as archive:
        archive.add(root, ".")
    part.rename(_CACHE)


def _write_pip_config(file: Path) -> set[Path]:
    """Write all that this machine's pip is told into one file; give the places that it names."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    config = RawConfigParser()
    config.add_section("global")
    places: set[Path] = set()
    for line in told.splitlines():
        key, _, value = line.partition("=")
        option = key.rpartition(".")[2]
        if option == "constraint":  # the locks say which versions
            continue
        value = str(ast.literal_eval(value))
        config["global"][option] = value
        for word in value.split():
            if word.startswith("file:///"):  # an index, whose files are beside it
                places.add(Path(word.removeprefix("file://")).parent)
            elif word.startswith("/"):
                places.add(Path(word))
    with file.open("w") as out:
        config.write(out)
    return places


@contextmanager
def buildah() -> Iterator[Buildah]:
    """Return a buildah with an empty storage, and remove that afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="lantern-image-", dir="/var/tmp"))
    try:
        yield Buildah(directory)
    finally:
        mounted = Path("/proc/self/mounts").read_text()
        assert str(directory) not in mounted, f"something is mounted below {directory}: it is kept"
        shutil.rmtree(directory)


def start_sealed(
    root: Path, config: Mapping[str, Any], environ: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start an image's command as its first process, with nothing to write on but memory."""
    user = config["User"].partition(":")[0]
    command: Sequence[str] = config["Cmd"]
    variables = dict(variable.split("=", 1) for variable in config["Env"])
    entering = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    return subprocess.Popen(
        [*entering, "sh", "-c", _SEALED, "sh", str(root), config["WorkingDir"], user, *command],
        env={**variables, **environ},
        start_new_session=True,
    )


def run_beside(
    pid: int, config: Mapping[str, Any], environ: Mapping[str, str], command: Sequence[str]
) -> int:
    """Run a command in the container whose first process is ``pid``; give its exit status."""
    user = config["User"].partition(":")[0]
    variables = dict(variable.split("=", 1) for variable in config["Env"])
    entering = ["nsenter", "--target", str(pid), "--mount", "--pid", "--root", "--wd"]
    return subprocess.run(
        [*entering, "--setuid", user, "--setgid", user, *command],
        env={**variables, **environ},
        timeout=30,
        check=False,
    ).returncode
