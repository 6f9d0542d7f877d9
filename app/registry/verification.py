"""Verification: is a version fit to serve? Every fault is reported, not only the first.

What a worker checks when it loads a version is checked here on each runtime that the version
supports and that is installed, and the latency of a prediction is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..model import bundle as bundles
from ..model import isolation, manifest_file
from ..model.bundle import Bundle
from ..model.code.errors import LOWEST_STATUS
from ..model.code.golden import read_golden_requests
from ..model.code.handler import load_handler
from ..model.code.permission import AllowCode, check_allowed
from ..model.errors import BundleError, first_line
from ..model.golden import Golden
from ..model.isolation import DEFAULT_LIMITS, ProcessLimits
from ..model.manifest import Manifest
from ..model.model import Model
from ..model.naming import as_name
from ..model.reference import read_reference
from ..model.runtime import NoNetwork, Runtime, RuntimeChoice, is_installed
from ..model.self_test import largest_difference, runs_of
from ..model.signature import Tensors
from .loading import make_runtime, runtime_of

_ROWS = 1000
_WARM_UP = 10
_SINGLE_RUNS, _BATCH_RUNS = 300, 20
_SECONDS = 2.0
"""The most seconds that one measurement may take: a slow network is measured on fewer runs."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds in the runtime alone: one row's median and 99th percentile, and the median of
    1,000 rows together.

    Without rows the first two are those of a run, and the last is None.
    """

    one_row_p50: float
    one_row_p99: float
    thousand_rows: float | None


@dataclass(frozen=True, slots=True)
class Differences:
    """The largest absolute differences of an output from the golden one: each row alone, and all
    together.

    They are None where there are no numbers, or where they can't be measured.
    """

    alone: float | None = None
    together: float | None = None


@dataclass(frozen=True, slots=True)
class RuntimeReport:
    """The result of one runtime: ``problem`` is a sentence, empty if all is well.

    ``outputs`` has the differences of each output from the golden data.
    """

    name: str
    outputs: Mapping[str, Differences] = field(default_factory=dict)
    latency: Latency | None = None
    problem: str = ""

    @property
    def single_difference(self) -> float | None:
        """The largest difference of any output where each row is alone; None if there is none."""
        return _largest(each.alone for each in self.outputs.values())

    @property
    def batch_difference(self) -> float | None:
        """The largest difference of any output where all are together; None if there is none."""
        return _largest(each.together for each in self.outputs.values())


@dataclass(frozen=True, slots=True)
class Report:
    """The result for a version: ``problems`` are all its faults, a sentence each.

    ``manifest`` is None if it can't be read.
    """

    version: str
    manifest: Manifest | None
    runtimes: tuple[RuntimeReport, ...]
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """True if the version is fit to serve."""
        return not self.problems


def verify(
    directory: Path,
    version: str,
    *,
    threads: int = 1,
    measure: bool = True,
    each_runtime: bool = True,
    runtime: RuntimeChoice = "auto",
    device: str = "cpu",
    limits: ProcessLimits = DEFAULT_LIMITS,
    allow_code: AllowCode = False,
    name: str = "",
) -> Report:
    """Examine ``version`` of the model in ``directory``: checksums, schema, golden samples on each
    runtime, and, if ``measure``, the latency.

    Unless ``each_runtime``, only the version's runtime that starts fastest is tried: importing
    torch alone takes a second. The version must have what ``runtime`` executes on ``device``, as
    the service's settings require. Each runtime is tried in a separate process, within ``limits``.
    A handler is tried where ``allow_code`` says so, by ``name`` or that in the manifest; otherwise
    that is the version's fault.
    Never raises for a faulty version: the report says what is wrong.
    """
    path = directory / version
    try:
        manifest = manifest_file.read_manifest(path / manifest_file.FILE_NAME)
    except BundleError as error:
        return Report(version, None, (), (str(error),))
    damaged = _damaged_files(path, manifest)
    not_allowed = _problems(check_allowed, manifest, allow_code, name or as_name(manifest.name))
    problems = [
        *_problems(bundles.check_version, path, manifest, version),
        *damaged.values(),
        *_problems(bundles.describe, path, manifest),
        *_problems(_check_reference, path, manifest, damaged),
        *_problems(runtime_of, manifest, runtime, device),
        *not_allowed,
    ]
    reports: list[RuntimeReport] = []
    for runtime_name, file in _to_try(manifest, damaged, can_run=not not_allowed):
        if each_runtime or not reports:
            bundle = bundles.describe(path, manifest)
            reports.append(_tried(bundle, runtime_name, path / file, (threads, measure), limits))
    problems += [f"{report.name}: {report.problem}" for report in reports if report.problem]
    return Report(version, manifest, tuple(reports), tuple(problems))


def _to_try(
    manifest: Manifest, damaged: Mapping[str, str], *, can_run: bool
) -> Iterator[tuple[str, str]]:
    """Yield the runtimes on which a version can be tried, each with the file that it executes.

    A file that isn't the one that was packed is reported, and not opened: it may be hostile.
    Neither is a network whose handler may not run, because it is tried with it.
    """
    handler = manifest.handler
    used = {manifest.golden_file, *([*handler.all_files, handler.golden] if handler else ())}
    if not can_run or not used.isdisjoint(damaged):
        return
    networks = bundles.network_files(manifest)
    for name, file in (("onnx", bundles.ONNX), ("torch", bundles.CHECKPOINT)):
        if file in networks and file not in damaged and is_installed(name):
            yield name, file
    if handler is not None and not manifest.has_network:
        yield NoNetwork.name, handler.file


def _check_reference(path: Path, manifest: Manifest, damaged: Mapping[str, str]) -> None:
    """Raise `BundleError` for a reference that is the file that was packed, and can't be read."""
    if manifest.reference and manifest.reference not in damaged:
        read_reference(path / manifest.reference)


