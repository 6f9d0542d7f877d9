"""Make a bundle from a user's model: a checkpoint, an exported program or an ONNX graph.

Serving the result needs none of the model's Python code: it is an ONNX graph (and the checkpoint of
our own network), checked to answer as the original does. The file is read in a separate process,
bounded in memory and time; this module takes care of the bundle's place.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..model import isolation, manifest_file
from ..model.errors import BundleError
from ..model.file_kind import SAFETENSORS, foreign_kind
from ..model.isolation import DEFAULT_LIMITS, ProcessLimits
from ..model.manifest import VERSION, VERSION_FORM, Manifest
from ..model.manifest_file import read_manifest
from ..registry.release import read_release
from .archives.packing import is_archive, make_bundle_of_archive
from .bundle_writer import check_replaceable, place_bundle, require_packages
from .description import ModelDescription
from .huggingface.directory import check_directory
from .own_handler import NO_PARTS, HandlerParts, make_bundle_of_handler
from .own_handler import SUFFIX as HANDLER
from .source import CHECKPOINT_SUFFIXES, GRAPH_SUFFIX, PROGRAM_SUFFIX
from .statement import Statement

NOTHING_DESCRIBED, NOTHING_STATED = ModelDescription(), Statement()
_OTHER_SUFFIXES = {".safetensors": SAFETENSORS}


@dataclass(frozen=True, slots=True)
class Packed:
    """The manifest of a bundle that was written, and what was assumed and measured."""

    manifest: Manifest
    notes: tuple[str, ...]


def pack_file(
    source: Path,
    out: Path,
    *,
    samples: Path | None = None,
    description: ModelDescription = NOTHING_DESCRIBED,
    statement: Statement = NOTHING_STATED,
    handler: HandlerParts = NO_PARTS,
    replace: bool = False,
    limits: ProcessLimits = DEFAULT_LIMITS,
) -> Packed:
    """Write the bundle ``out`` (``models/NAME/VERSION``) from the model in ``source``.

    The file's suffix says what it is: ``.pt``, ``.pth`` or ``.ckpt`` a checkpoint of our network,
    ``.pt2`` an exported program, ``.onnx`` a graph, ``.mar`` or ``.tar.gz`` an archive of
    TorchServe, ``.py`` a handler, with its parts in ``handler``; a directory is one of
    transformers. ``samples`` is a CSV file with a column for each feature, or a ``.npz`` or
    ``.json`` with an array for each input; with steps, pictures or texts; for an archive or a
    handler a file to send as a request, or a directory of them. Without any, the example is a row
    of ones, or made for the steps. An existing bundle is kept unless ``replace``. ``limits`` are
    those of the child process. Raises `BundleError`, with a message for the user; ``out`` is then
    unchanged.
    """
    name, version = _place(out)
    _check_target(out, name, description, replace=replace)
    _check_suffix(source)
    _check_samples(samples)
    require_packages(*_needed(source))
    make: Callable[..., list[str]] = _make
    said: tuple[Any, ...] = (description, statement, samples)
    if _is_code(source):
        _check_nothing_is_described(source, description, statement)
        make, said = _make_of_code, (statement.allow_code, samples, handler)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
            made = Path(scratch, name, version)
            for_packing = limits.for_packing()
            notes = isolation.run(make, source, made, *said, path=source, limits=for_packing)
            manifest = read_manifest(made / manifest_file.FILE_NAME)
            place_bundle(made, out, replaces=replace)
    except OSError as error:
        raise BundleError(f"{out} can't be written: {error.strerror}.") from error
    return Packed(manifest, tuple(map(str, notes)))


def _check_target(out: Path, name: str, description: ModelDescription, *, replace: bool) -> None:
    """Raise `BundleError` unless the bundle may be written, under the ``name`` in its path."""
    if description.name not in ("", name):
        raise BundleError(
            f"The features file calls the model {description.name!r}, and {out} calls it {name!r}; "
            "use one name, or leave it out of the file."
        )
    check_replaceable(out)
    if not replace and out.is_dir() and any(out.iterdir()):
        raise BundleError(
            f"{out} already exists. Pack the model as another version, or replace it (--replace)."
        )
    _refuse_released(out)


def _check_samples(samples: Path | None) -> None:
    """Raise `BundleError` for samples that could be read only once."""
    if samples is not None and samples.exists() and not (samples.is_file() or samples.is_dir()):
        raise BundleError(
            f"{samples} is a pipe or a device, and samples are read more than once: write them to "
            "a file."
        )


def _check_suffix(source: Path) -> None:
    if source.is_dir():
        check_directory(source)
        return
    if source.suffix in (*CHECKPOINT_SUFFIXES, PROGRAM_SUFFIX, GRAPH_SUFFIX):
        return
    if _is_code(source):
        return
    kind = _OTHER_SUFFIXES.get(source.suffix) or _kind_of(source)
    if kind:
        raise BundleError(f"{source} {kind}.")
    raise BundleError(
        f"{source} must be a .pt2 (torch.export.save), an .onnx, or a .pt, .pth or .ckpt (a "
        "checkpoint of Lantern's own network)."
    )


def _is_code(source: Path) -> bool:
    """Return True for what comes with a handler: an archive, or the handler itself."""
    return is_archive(source) or source.suffix == HANDLER


def _needed(source: Path) -> tuple[str, ...]:
    """Return the packages that packing ``source`` takes."""
    if _is_code(source):
        return ()  # what a handler needs is its own
    of_torch = () if source.suffix == GRAPH_SUFFIX else ("torch", "onnxscript")
    return ("onnx", *of_torch)


def _kind_of(source: Path) -> str:
    """Return what a file of another name is, by its first bytes; "" if they don't show it."""
    try:
        return foreign_kind(source)
    except OSError:
        return ""


