"""Bundles with a handler: their files, and golden requests with what it answers now.

The handler is executed for that, so this runs in a process of its own, where the owner allows it.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from ..model import bundle as bundles
from ..model import manifest_file
from ..model.bundle import Bundle
from ..model.code.errors import LOWEST_STATUS
from ..model.code.golden import answered, write_golden_requests
from ..model.code.handler import Run, load_handler
from ..model.code.request import HandlerRequest
from ..model.errors import BundleError
from ..model.manifest import FileRecord, Manifest
from ..model.model import Model
from ..model.runtime import NoNetwork, Runtime
from ..registry.loading import make_runtime

MOST_REQUESTS = 20
_LARGEST_SAMPLE = 8 << 20


def complete(directory: Path, manifest: Manifest, requests: Sequence[HandlerRequest]) -> list[str]:
    """Complete the bundle in ``directory``, whose files are there, and return what was measured.

    The ``requests`` become golden ones, with the answers of the handler. Raises `BundleError`, also
    if it refuses all of them, or doesn't answer one twice alike.
    """
    handler_spec = manifest.handler
    assert handler_spec is not None
    files = {**manifest.files, **records(directory, handler_spec.all_files)}
    manifest = replace(manifest, files=files)
    bundle = bundles.describe(directory, manifest)
    runtime: Runtime = make_runtime(bundle, "onnx") if manifest.has_network else NoNetwork()
    handler = load_handler(bundle, manifest.name)
    assert handler is not None
    run: Run = Model(bundle, runtime, "", handler=handler).run_rows
    golden = [answered(handler, request, run) for request in requests]
    refused = [each for each in golden if each.status >= LOWEST_STATUS]
    if golden and len(refused) == len(golden):
        raise BundleError(
            f"The handler refuses every sample: {refused[0].answer!r}"[:500] + ". Give one that it "
            "answers."
        )
    write_golden_requests(golden, directory / handler_spec.golden)
    files = {**files, **records(directory, [handler_spec.golden])}
    manifest_file.write_manifest(
        replace(manifest, files=files), directory / manifest_file.FILE_NAME
    )
    _try_again(directory, runtime)
    if not golden:
        return ["There are no golden requests, so nothing verifies what the handler answers."]
    return [f"The handler answers {len(golden)} golden request{'s' * (len(golden) > 1)}."]


def _try_again(directory: Path, runtime: Runtime) -> None:
    """Raise `BundleError` unless the handler, loaded once more, answers alike."""
    bundle: Bundle = bundles.open_bundle(directory)
    handler = load_handler(bundle, bundle.manifest.name)
    Model(bundle, runtime, "", handler=handler).self_test()


def records(directory: Path, names: Iterable[str]) -> Mapping[str, FileRecord]:
    """Return the sums and sizes of files."""
    return {
        name: FileRecord(bundles.file_sha256(directory / name), (directory / name).stat().st_size)
        for name in names
    }


def requests_in(samples: Path | None, *, with_types: bool = True) -> list[HandlerRequest]:
    """Return a request for each sample: a file, or those in a directory, at most `MOST_REQUESTS`.

    With ``with_types`` its media type is that of the file's name; without, only JSON's is stated,
    as clients do that send files as they are. Raises `BundleError`.
    """
    if samples is None:
        return []
    if not samples.exists():
        raise BundleError(f"There is no file {samples} to send as a sample.")
    try:
        files = sorted(samples.iterdir()) if samples.is_dir() else [samples]
        requests = []
        for file in [each for each in files if each.is_file()][:MOST_REQUESTS]:
            if file.stat().st_size > _LARGEST_SAMPLE:
                raise BundleError(f"{file} has more than {_LARGEST_SAMPLE >> 20} MiB.")
            kind = mimetypes.guess_type(file.name)[0] or ""
            if not with_types and kind != "application/json":
                kind = ""
            requests.append(HandlerRequest(file.read_bytes(), kind))
    except OSError as error:
        raise BundleError(f"{samples} can't be read: {error.strerror}.") from error
    if not requests:
        raise BundleError(f"{samples} has no file to send as a sample.")
    return requests
