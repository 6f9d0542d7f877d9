"""Making a bundle of an archive of TorchServe."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from ...model import manifest_file
from ...model.code.declaration import GOLDEN_REQUESTS, MAX_FILES, HandlerSpec
from ...model.code.torchserve.adapter import ARCHIVE_MANIFEST
from ...model.errors import BundleError
from ...model.manifest import Manifest
from ..bundle_writer import require_packages
from ..given_names import naming_as_given
from ..handlers import complete, requests_in
from .container import Unpacked, unpack
from .own_handlers import IMAGE_CLASSIFIER, TAKEN, why_not_taken
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
    with ``allow_code``, and so does its network where steps stand for one of TorchServe's own.
    Raises `BundleError`.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        directory = Path(scratch) / "archive"
        directory.mkdir()
        unpacked = unpack(path, directory)
        model = read_model(unpacked, path)
        if model.own_handler:
            _check_own_handler(model, path, allow_code)
            return [*unpacked.left, *_as_steps(model, unpacked, path, out, samples)]
        _check_handler(model, unpacked, path, allow_code)
        directory.rename(out)
    return [*unpacked.left, *_with_handler(model, unpacked, path, out, samples)]


def _check_own_handler(model: TorchServeModel, path: Path, allow_code: bool) -> None:
    """Raise `BundleError` unless steps can stand for TorchServe's own handler that an archive uses,
    and its network may run.
    """
    if model.own_handler not in TAKEN:
        raise BundleError(f"{path} {why_not_taken(model.own_handler)}")
    if not allow_code:
        raise BundleError(
            f"{path} has a network that runs its own program, "
            f"{model.model_file or model.serialized_file}. If you trust whoever made it, pack it "
            "with --allow-code; the bundle has no code."
        )
    require_packages("torch", "onnx", "onnxscript")


def _as_steps(
    model: TorchServeModel, unpacked: Unpacked, path: Path, out: Path, samples: Path | None
) -> list[str]:
    """Write a bundle with steps in place of one of TorchServe's own handlers."""
    # These import torch, which other archives don't need.
    if model.own_handler == IMAGE_CLASSIFIER:
        from .image_classifier import pack_image_classifier

        return pack_image_classifier(model, unpacked, path, out, samples)
    from .text_classifier import pack_text_classifier

    return pack_text_classifier(model, unpacked, path, out, samples)


def _check_handler(
    model: TorchServeModel, unpacked: Unpacked, path: Path, allow_code: bool
) -> None:
    """Raise `BundleError` unless a bundle may have the files of an archive, and its handler run."""
    for name in _OURS:
        if name in unpacked.files:
            raise BundleError(f"{path} has a file {name}, which a bundle calls one of its own.")
    if len(unpacked.files) > MAX_FILES:
        raise BundleError(f"{path} has more than {MAX_FILES:,} files.")
    if not allow_code:
        raise BundleError(
            f"{path} has code of its own, {model.handler_file}, which answers its requests. If you "
            "trust whoever made it, let it run with --allow-code."
        )


def _with_handler(
    model: TorchServeModel, unpacked: Unpacked, path: Path, out: Path, samples: Path | None
) -> list[str]:
    """Complete the bundle in ``out``, which has the files of an archive with its handler."""
    (out / ARCHIVE_MANIFEST).write_bytes(unpacked.metadata)
    beside = [name for name in unpacked.files if name != model.handler_file]
    manifest = Manifest(
        out.parent.name,
        out.name,
        description=model.described(path),
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
    requests = requests_in(samples, with_types=False)
    with naming_as_given(path, out, inside=f"{path}: "):
        notes = complete(out, manifest, requests)
    return [
        *model.notes,
        f"Its handler, {model.handler_file}, is carried over, and runs where model.allow_code "
        "says so.",
        *([f"It needs {', '.join(model.requirements)}."] if model.requirements else []),
        *notes,
    ]
