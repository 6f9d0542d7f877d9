"""Making a bundle of an archive of TorchServe."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from ...model import manifest_file
from ...model.code.declaration import GOLDEN_REQUESTS, MAX_FILES, HandlerSpec
from ...model.code.torchserve.adapter import ARCHIVE_MANIFEST
from ...model.errors import BundleError, shown
from ...model.manifest import Manifest
from ..handlers import complete, requests_in
from .container import unpack
from .torchserve import TorchServeModel, read_model

SUFFIXES = (".mar", ".tar.gz", ".tgz")
_OURS = (manifest_file.FILE_NAME, GOLDEN_REQUESTS, ARCHIVE_MANIFEST)


def is_archive(path: Path) -> bool:
    """Return True if ``path`` is an archive by its name."""
    return path.name.endswith(SUFFIXES)


def make_bundle_of_archive(
    path: Path, out: Path, *, allow_code: bool, samples: Path | None
) -> list[str]:
    """Write the bundle ``out``, whose path has name and version, of the archive ``path``.

    Returns what was assumed and what can't be carried over, a sentence each. Its handler runs only
    with ``allow_code``. Raises `BundleError`.
    """
    out.mkdir(parents=True)
    unpacked = unpack(path, out)
    model = read_model(unpacked, path)
    for name in _OURS:
        if name in unpacked.files:
            raise BundleError(f"{path} has a file {name}, which a bundle calls one of its own.")
    if len(unpacked.files) > MAX_FILES:
        raise BundleError(f"{path} has more than {MAX_FILES:,} files.")
    if model.own_handler:
        return _with_steps(model, path)
    if not allow_code:
        raise BundleError(
            f"{path} has code of its own, {model.handler_file}, which answers its requests. If you "
            "trust whoever made it, pack it with --allow-code."
        )
    (out / ARCHIVE_MANIFEST).write_bytes(unpacked.metadata)
    beside = [name for name in unpacked.files if name != model.handler_file]
    manifest = Manifest(
        out.parent.name,
        out.name,
        description=f"{model.name or path.name} {model.version}, from an archive of TorchServe.",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        task="tensors",
        classes=model.classes,
        handler=HandlerSpec(
            model.handler_file,
            "torchserve",
            (*sorted(beside), ARCHIVE_MANIFEST),
            model.requirements,
        ),
    )
    notes = complete(out, manifest, requests_in(samples, with_types=False))
    return [
        *unpacked.left,
        *model.notes,
        f"Its handler, {model.handler_file}, is carried over, and runs where model.allow_code "
        "says so.",
        *([f"It needs {', '.join(model.requirements)}."] if model.requirements else []),
        *notes,
    ]


def _with_steps(model: TorchServeModel, path: Path) -> list[str]:
    """Write the bundle of an archive that uses one of TorchServe's own handlers.

    This is where those that steps can stand for are mapped to them.
    """
    raise BundleError(
        f"{path} uses TorchServe's own handler {shown(model.own_handler)}, which isn't taken. "
        "Export its network and pack that, or give the archive a handler of its own."
    )