def _problems(check: Callable[..., object], *arguments: Any, **options: Any) -> list[str]:
    """Return what a check raises, as a list of one sentence; empty if all is well."""
    try:
        check(*arguments, **options)
    except BundleError as error:
        return [str(error)]
    return []


def _damaged_files(path: Path, manifest: Manifest) -> dict[str, str]:
    """Return the names of the files that differ from those that were packed, each with its
    fault.
    """
    return {
        name: problem
        for name, record in manifest.files.items()
        for problem in _problems(bundles.check_file, path / name, record)
    }


def _tried(
    bundle: Bundle, name: str, file: Path, how: tuple[int, bool], limits: ProcessLimits
) -> RuntimeReport:
    """Examine a runtime in a separate process, and return its report."""
    try:
        report = isolation.run(_examine, bundle, name, *how, path=file, limits=limits)
    except BundleError as error:
        return RuntimeReport(name, problem=str(error))
    latency, outputs = report.pop("latency"), report.pop("outputs")
    return RuntimeReport(
        **report,
        outputs={name: Differences(**each) for name, each in outputs.items()},
        latency=latency and Latency(**latency),
    )


def _examine(bundle: Bundle, name: str, threads: int, measure: bool) -> dict[str, Any]:
    """Return the `RuntimeReport` of one runtime, as plain values."""
    return asdict(_report(bundle, name, threads=threads, measure=measure))


