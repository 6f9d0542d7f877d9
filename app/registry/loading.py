"""Loading: from the place of a model, and how to run it, to a `Model` that passed its self-test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..model import bundle as bundles
from ..model import isolation
from ..model.bundle import Bundle
from ..model.checkpoint_scan import scan_checkpoint
from ..model.code.bundle_access import HandlerBundle
from ..model.code.handler import load_handler
from ..model.code.imports import import_before_fork
from ..model.code.permission import AllowCode, check_allowed, check_recorded, code_sha256
from ..model.errors import BundleError
from ..model.isolation import DEFAULT_LIMITS, ProcessLimits
from ..model.manifest import Manifest
from ..model.manifest_file import FILE_NAME, read_manifest
from ..model.model import Model
from ..model.naming import as_name
from ..model.onnx_runtime import OnnxRuntime
from ..model.run_limits import UNLIMITED, RunLimits
from ..model.runtime import (
    SHARED_ROWS,
    BatchRows,
    NoNetwork,
    Runtime,
    RuntimeChoice,
    choose_runtime,
    import_library,
)
from ..model.steps.encoder import import_readers
from ..model.steps.limits import DEFAULT_SAMPLE_LIMITS, SampleLimits
from ..model.tasks import task_of
from ..model.torch_runtime import TorchRuntime


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The place of a model and the way to run it; see ``[model]`` in ``config/default.toml``.

    ``name`` is its name in the settings; empty if its files name it (see `app.model.naming`).
    ``feature_names`` and ``class_names`` describe a checkpoint without a manifest. ``batch_rows``
    is how many rows of several threads run together at most (`BatchRows`, `BatchingRuntime`).
    ``cache_size`` is the number of rows whose answers are remembered. ``max_answer_values`` limits
    the values of one answer; 0 is no limit. ``limits`` are for the check of unverified files,
    ``run_limits`` for each run of the network, and ``sample_limits`` for what its steps read. A
    handler runs where ``allow_code`` says so, and unless ``code`` is None, only the one with that
    SHA-256: none if it is empty.
    """

    path: Path
    name: str = ""
    version: str = ""
    runtime: RuntimeChoice = "auto"
    device: str = "cpu"
    threads: int = 1
    batch_rows: BatchRows = 0
    feature_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    cache_size: int = 0
    max_answer_values: int = 0
    limits: ProcessLimits = DEFAULT_LIMITS
    run_limits: RunLimits = UNLIMITED
    sample_limits: SampleLimits = DEFAULT_SAMPLE_LIMITS
    allow_code: AllowCode = False
    code: str | None = None


def load_model(source: ModelSource) -> Model:
    """Load, verify and self-test the model of ``source``.

    The manifest vouches for the files of a bundle, so they are loaded directly. A checkpoint
    without a manifest is first tried in a separate process. Raises `BundleError` if the model can't
    be served.
    """
    found = bundles.find_bundle(source.path, source.version)
    if not bundles.is_bare(found):
        return _load(source, found, _load_bundle)
    file = bundles.checkpoint_path(found)
    try:
        _check_bare(source)
    except BundleError:
        # What the file really is says more than that torch, which might not read it, is missing.
        isolation.run(scan_checkpoint, file, path=file, limits=source.limits)
        raise
    tried = isolation.run(_try_bare, source, found, path=file, limits=source.limits)
    model = _load(source, found, _load_bare)
    if model.checksum != tried:
        raise BundleError(f"{file} was replaced while it was being loaded; load it again.")
    return model


def _load(source: ModelSource, found: Path, load: Callable[..., _Loaded]) -> Model:
    bundle, runtime, checksum = load(source, found)
    manifest = bundle.manifest
    values = task_of(manifest).width
    if 0 < source.max_answer_values < values:
        raise BundleError(
            f"Version {manifest.version} answers {values:,} values for a row, and "
            f"limits.max_answer_values is {source.max_answer_values:,}: it couldn't answer any "
            "request. Raise the limit."
        )
    name = source.name or as_name(manifest.name)
    model = Model(
        bundle,
        runtime,
        checksum,
        name=source.name,
        handler=load_handler(bundle, name, source.max_answer_values, threads=source.threads),
        cache_size=source.cache_size,
        check_seconds=source.limits.seconds,
        sample_limits=source.sample_limits,
    )
    model.self_test()
    rows = source.batch_rows
    if rows == "auto":
        if model.takes_long:
            model.share_passes(SHARED_ROWS, is_measured=True)
    elif rows:
        model.share_passes(rows)
    return model


def _try_bare(source: ModelSource, found: Path) -> str:
    """Load a bare checkpoint as a worker would, on the CPU, and return its checksum."""
    on_cpu = replace(source, device="cpu", runtime="torch", batch_rows=0)
    return _load(on_cpu, found, _load_bare).checksum


