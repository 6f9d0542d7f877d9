"""Bundles with a handler, made of the text of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from app.model import bundle as bundles
from app.model.bundle import Bundle, describe
from app.model.code.answers import HandlerAnswer
from app.model.code.declaration import GOLDEN_REQUESTS, HandlerSpec, Interface
from app.model.code.golden import answered, write_golden_requests
from app.model.code.handler import load_handler
from app.model.code.permission import code_sha256
from app.model.code.request import HandlerRequest
from app.model.manifest import FileRecord, Manifest
from app.model.manifest_file import FILE_NAME, read_manifest, write_manifest
from app.model.model import Model
from app.registry.loading import make_runtime
from app.registry.release import Release, write_release

PLAIN = """
class Handler:
    def load(self, bundle):
        self.bundle = bundle

    def predict(self, request):
        return request.json()["value"] * 2
"""
"""A handler that doubles a number."""


def with_handler(
    out: Path,
    source: str = PLAIN,
    *,
    files: Mapping[str, bytes] | None = None,
    requests: Sequence[HandlerRequest] = (HandlerRequest(b'{"value": 2}', "application/json"),),
    interface: Interface = "lantern",
    **members: Any,
) -> Path:
    """Write a bundle whose handler is ``source``, to ``out``, around the network that may be there.

    The golden requests are ``requests`` with what is answered now.
    """
    out.mkdir(parents=True, exist_ok=True)
    given = {"handler.py": source.encode(), **(files or {})}
    for name, content in given.items():
        (out / name).write_bytes(content)
    beside = tuple(name for name in given if name != "handler.py")
    spec = HandlerSpec("handler.py", interface, beside)
    written: Mapping[str, FileRecord] = {}
    if (out / FILE_NAME).is_file():
        manifest = read_manifest(out / FILE_NAME)
        written = manifest.files
    else:
        manifest = Manifest(out.parent.name, out.name, task="tensors")
    manifest = replace(manifest, handler=spec, **members)
    manifest = replace(manifest, files={**written, **records(out, given)})
    bundle = describe(out, manifest)
    golden = [] if not requests else answers_now(bundle, requests)
    write_golden_requests(golden, out / GOLDEN_REQUESTS)
    files_now = {**manifest.files, **records(out, [GOLDEN_REQUESTS])}
    write_manifest(replace(manifest, files=files_now), out / FILE_NAME)
    return out


def answers_now(bundle: Bundle, requests: Sequence[HandlerRequest]) -> list[Any]:
    handler = load_handler(bundle, bundle.manifest.name)
    assert handler is not None
    run: Any = None
    if bundle.manifest.has_network:
        run = make_runtime(bundle, "onnx").run
    return [answered(handler, request, run) for request in requests]


def write_release_of(models: Path, release: Release) -> None:
    """Write a release with the record of the code that its versions have now."""
    code = {
        version: code_sha256(read_manifest(models / version / FILE_NAME))
        for version in release.versions
    }
    write_release(models, replace(release, code=code))


def records(directory: Path, names: Any) -> dict[str, FileRecord]:
    return {
        name: FileRecord(bundles.file_sha256(directory / name), (directory / name).stat().st_size)
        for name in names
    }


def answer(model: Model, request: HandlerRequest) -> HandlerAnswer:
    (found,) = model.answer([request])
    return found
