"""The repository of one model: ``models/NAME`` with its versions, its release and its history.

Only this module writes the release. Each change is made under a lock, after the version is verified
and compared, as a line of the history and one atomic replacement of the release file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from ..documents.files import locked, remove_scratch
from ..model import bundle as bundles
from ..model import manifest_file
from ..model.code.permission import AllowCode, check_recorded, code_sha256
from ..model.compat import shadow_obstacle
from ..model.errors import BundleError, ChangeUnderWay, NothingToChange, ReleaseRejected
from ..model.isolation import DEFAULT_LIMITS, ProcessLimits
from ..model.manifest import Manifest
from ..model.runtime import RuntimeChoice
from ..version import COMMAND
from . import release as releases
from .code_diff import code_changes
from .history import (
    Change,
    new_change,
    read_history,
    recorded,
    recorded_code,
    stable_versions,
)
from .release import InForce, Mode, Release, read_in_force, write_release
from .succession import obstacles, read_succession
from .verification import verify

LOCK_NAME = ".lock"
State = Literal["stable", "canary", "shadow", ""]


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """A summary of a version; ``traffic`` is that of a canary, and ``bytes`` the size of its files.

    ``held_back`` says why a version above the stable one doesn't take over by itself. ``problem``
    says why the rest is unknown if its manifest can't be read; `verify` says whether the version is
    fit to serve.
    """

    version: str
    state: State = ""
    traffic: float | None = None
    created_at: str | None = None
    bytes: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    held_back: str = ""
    problem: str = ""


class Repository:
    """The model in ``directory``: its versions, and changes of the one that is served.

    Every method raises `BundleError` if the directory, the release file or the history can't be
    used. A change raises `NothingToChange`, `ChangeUnderWay` if another process holds the lock, and
    `ReleaseRejected` if it would do harm; the release is then unchanged.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "",
        runtime: RuntimeChoice = "auto",
        device: str = "cpu",
        limits: ProcessLimits = DEFAULT_LIMITS,
        read_only: bool = False,
        allow_code: AllowCode = False,
    ) -> None:
        """``runtime`` and ``device`` are those of the service, which a version must support; it is
        tried within ``limits``, and its code runs only where ``allow_code`` says so. ``name`` is
        the model's name in the settings, empty if the manifests name it. With ``read_only``, as for
        the example in a package, a change is refused.
        """
        self.read_only = read_only
        self.limits = limits
        self.directory = directory
        self.name = name
        self.runtime = runtime
        self.device = device
        self.allow_code = allow_code

    def versions(self) -> list[str]:
        """Return the versions, numbers first and in their order."""
        path = self.directory
        models = (path, path / manifest_file.FILE_NAME, path / bundles.CHECKPOINT)
        if any(file.is_file() for file in models):
            raise BundleError(
                f"{path} is one model, not a directory of versions: it has no release. If it is "
                f"one of the versions in {path.parent}, name that directory."
            )
        return bundles.versions(path)

    def release(self) -> Release:
        """Return the release in force, see `read_in_force`."""
        return self._in_force().release

    def held_back(self) -> Mapping[str, str]:
        """Return the versions that don't take over by themselves, and why."""
        return self._in_force().held_back

    def manifest(self, version: str) -> Manifest:
        """Read the manifest of ``version``."""
        self.require(version)
        return manifest_file.read_manifest(self.directory / version / manifest_file.FILE_NAME)

    def require(self, version: str) -> None:
        """Raise `BundleError`, which lists the versions, if ``version`` is not one of them."""
        versions = self.versions()
        if version not in versions:
            raise BundleError(
                f"{self.directory} has no version {version!r}; it has: {', '.join(versions)}."
            )

    def summaries(self, release: Release | None) -> list[VersionSummary]:
        """Return a summary of every version, and of those in ``release`` that are gone."""
        versions = self.versions()
        gone = [v for v in release.versions if v not in versions] if release else []
        held_back = self.held_back() if release else {}
        return [
            replace(self._summary(version, release), held_back=held_back.get(version, ""))
            for version in [*versions, *gone]
        ]

    def history(self) -> list[Change]:
        """Return the changes of the release, oldest first."""
        self.versions()
        return read_history(self.directory)

    def promote(
        self, version: str, *, allow_schema_change: bool = False, message: str = ""
    ) -> Change:
        """Make ``version`` the stable one, alone: a canary or shadow ends.

        It must verify, and its schema must not break callers of the stable one, unless
        ``allow_schema_change``. With that, a release file that can't be read is replaced, too:
        there is then nothing to compare with.
        """
        with self._changing():
            self.require(version)
            before, unknown = self._release_or_fault()
            is_stable = before is not None and before.stable == version and self._is_written()
            if before is not None and is_stable and self._has_recorded_code(version, before):
                ends = f"; clear ends the {before.mode} of {before.candidate}"
                raise NothingToChange(
                    f"Version {version} is already stable{ends if before.candidate else ''}."
                )
            manifest = self._verified(version, "promoted")
            reasons = unknown
            if before is not None:
                reasons = self._obstacles(before.stable, manifest)
            if reasons and not allow_schema_change:
                raise ReleaseRejected(
                    f"Version {version} is not promoted because it may break callers "
                    "(--allow-schema-change promotes it anyway):",
                    reasons,
                )
            return self._replace("promote", before, Release(version), message, manifest)

    def rollback(self, message: str = "") -> Change:
        """Return to what was served before: without a canary, or to the previous stable version.

        A canary is ended first, because it was the last change that callers saw. Otherwise the
        previous stable version becomes stable; another rollback goes one further back. It must
        verify, but only on its fastest runtime, because a rollback is urgent; its schema is not
        compared, because it has been served before.
        """
        with self._changing():
            before = self.release()
            manifest = None
            if before.mode == "canary":
                after = Release(before.stable)
            else:
                after = Release(self._version_before(before.stable))
                manifest = self._verified(after.stable, "rolled back to", each_runtime=False)
                self._check_code(manifest)
            return self._replace("rollback", before, after, message, manifest)

    def canary(self, version: str, traffic: float, message: str = "") -> Change:
        """Let ``version`` answer ``traffic`` (0 to 1) of the requests, beside the stable one."""
        return self._accompany(version, "canary", traffic, message)

    def shadow(self, version: str, message: str = "") -> Change:
        """Let ``version`` predict the same rows as the stable one, to be compared with it."""
        return self._accompany(version, "shadow", 0.0, message)

    def clear(self, message: str = "") -> Change:
        """End the canary or shadow: only the stable version is served."""
        with self._changing():
            before = self.release()
            if before.candidate is None:
                raise NothingToChange(
                    f"There is no candidate: version {before.stable} is served alone."
                )
            return self._replace("clear", before, Release(before.stable), message)

    def _accompany(self, version: str, mode: Mode, traffic: float, message: str) -> Change:
        with self._changing():
            self.require(version)
            before = self.release()
            if version == before.stable:
                raise ReleaseRejected(
                    f"Version {version} is the stable one, and can't be its own {mode}."
                    if self._is_written()
                    else f"Version {version} is already served, though no release names it; "
                    "first promote the version that should be stable."
                )
            after = Release(before.stable, version, mode, traffic)
            unchanged = msgspec.structs.replace(before, code={}) == after
            if unchanged and self._has_recorded_code(version, before):
                raise NothingToChange(f"Version {version} is already the {mode}.")
            releases.parse_release(releases.release_document(after))  # the traffic is from 0 to 1
            manifest = self._verified(version, f"made a {mode}")
            obstacle = shadow_obstacle(manifest) if mode == "shadow" else ""
            if obstacle:
                raise ReleaseRejected(f"Version {version} can't be a shadow. {obstacle}")
            reasons = self._obstacles(before.stable, manifest, keeps_name=True)
            if reasons:
                raise ReleaseRejected(
                    f"Version {version} can't be the {mode} of {before.stable}, because callers "
                    "can't tell which of them answers:",
                    reasons,
                )
            return self._replace(mode, before, after, message, manifest)

    def _replace(
        self,
        action: str,
        before: Release | None,
        after: Release,
        message: str,
        verified: Manifest | None = None,
    ) -> Change:
        """Put ``after`` in force, with the code that each of its versions has: that in the manifest
        that was ``verified``, or else the one that was recorded before. Where no release was
        written, it is the one that runs now.
        """
        code = {} if before is None else dict(before.code)
        if verified is not None:
            code[verified.version] = code_sha256(verified)
        if not self._is_written():
            code = {version: self._code_of(version) for version in after.versions} | code
        recorded_now = {v: code[v] for v in after.versions if code.get(v)}
        after = msgspec.structs.replace(after, code=recorded_now)
        change = new_change(action, before, after, message)
        with recorded(self.directory, change):
            write_release(self.directory, after)
        return change

    def _code_of(self, version: str) -> str:
        """Return the SHA-256 of the code of ``version``; empty if there is none, or none known."""
        try:
            return code_sha256(self.manifest(version))
        except BundleError:
            return ""

    def _has_recorded_code(self, version: str, release: Release) -> bool:
        """Return True unless the code of ``version`` was replaced since it was released."""
        return release.code.get(version, "") == self._code_of(version)

    def _check_code(self, manifest: Manifest) -> None:
        """Raise `ReleaseRejected` if a version has other code than when it was released."""
        try:
            check_recorded(manifest, recorded_code(self.directory, manifest.version))
        except BundleError as error:
            refused = f"Version {manifest.version} is not rolled back to."
            raise ReleaseRejected(refused, [str(error)]) from error

    def code_changes(self, version: str) -> list[str]:
        """Return how the code of ``version`` differs from that of the stable version, as the lines
        of a unified diff; empty if it has the same.
        """
        self.require(version)
        before = None
        with suppress(BundleError):  # the first version, or a release that can't be read
            before = self.release().stable
        old = None if before in (None, version) else before
        return code_changes(self.directory, old, version)

    def _in_force(self) -> InForce:
        self.versions()
        return read_in_force(self.directory, name=self.name)

    def _is_written(self) -> bool:
        return (self.directory / releases.FILE_NAME).exists()

    def _release_or_fault(self) -> tuple[Release | None, list[str]]:
        """Return the release in force; or None, and why it is unknown."""
        try:
            return self.release(), []
        except BundleError as error:
            unknown = [f"Nothing is known of the stable version. {error}"]
            return None, unknown if self._is_written() or self._has_numbered() else []

    def _has_numbered(self) -> bool:
        """Return True if a version can be served without a release; if not, there are no
        callers.
        """
        try:
            return bool(bundles.numbered_versions(self.directory))
        except BundleError:
            return False

    def _verified(self, version: str, wish: str, *, each_runtime: bool = True) -> Manifest:
        report = verify(
            self.directory,
            version,
            measure=False,
            each_runtime=each_runtime,
            runtime=self.runtime,
            device=self.device,
            limits=self.limits,
            allow_code=self.allow_code,
            name=self.name,
        )
        if report.problems or report.manifest is None:
            raise ReleaseRejected(
                f"Version {version} is not {wish} because it fails verification:", report.problems
            )
        return report.manifest

    def _obstacles(self, stable: str, manifest: Manifest, *, keeps_name: bool = False) -> list[str]:
        """Return why ``manifest`` can't take over from ``stable``, or why that is unknown."""
        try:
            before = manifest_file.read_manifest(self.directory / stable / manifest_file.FILE_NAME)
        except BundleError as error:
            return [f"The stable version {stable} can't be compared. {error}"]
        return obstacles(before, manifest, keeps_name=keeps_name or bool(self.name))

    def _version_before(self, stable: str) -> str:
        changes = read_history(self.directory)
        first = changes[0].before.stable if changes and changes[0].before else stable
        earlier = stable_versions(self._before_history(first), changes, stable)[:-1]
        if not earlier:
            raise ReleaseRejected(
                f"There is no version before {stable} to go back to; promote the one to serve."
            )
        if earlier[-1] not in self.versions():
            raise ReleaseRejected(
                f"The version before {stable} was {earlier[-1]}, which is no longer in "
                f"{self.directory}; promote another."
            )
        return earlier[-1]

    def _before_history(self, first: str) -> Sequence[str]:
        """Return the versions that took over up to ``first``, before any release was recorded."""
        try:
            versions = read_succession(self.directory, name=self.name).versions
        except BundleError:
            return ()
        return versions[: versions.index(first)] if first in versions else ()

    def _summary(self, version: str, release: Release | None) -> VersionSummary:
        known = VersionSummary(version)
        if release is not None and version == release.stable:
            known = VersionSummary(version, "stable")
        elif release is not None and version == release.candidate and release.mode:
            traffic = release.traffic if release.mode == "canary" else None
            known = VersionSummary(version, release.mode, traffic)
        path = self.directory / version / manifest_file.FILE_NAME
        try:
            manifest = manifest_file.read_manifest(path)
            size = path.stat().st_size + sum(record.size for record in manifest.files.values())
        except (BundleError, OSError) as error:
            return replace(known, problem=str(error))
        return replace(
            known, created_at=manifest.created_at, bytes=size, training=manifest.training
        )

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock of the model; the system releases it if the process dies."""
        self.versions()
        if self.read_only:
            raise ReleaseRejected(
                "The example that comes with Lantern is read-only. Select your own model with "
                f"LANTERN_MODEL__PATH=models/NAME; `{COMMAND} model pack` makes one."
            )
        busy = ChangeUnderWay(f"Another process is changing {self.directory}; nothing was changed.")
        with locked(self.directory / LOCK_NAME, BundleError, busy=busy, mode=0o664):
            remove_scratch(self.directory / releases.FILE_NAME)
            yield