def _make(
    source: Path,
    out: Path,
    description: ModelDescription,
    statement: Statement,
    samples: Path | None,
) -> list[str]:
    """Convert the model, in the process that may import torch and open the file."""
    from .conversion import make_bundle

    try:
        return make_bundle(
            source, out, description=description, statement=statement, samples=samples
        )
    except OSError as error:
        raise BundleError(f"The bundle can't be written: {error.strerror}.") from error


def _make_of_code(
    source: Path,
    out: Path,
    allow_code: bool,
    samples: Path | None,
    handler: HandlerParts,
) -> list[str]:
    """Make a bundle with a handler, in the process that may run it."""
    try:
        if is_archive(source):
            return make_bundle_of_archive(source, out, allow_code=allow_code, samples=samples)
        return make_bundle_of_handler(source, out, handler, allow_code=allow_code, samples=samples)
    except OSError as error:
        raise BundleError(f"The bundle can't be written: {error.strerror}.") from error


def _check_nothing_is_described(
    source: Path, description: ModelDescription, statement: Statement
) -> None:
    """Raise `BundleError` if something is said of a network that the handler alone knows."""
    described = dataclasses.replace(description, name="") != NOTHING_DESCRIBED
    if described or dataclasses.replace(statement, allow_code=False) != NOTHING_STATED:
        raise BundleError(
            f"The handler in {source} says what it takes and answers: leave out --task, --outputs, "
            "--features, names and --truth."
        )


def _place(out: Path) -> tuple[str, str]:
    """Return the name and the version in the path of a bundle."""
    name, version = out.absolute().parts[-2:] if len(out.absolute().parts) > 2 else ("", "")
    for what, text in (("name", name), ("version", version)):
        if not VERSION.fullmatch(text):
            raise BundleError(
                f"{out} must end in the name of the model and its version, as in models/churn/1; "
                f"a {what} must be {VERSION_FORM}."
            )
    return name, version


def _refuse_released(out: Path) -> None:
    """Raise `BundleError` for a version that is served: replacing it would be a release that was
    not verified, compared, or recorded in the history.
    """
    if not (out / manifest_file.FILE_NAME).is_file():
        return
    release = None
    with suppress(BundleError):  # an unreadable file releases nothing
        release = read_release(out.parent)
    if release is not None and out.name in release.versions:
        raise BundleError(
            f"Version {out.name} is released, so it is not replaced. Pack the model as another "
            "version, and promote that."
        )
