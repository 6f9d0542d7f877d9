"""How many cores a process may use, wherever services are run."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from app.model import isolation
from app.worker.cores import usable_cores
from tests.conftest import ROOT

V2 = "31 23 0:28 {shown} {at} rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw"
V1 = "32 23 0:29 {shown} {at} rw,relatime - cgroup cgroup rw,{controllers}"
SYSTEM = "/system.slice/lantern.service"
POD = "/kubepods.slice/kubepods-pod1.slice/cri-c.scope"
DOCKER = "/docker/c0ffee"


def v2(shown: str = "/", at: str = "/sys/fs/cgroup") -> str:
    return V2.format(shown=shown, at=at)


def v1(shown: str = "/", at: str = "/sys/fs/cgroup/cpu", controllers: str = "cpu") -> str:
    return V1.format(shown=shown, at=at, controllers=controllers)


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def make(root: Path, cgroup: str, mounts: str, files: Mapping[str, str]) -> Path:
    """Make the files of ``/proc`` and ``/sys`` that a process would see."""
    for name, text in {
        "/proc/self/cgroup": cgroup + "\n",
        "/proc/self/mountinfo": f"20 1 8:1 / / rw - ext4 /dev/root rw\n{mounts}\n",
        **files,
    }.items():
        file = root / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "mounts", "files", "cores"),
    [
        pytest.param(
            "0::/", v2(), {"/sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2, id="container"
        ),
        pytest.param("0::/", v2(), {"/sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2, id="fraction"),
        pytest.param(
            "0::/", v2(), {"/sys/fs/cgroup/cpu.max": "1000 100000\n"}, 1, id="a hundredth"
        ),
        pytest.param("0::/", v2(), {"/sys/fs/cgroup/cpu.max": "max 100000\n"}, 8, id="no limit"),
        pytest.param("0::/", v2(), {"/sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 8, id="more"),
        pytest.param(
            f"0::{SYSTEM}",
            v2(),
            {f"/sys/fs/cgroup{SYSTEM}/cpu.max": "300000 100000"},
            3,
            id="systemd",
        ),
        pytest.param(
            f"0::{SYSTEM}",
            v2(),
            {
                f"/sys/fs/cgroup{SYSTEM}/cpu.max": "max 100000",
                "/sys/fs/cgroup/system.slice/cpu.max": "100000 50000",
            },
            2,
            id="a slice above",
        ),
        pytest.param(
            f"0::{POD}",
            v2(),
            {
                f"/sys/fs/cgroup{POD}/cpu.max": "400000 100000",
                "/sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice/cpu.max": "500000 100000",
                "/sys/fs/cgroup/kubepods.slice/kubepods-pod2.slice/cpu.max": "100000 100000",
            },
            4,
            id="a pod without a namespace",
        ),
        pytest.param(
            f"0::{POD}",
            v2(POD),
            {"/sys/fs/cgroup/cpu.max": "400000 100000"},
            4,
            id="its group alone",
        ),
        pytest.param(
            f"0::{POD}/inner",
            v2(POD),
            {
                "/sys/fs/cgroup/cpu.max": "400000 100000",
                "/sys/fs/cgroup/inner/cpu.max": "max 100000",
            },
            4,
            id="nested",
        ),
        pytest.param(
            "0::/", v2("/../.."), {"/sys/fs/cgroup/cpu.max": "200000 100000"}, 2, id="from above"
        ),
        pytest.param(
            f"0::{POD}", v2(DOCKER), {"/sys/fs/cgroup/cpu.max": "100000 100000"}, 8, id="others"
        ),
        pytest.param(
            "0::/gone", v2(), {"/sys/fs/cgroup/cpu.max": "200000 100000"}, 2, id="not in sight"
        ),
        pytest.param(
            "3:cpuset:/\n2:cpuacct,cpu:/docker/c0ffee\n1:name=systemd:/docker/c0ffee",
            v1(DOCKER, controllers="cpu,cpuacct")
            + "\n"
            + v1("/", "/sys/fs/cgroup/cpuset", "cpuset"),
            {
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "250000\n",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            3,
            id="version 1",
        ),
        pytest.param(
            "2:cpu:/user.slice/me",
            v1(),
            {
                "/sys/fs/cgroup/cpu/user.slice/me/cpu.cfs_quota_us": "-1",
                "/sys/fs/cgroup/cpu/user.slice/me/cpu.cfs_period_us": "100000",
                "/sys/fs/cgroup/cpu/user.slice/cpu.cfs_quota_us": "50000",
                "/sys/fs/cgroup/cpu/user.slice/cpu.cfs_period_us": "25000",
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            },
            2,
            id="version 1, a slice above",
        ),
        pytest.param(
            "1:cpu:/a\n0::/b",
            v1() + "\n" + v2(at="/sys/fs/cgroup/unified"),
            {
                "/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "500000",
                "/sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
                "/sys/fs/cgroup/unified/b/cgroup.procs": "",
            },
            5,
            id="both versions",
        ),
        pytest.param(
            "0::/a b",
            v2(at="/mnt/control\\040groups"),
            {"/mnt/control groups/a b/cpu.max": "600000 100000"},
            6,
            id="mounted elsewhere",
        ),
        pytest.param("", "", {}, 8, id="no groups"),
        pytest.param("garbage", "garbage", {}, 8, id="nonsense"),
        pytest.param("0::/", v2(), {"/sys/fs/cgroup/cpu.max": "1 0"}, 8, id="nonsense in a limit"),
    ],
)
@pytest.mark.usefixtures("eight_cores")
def test_the_least_that_any_group_allows_counts(
    tmp_path: Path, cgroup: str, mounts: str, files: dict[str, str], cores: int
) -> None:
    assert usable_cores(make(tmp_path, cgroup, mounts, files)) == cores


@pytest.mark.usefixtures("eight_cores")
def test_without_proc_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 8


def workers(*before: str, **environ: str) -> int:
    """Return how many workers Gunicorn would start, in a process begun by ``before``."""
    inherited = {k: v for k, v in os.environ.items() if k != "WEB_CONCURRENCY"}
    gunicorn = str(Path(sys.executable).with_name("gunicorn"))
    ran = subprocess.run(
        [*before, gunicorn, "--print-config", "wsgi:app"],
        cwd=ROOT,
        env=inherited | environ,
        capture_output=True,
        text=True,
        check=True,
    )
    [line] = [line for line in ran.stdout.splitlines() if line.startswith("workers ")]
    return int(line.partition("=")[2])


def test_a_process_on_one_core_starts_one_worker() -> None:
    core = min(os.sched_getaffinity(0))
    assert workers("taskset", "--cpu-list", str(core)) == 1
    assert workers("taskset", "--cpu-list", str(core), WEB_CONCURRENCY="3") == 3


@pytest.mark.isolated
def test_what_is_tried_has_one_thread_however_many_cores_there_are(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    limits = isolation.ProcessLimits()
    assert isolation.run(os.getenv, "OMP_NUM_THREADS", path=path, limits=limits) == "1"


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of version 1 of our own, on a machine where one can be made."""
    directory = Path("/sys/fs/cgroup/cpu", f"lantern-test-{secrets.token_hex(4)}")
    try:
        directory.mkdir()
        (directory / "cpu.cfs_quota_us").write_text("50000")
    except OSError:
        if directory.is_dir():
            directory.rmdir()
        pytest.skip("no control group of version 1 can be made here")
    yield directory
    directory.rmdir()


def test_a_process_in_a_real_group_starts_as_many_workers_as_it_allows(group: Path) -> None:
    inner = group / "inner"
    inner.mkdir()
    try:
        (group / "cpu.cfs_quota_us").write_text("100000")
        enter = f'echo $$ > {inner}/cgroup.procs && exec "$@"'
        assert workers("sh", "-c", enter, "sh") == 1
    finally:
        inner.rmdir()