def runtime_for(source: ModelSource) -> str:
    """Return the runtime that `load_model` will use, without loading anything.

    Raises `BundleError` as it would.
    """
    found = bundles.find_bundle(source.path, source.version)
    bare = bundles.is_bare(found)
    if bare:
        return _check_bare(source)
    return runtime_of(read_manifest(found / FILE_NAME), source.runtime, source.device)


def import_libraries(source: ModelSource) -> None:
    """Import what the model of ``source`` takes, without loading it; raises what that raises.

    Called before a fork, so that workers share it: torch alone has 200 MB.
    """
    import_library(runtime_for(source))
    found = bundles.find_bundle(source.path, source.version)
    if bundles.is_bare(found):
        return
    manifest = read_manifest(found / FILE_NAME)
    import_readers(manifest.steps)
    if manifest.handler is not None:
        name = _check_code(manifest, source)
        import_before_fork(manifest.handler, HandlerBundle(found, manifest, name))


def _check_code(manifest: Manifest, source: ModelSource) -> str:
    """Return the name of the model. Raises `BundleError` if its code may not run."""
    name = source.name or as_name(manifest.name)
    check_recorded(manifest, source.code)
    check_allowed(manifest, source.allow_code, name)
    return name


def runtime_of(manifest: Manifest, choice: RuntimeChoice, device: str) -> str:
    """Return the runtime that executes the network of a bundle; that of `NoNetwork` if it has none.

    Raises `BundleError`.
    """
    if not manifest.has_network and manifest.handler is not None:
        return NoNetwork.name
    networks = bundles.network_files(manifest)
    return choose_runtime(
        choice,
        has_onnx=bundles.ONNX in networks,
        has_checkpoint=bundles.CHECKPOINT in networks,
        device=device,
    )


_Loaded = tuple[Bundle, Runtime, str]
"""A bundle, what executes it, and the checksum of the file that is executed."""


def _load_bundle(source: ModelSource, path: Path) -> _Loaded:
    promised = path.name if path != source.path else source.version or None
    bundle = bundles.open_bundle(path, promised)
    manifest = bundle.manifest
    _check_code(manifest, source)
    name = runtime_of(manifest, source.runtime, source.device)
    if name == NoNetwork.name:
        return bundle, NoNetwork(), code_sha256(manifest).removeprefix("sha256:")
    file = bundles.ONNX if name == "onnx" else bundles.CHECKPOINT
    runtime = make_runtime(
        bundle, name, threads=source.threads, device=source.device, limits=source.run_limits
    )
    return bundle, runtime, manifest.files[file].sha256


def make_runtime(
    bundle: Bundle,
    name: str,
    *,
    threads: int = 1,
    device: str = "cpu",
    limits: RunLimits = UNLIMITED,
) -> Runtime:
    """Create the runtime ``name`` ("onnx" or "torch") for a bundle that has its network.

    Raises `BundleError` if the network can't be read, or doesn't match the manifest.
    """
    manifest = bundle.manifest
    if name == "onnx" and bundle.onnx is not None:
        return OnnxRuntime(
            bundle.onnx,
            threads,
            manifest.signature,
            device=device,
            has_rows=manifest.batch,
            limits=limits,
        )
    if bundle.checkpoint is None or manifest.task != "classification":
        raise BundleError(
            f"The task is {manifest.task!r}, and torch runs checkpoints of Lantern's own network, "
            "which classify; set model.runtime to 'auto' or 'onnx'."
        )
    from ..model.network import build_network, read_checkpoint

    checkpoint = read_checkpoint(bundle.checkpoint)
    width, classes = len(manifest.features), len(manifest.classes)
    told = (checkpoint.input_dim, checkpoint.output_dim, checkpoint.version)
    if told != (width, classes, manifest.version):
        raise BundleError(
            f"{bundle.checkpoint} has {told[0]} inputs, {told[1]} outputs and version "
            f"{told[2]!r}; the manifest says {width}, {classes} and {manifest.version!r}."
        )
    return TorchRuntime(build_network(checkpoint), threads, device, limits)


def _check_bare(source: ModelSource) -> str:
    """Return the runtime of a bare checkpoint. Raises `BundleError` if there is none."""
    return choose_runtime(source.runtime, has_onnx=False, has_checkpoint=True, device=source.device)


def _load_bare(source: ModelSource, path: Path) -> _Loaded:
    from ..model.network import build_network, read_checkpoint

    file = bundles.checkpoint_path(path)
    checkpoint = read_checkpoint(file)
    if path != source.path and checkpoint.version != path.name:
        raise BundleError(
            f"{file} is version {checkpoint.version!r}, and its directory says {path.name!r}: "
            "rename one of them."
        )
    network = build_network(checkpoint)  # before anything of the size that it claims is allocated
    bundle = bundles.open_bare_checkpoint(
        file,
        input_dim=checkpoint.input_dim,
        output_dim=checkpoint.output_dim,
        version=checkpoint.version,
        feature_names=source.feature_names,
        class_names=source.class_names,
    )
    runtime = TorchRuntime(network, source.threads, source.device, source.run_limits)
    return bundle, runtime, bundles.file_sha256(file)
