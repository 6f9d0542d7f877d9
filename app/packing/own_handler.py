"""Making a bundle of the owner's handler: around the network of another bundle, or in its place."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from ..model import bundle as bundles
from ..model import manifest_file
from ..model.code.declaration import GOLDEN_REQUESTS, HandlerSpec
from ..model.errors import BundleError
from ..model.manifest import Manifest
from .given_names import naming_as_given
from .handlers import complete, requests_in

SUFFIX = ".py"


@dataclass(frozen=True, slots=True)
class HandlerParts:
    """The parts of a handler beside its file: the bundle whose ``network`` it is around, None for
    none; the ``files`` that it imports or reads; and the packages that it ``requires``.
    """

    network: Path | None = None
    files: tuple[Path, ...] = ()
    requires: tuple[str, ...] = ()


NO_PARTS = HandlerParts()


def make_bundle_of_handler(
    path: Path, out: Path, parts: HandlerParts, *, allow_code: bool, samples: Path | None
) -> list[str]:
    """Write the bundle ``out``, whose path has name and version, of the handler in ``path``.

    Returns what was measured. It runs only with ``allow_code``. Raises `BundleError` and OSError.
    """
    if not allow_code:
        raise BundleError(f"{path} is code, which runs to be packed. Pack it with --allow-code.")
    out.mkdir(parents=True)
    manifest = _of_network(parts.network, out) if parts.network else _alone(out)
    spec = HandlerSpec(
        path.name, files=tuple(file.name for file in parts.files), requirements=parts.requires
    )
    for file in (path, *parts.files):
        if (out / file.name).exists() or file.name in (manifest_file.FILE_NAME, GOLDEN_REQUESTS):
            raise BundleError(f"{file} has the name of another file of the bundle; rename it.")
        if not file.is_file():
            raise BundleError(f"{file} is missing, or not a regular file.")
        shutil.copyfile(file, out / file.name)
    requests = requests_in(samples)
    with naming_as_given(path, out, {file.name: file for file in (path, *parts.files)}):
        return complete(out, replace(manifest, handler=spec), requests)


def _alone(out: Path) -> Manifest:
    return Manifest(out.parent.name, out.name, created_at=_now(), task="tensors")


def _of_network(network: Path, out: Path) -> Manifest:
    """Copy the files of a bundle with a network, without its handler, and return its manifest."""
    bundle = bundles.open_bundle(network)
    manifest = bundle.manifest
    if not manifest.has_network:
        raise BundleError(f"{network} has no network that a handler could be around.")
    names = [*bundles.network_files(manifest), manifest.golden_file, manifest.reference]
    files = {name: manifest.files[name] for name in names if name}
    for name in files:
        shutil.copyfile(network / name, out / name)
    return replace(manifest, name=out.parent.name, version=out.name, created_at=_now(), files=files)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