def _report(bundle: Bundle, name: str, *, threads: int, measure: bool) -> RuntimeReport:
    try:
        if name == NoNetwork.name:
            return _report_of_handler(bundle, measure=measure)
        golden = bundle.read_golden()
        assert golden is not None  # a manifest that could be read has them
        runtime = make_runtime(bundle, name, threads=threads)
        problem = ""
        model = _model(bundle, runtime)
        together, *alone = runs_of(bundle.manifest, golden, model.steps)
        outputs = _differences(runtime, together, alone)
        try:
            model.self_test()  # the same judgement as in a worker
        except BundleError as error:
            problem = str(error)
        latency = None
        if measure and not problem:
            thousand = _thousand(together.inputs) if alone else None
            latency = measure_latency(
                runtime, [each.inputs for each in alone or [together]], thousand
            )
    except BundleError as error:
        return RuntimeReport(name, problem=str(error))
    except Exception as error:  # of the library: a graph that loads can fail to run
        return RuntimeReport(name, problem=f"The network can't be run: {first_line(error)}")
    return RuntimeReport(name, outputs, latency, problem)


def _report_of_handler(bundle: Bundle, *, measure: bool) -> RuntimeReport:
    """Return the report of a handler that predicts without a network."""
    model = _model(bundle, NoNetwork())
    model.self_test()
    latency = None
    if measure and bundle.directory is not None and bundle.manifest.handler is not None:
        golden = read_golden_requests(bundle.directory / bundle.manifest.handler.golden)
        answered = [each.request for each in golden if each.status < LOWEST_STATUS]
        if answered:
            single = _timed(lambda request: model.answer([request]), answered, _SINGLE_RUNS)
            p50, p99 = np.percentile(single, [50, 99]).tolist()
            latency = Latency(p50, p99, None)
    return RuntimeReport(NoNetwork.name, latency=latency)


def _model(bundle: Bundle, runtime: Runtime) -> Model:
    """Return the model of a bundle whose code may run."""
    return Model(bundle, runtime, "", handler=load_handler(bundle, as_name(bundle.manifest.name)))


def _differences(
    runtime: Runtime, together: Golden, alone: Sequence[Golden]
) -> dict[str, Differences]:
    """Return the differences of each output; without rows, all of it is one row that is alone."""
    single = _largest_of_each(runtime, alone or [together])
    batch = _largest_of_each(runtime, [together]) if alone else {}
    return {name: Differences(single[name], batch.get(name)) for name in together.outputs}


def _largest_of_each(runtime: Runtime, runs: Sequence[Golden]) -> dict[str, float | None]:
    """Return the largest difference of each output; None where it can't be measured."""
    found: dict[str, list[float | None]] = {name: [] for name in runs[0].outputs}
    for golden in runs:
        outputs = runtime.run(golden.inputs)
        for name, wanted in golden.outputs.items():
            found[name].append(largest_difference(outputs[name], wanted))
    return {name: None if None in each else _largest(each) for name, each in found.items()}


def _largest(differences: Iterable[float | None]) -> float | None:
    return max((each for each in differences if each is not None), default=None)


def _thousand(inputs: Tensors) -> Tensors:
    """Return 1,000 rows, those of ``inputs`` over and over."""
    return {name: np.resize(array, (_ROWS, *array.shape[1:])) for name, array in inputs.items()}


def measure_latency(
    runtime: Runtime, alone: Sequence[Tensors], together: Tensors | None
) -> Latency:
    """Measure ``runtime`` on inputs ``alone``, and on 1,000 rows ``together``; see `Latency`."""
    single = _timed(runtime.run, alone, _SINGLE_RUNS)
    p50, p99 = np.percentile(single, [50, 99]).tolist()
    if together is None:
        return Latency(p50, p99, None)
    return Latency(p50, p99, float(np.median(_timed(runtime.run, [together], _BATCH_RUNS))))


def _timed(run: Callable[[Any], object], inputs: Sequence[Any], runs: int) -> list[float]:
    """Return the milliseconds of up to ``runs`` runs, after a warm-up."""
    milliseconds: list[float] = []
    end = time.perf_counter() + _SECONDS
    for number in range(-_WARM_UP, runs):
        started = time.perf_counter()
        run(inputs[number % len(inputs)])
        finished = time.perf_counter()
        if number >= 0 or finished > end:
            milliseconds.append((finished - started) * 1000)
        if finished > end:
            break
    return milliseconds
