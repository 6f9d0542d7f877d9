"""The archive of an exported program: take a ``.pt2`` file apart, and keep what is safe.

``torch.export.load`` must not see a stranger's file: it unpickles weights, constants and example
inputs with ``weights_only=False``, and loads compiled libraries. Here a new archive is made only of
what `document` has checked and of raw tensors: no pickle, no code, no library.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...model.errors import BundleError, first_line, shown
from ...model.file_kind import archive_kind, foreign_kind, members_of
from .calling import Calling
from .document import check_document, check_values, objects, read_json

_PROGRAM = "models/model.json"
_WEIGHTS = "data/weights/model_weights_config.json"
_CONSTANTS = "data/constants/model_constants_config.json"
_EXAMPLES = "data/sample_inputs/model.pt"
_SMALL = ("archive_format", "archive_version", "byteorder", ".data/version")
_RECORDS = {_WEIGHTS: re.compile(r"weight_[0-9]+"), _CONSTANTS: re.compile(r"tensor_[0-9]+")}
_MAX_MEMBERS = 100_000


class SafeArchive(NamedTuple):
    """A program that is safe for ``torch.export.load``.

    ``content`` is a copy of it without anything that could run code; ``torch`` is the version that
    wrote the original, for messages.
    """

    content: io.BytesIO
    torch: str
    calling: Calling


def safe_archive(path: Path) -> SafeArchive:
    """Return the program in ``path`` as an archive that is safe to load.

    Raises `BundleError`, which says what is wrong with the file.
    """
    try:
        records = _records(path)
        document = _document(records)
        calling = check_document(document)
        return SafeArchive(_archive(records, document), _version(document), calling)
    except BundleError as error:
        raise BundleError(f"{path} {error}") from None


def _version(document: Mapping[str, Any]) -> str:
    version = document.get("torch_version")
    return version[:40] if isinstance(version, str) else "of an unknown version"


def _records(path: Path) -> dict[str, bytes]:
    """Return the archive's files, without the name of its root; in total no larger than the
    file.
    """
    if not path.is_file():
        raise BundleError("does not exist, or is not a regular file.")
    try:
        kind = foreign_kind(path)
        if kind:
            raise BundleError(f"is not an archive that torch.export.save writes: it {kind}.")
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = members_of(archive)
            kind = archive_kind(names, but=_PROGRAM)
            if kind:
                raise BundleError(f"{kind}.")
            _check_entries(archive, names, len(content))
            return {
                name: archive.read(entry)
                for name, entry in zip(names, archive.infolist(), strict=True)
            }
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BundleError(
            f"is not an archive that torch.export.save writes: {first_line(error)}."
        ) from error
    except OSError as error:
        raise BundleError(f"can't be read: {error.strerror}.") from error


def _check_entries(archive: zipfile.ZipFile, names: list[str], size: int) -> None:
    """Refuse an archive that is compressed, or not written by torch."""
    entries = archive.infolist()
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > size:
        raise BundleError("is a compressed zip; write it with torch.export.save.")
    if len(set(names)) != len(names):
        raise BundleError("has two files with the same name; write it with torch.export.save.")
    if len(names) > _MAX_MEMBERS:
        raise BundleError(f"holds {len(names):,} files; at most {_MAX_MEMBERS:,} are read.")


def _document(records: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the one program in the archive."""
    programs = [name for name in records if name.startswith("models/")]
    if programs != [_PROGRAM]:
        raise BundleError(
            f"holds {len(programs)} programs, but exactly one, called 'model', is required; write "
            "it with torch.export.save."
        )
    return _json(records, _PROGRAM)


def _archive(records: Mapping[str, bytes], document: dict[str, Any]) -> io.BytesIO:
    """Write a new archive of ``document`` and the raw tensors; nothing else reaches torch."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as writer:
        for name in _SMALL:
            if name in records:
                writer.writestr(f"model/{name}", records[name][:64])
        writer.writestr(f"model/{_PROGRAM}", json.dumps(document))
        writer.writestr(f"model/{_EXAMPLES}", b"")  # a pickle, and not needed
        for config_name, form in _RECORDS.items():
            config = _json(records, config_name)
            directory = config_name.rpartition("/")[0]
            names = _tensor_records(config, form, records, directory)
            writer.writestr(f"model/{config_name}", json.dumps(config))
            for name in sorted(names):
                writer.writestr(f"model/{directory}/{name}", records[f"{directory}/{name}"])
    archive.seek(0)
    return archive


def _tensor_records(
    config: dict[str, Any], form: re.Pattern[str], records: Mapping[str, bytes], directory: str
) -> set[str]:
    """Return the names of the records that a list of tensors refers to; all must be raw numbers."""
    names = set()
    try:
        for tensor, entry in config["config"].items():
            check_values({"parameter_name": tensor})
            name = entry["path_name"]
            if entry["use_pickle"] is not False or not form.fullmatch(name):
                raise BundleError(
                    f"is refused: {shown(tensor)} in it is a Python object and not a plain tensor, "
                    "and loading it could run hidden code."
                )
            for part in objects(entry):
                check_values(part)
            if f"{directory}/{name}" not in records:
                raise BundleError(f"lacks {directory}/{name}: it was cut short.")
            _check_size(tensor, entry["tensor_meta"], len(records[f"{directory}/{name}"]))
            names.add(name)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        said = f"{type(error).__name__} at {first_line(error)}"
        raise BundleError(f"is malformed: {said}.") from error
    return names


def _check_size(tensor: str, meta: Mapping[str, Any], size: int) -> None:
    """Refuse a tensor that lies outside its record, or would be larger than it."""
    sizes = [part["as_int"] for part in meta["sizes"]]
    strides = [part["as_int"] for part in meta["strides"]]
    offset = meta["storage_offset"]["as_int"]
    if not all(type(number) is int and number >= 0 for number in (*sizes, *strides, offset)):
        raise ValueError("the sizes of a tensor")
    numbers = math.prod(sizes)
    last = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if numbers > size or (numbers and last >= size):
        raise BundleError(
            f"is refused: {shown(tensor)} in it is a tensor of {shown(numbers)} numbers, but the "
            f"file has only {size:,} bytes for it. The file was cut short, or the tensor is "
            "expanded: if so, let the model hold tensor.contiguous() instead."
        )


def _json(records: Mapping[str, bytes], name: str) -> dict[str, Any]:
    if name not in records:
        raise BundleError(
            f"lacks {name}: it was cut short, or written by another version of torch than "
            f"{torch.__version__}, or can't be read without running code."
        )
    return read_json(records[name], name)
