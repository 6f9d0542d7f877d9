"""The output of the ``model`` commands, as tables and as JSON documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click
from msgspec import to_builtins

from ..model.code.permission import code_sha256
from ..model.errors import listed
from ..model.features import Feature
from ..model.manifest import EXACT, Manifest
from ..model.self_test import tolerance_text
from ..model.signature import OutputSpec
from ..model.steps.declaration import Step, kind_of, members_of
from ..model.training_metrics import flatten, headline
from ..registry.diff import VersionDiff
from ..registry.history import Change
from ..registry.release import Release
from ..registry.repository import VersionSummary
from ..registry.verification import Report, RuntimeReport
from .compare import Comparison
from .printing import counted, number, plain, print_table, size


def print_versions(summaries: Sequence[VersionSummary]) -> None:
    """Print a row per version; a canary is shown with its traffic."""
    print_table(
        [
            (
                summary.version,
                (summary.state or "-")
                + ("" if summary.traffic is None else f" {summary.traffic:.4g}"),
                summary.created_at or "-",
                "-" if summary.bytes is None else size(summary.bytes),
                summary.problem or _training_metrics(summary) or "-",
            )
            for summary in summaries
        ],
        ("VERSION", "STATE", "PACKED", "SIZE", "TRAINING METRICS"),
    )
    for summary in summaries:
        if summary.held_back:
            click.echo(plain(summary.held_back))


def print_manifest(manifest: Manifest) -> None:
    """Print a manifest in parts: what it is, features, classes, training metrics, files."""
    print_table(
        [
            ("name", manifest.name),
            ("version", manifest.version),
            ("description", manifest.description or "-"),
            ("packed", manifest.created_at or "-"),
            ("task", manifest.task),
            *([("top", str(manifest.top))] if manifest.top else []),
            (
                "golden data",
                manifest.golden_file or ("in the manifest" if manifest.golden else "-"),
            ),
            ("reference data", manifest.reference or "-"),
            *_handler_rows(manifest),
        ]
    )
    click.echo()
    if manifest.features:
        print_table(
            [_feature_row(feature) for feature in manifest.features],
            ("FEATURE", "KIND", "VALUES", "UNIT", "NULL", "COLUMN", "DESCRIPTION"),
        )
        click.echo()
    if manifest.steps:
        print_table([_step_row(step) for step in manifest.steps], ("STEP", "INPUTS", "HOW"))
        click.echo()
    _print_tensors(manifest)
    click.echo()
    _print_names(manifest)
    metrics = [(name, number(value)) for name, value in flatten(manifest.training).items()]
    print_table(metrics or [("-", "-")], ("TRAINING METRIC", "VALUE"))
    click.echo()
    print_table(
        [(name, size(record.size), record.sha256) for name, record in manifest.files.items()],
        ("FILE", "SIZE", "SHA-256"),
    )


def _handler_rows(manifest: Manifest) -> list[tuple[str, str]]:
    handler = manifest.handler
    if handler is None:
        return []
    return [
        ("handler", f"{handler.file} ({handler.interface})"),
        ("code", code_sha256(manifest)),
        ("requirements", ", ".join(handler.requirements) or "-"),
    ]


def _print_tensors(manifest: Manifest) -> None:
    inputs = [(spec.name, spec.datatype, str(list(spec.shape))) for spec in manifest.inputs]
    print_table(inputs or [("-", "-", "-")], ("INPUT", "DATATYPE", "SHAPE"))
    click.echo()
    rows = [
        (spec.name, spec.datatype, str(list(spec.shape)), spec.role, _tolerance(manifest, spec))
        for spec in manifest.outputs
    ]
    print_table(rows, ("OUTPUT", "DATATYPE", "SHAPE", "ROLE", "TOLERANCE"))


def _tolerance(manifest: Manifest, spec: OutputSpec) -> str:
    allowed = manifest.tolerance(spec.name)
    return "equal" if allowed == EXACT else tolerance_text(allowed)


def _print_names(manifest: Manifest) -> None:
    """Print what the columns of the answer are called, if they are."""
    for names, heading in ((manifest.classes, "CLASS"), (manifest.labels, "LABEL")):
        if names:
            rows = [(f"class_{index}", name) for index, name in enumerate(names)]
            print_table(rows, (heading, "NAME"))
            click.echo()
    if manifest.targets:
        print_table(
            [(each.name, each.unit or "-", each.description or "-") for each in manifest.targets],
            ("TARGET", "UNIT", "DESCRIPTION"),
        )
        click.echo()


def takes_and_answers(manifest: Manifest) -> str:
    """Return how many features and classes, or inputs and outputs, a model has."""
    if not manifest.has_network:
        return "a handler"
    takes = [(len(manifest.inputs), "input")]
    if manifest.features:
        takes = [(len(manifest.features), "feature")]
    elif manifest.steps:
        takes = [(1, member) for member in members_of(manifest.steps)]
    answers = next(
        (
            (len(names), called)
            for names, called in (
                (manifest.classes, "class"),
                (manifest.labels, "label"),
                (manifest.targets, "target"),
            )
            if names
        ),
        (len(manifest.outputs), "output"),
    )
    return ", ".join(counted(*count) for count in (*takes, answers))


def print_diff(diff: VersionDiff) -> None:
    """Print the differences in parts: the schema, the training metrics, the answers."""
    print_code(diff.code)
    if not diff.breaking:
        click.echo("Schema: no breaking changes.")
    for heading, sentences in (
        ("Schema, breaking changes:", diff.breaking),
        ("Schema, compatible changes:", diff.harmless),
    ):
        if sentences:
            click.echo("\n  ".join([heading, *sentences]))
    click.echo()
    rows = [(name, number(old), number(new)) for name, (old, new) in diff.training_metrics.items()]
    if rows:
        print_table(rows, ("TRAINING METRIC", diff.old.version, diff.new.version))
    else:
        click.echo("Training metrics: the same.")
    click.echo()
    agreement = diff.agreement
    if agreement is None:
        click.echo(f"Answers: not compared. {diff.incomparable}")
        return
    same = _SAME_ANSWER.get(diff.old.task, "same answer, within the tolerance")
    called = "samples" if diff.old.takes_samples else "data"
    print_table(
        [
            (f"golden {called} of both", str(agreement.samples)),
            (same, f"{agreement.agreed:.1%}"),
            ("largest difference", number(agreement.largest_difference)),
            ("mean difference", number(agreement.mean_difference)),
        ],
        ("ANSWERS", ""),
    )


_SAME_ANSWER = {"classification": "same class", "multilabel": "same labels"}


def diff_document(diff: VersionDiff) -> dict[str, Any]:
    """Return a diff as JSON values."""
    return {
        "old": diff.old.version,
        "new": diff.new.version,
        "breaking": list(diff.breaking),
        "harmless": list(diff.harmless),
        "training_metrics": {
            name: {"old": old, "new": new} for name, (old, new) in diff.training_metrics.items()
        },
        "agreement": diff.agreement and asdict(diff.agreement),
        "incomparable": diff.incomparable,
        "code": list(diff.code),
    }


def print_code(lines: Sequence[str], *, err: bool = False) -> None:
    """Print how the code of a version differs from that of the stable one, if it does."""
    if not lines:
        return
    click.echo("Code that changes:", err=err)
    for line in lines:
        click.echo(plain(line.replace("\t", "    ")), err=err)
    click.echo(err=err)


def print_report(report: Report) -> None:
    """Print a row per runtime, then every fault."""
    rows = [_runtime_row(runtime) for runtime in report.runtimes]
    headings = ("RUNTIME", "GOLDEN", "ALONE", "TOGETHER", "1 ROW P50", "1 ROW P99", "1,000 ROWS")
    if rows:
        print_table(rows, headings)
    if report.manifest is not None and len(report.manifest.outputs) > 1:
        _print_differences(report, report.manifest)
    for problem in report.problems:
        click.echo(f"wrong: {problem}")
    if report.passed and report.manifest is not None:
        manifest = report.manifest
        click.echo(
            f"Version {report.version} verifies: "
            f"{counted(len(manifest.files), 'file')}, {takes_and_answers(manifest)}."
        )


def _print_differences(report: Report, manifest: Manifest) -> None:
    """Print how far each output is from the golden one."""
    rows = [
        (
            runtime.name,
            spec.name,
            *(_difference(each) for each in (found.alone, found.together)),
            _tolerance(manifest, spec),
        )
        for runtime in report.runtimes
        for spec in manifest.outputs
        if (found := runtime.outputs.get(spec.name)) is not None
    ]
    if rows:
        click.echo()
        print_table(rows, ("RUNTIME", "OUTPUT", "ALONE", "TOGETHER", "TOLERANCE"))
        click.echo()


def report_document(report: Report) -> dict[str, Any]:
    """Return a report as JSON values."""
    manifest = report.manifest
    counts = ("files", "inputs", "outputs", "features", "classes", "labels", "targets")
    return {
        "version": report.version,
        "passed": report.passed,
        "problems": list(report.problems),
        "task": None if manifest is None else manifest.task,
        **{name: None if manifest is None else len(getattr(manifest, name)) for name in counts},
        "runtimes": [
            asdict(runtime)
            | {
                "single_difference": runtime.single_difference,
                "batch_difference": runtime.batch_difference,
            }
            for runtime in report.runtimes
        ],
    }


def print_history(changes: Sequence[Change]) -> None:
    """Print a row per change."""
    print_table(
        [
            (
                change.when,
                change.who,
                change.action if change.made else f"{change.action} (not made)",
                "?" if change.before is None else in_words(change.before),
                in_words(change.after),
                change.why or "-",
            )
            for change in changes
        ],
        ("WHEN", "WHO", "ACTION", "FROM", "TO", "WHY"),
    )


def sentence(change: Change) -> str:
    """Return a sentence that says what is served now, and what was before."""
    if change.before == change.after:
        return f"Serving now: {in_words(change.after)}. It stays when newer versions are added."
    before = "" if change.before is None else f"; before: {in_words(change.before)}"
    return f"Serving now: {in_words(change.after)}{before}."


def in_words(release: Release) -> str:
    """Return what a release serves, in a few words."""
    if release.candidate is None:
        return release.stable
    traffic = f" ({release.traffic:.4g})" if release.mode == "canary" else ""
    return f"{release.stable} + {release.mode} {release.candidate}{traffic}"


def _training_metrics(summary: VersionSummary) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in headline(summary.training).items())


def _feature_row(feature: Feature) -> tuple[str, ...]:
    column = "" if feature.column is None else f"[{feature.column}]"
    return (
        feature.name,
        feature.kind,
        _values(feature),
        feature.unit or "-",
        "yes" if feature.nullable else "no",
        f"{feature.tensor}{column}",
        feature.description or "-",
    )


def _step_row(step: Step) -> tuple[str, ...]:
    """Return the kind of a step, the inputs that it fills, and its other members as they are in the
    manifest.
    """
    said: dict[str, Any] = to_builtins(step)
    how = (
        f"{name} {_in_short(value)}"
        for name, value in said.items()
        if name != "kind" and value not in step.inputs
    )
    return kind_of(step), ", ".join(step.inputs), ", ".join(how) or "-"


def _in_short(value: Any) -> str:
    """Return the value of a step's member as a few words."""
    if isinstance(value, dict):
        if value.keys() == {"width", "height"}:
            return f"{value['width']} x {value['height']}"
        return " ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return " ".join(f"{item:.4g}" for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _values(feature: Feature) -> str:
    """Return which values a feature has, in a few words."""
    if feature.kind == "boolean":
        return "true or false"
    if feature.kind != "category":
        return f"{number(feature.minimum)} to {number(feature.maximum)}"
    known = listed(feature.categories, 5) if feature.categories else ""
    if feature.unknown == "refuse":
        return known
    return f"{known} or any" if known else "any"


def _runtime_row(report: RuntimeReport) -> tuple[str, ...]:
    latency = report.latency
    return (
        report.name,
        "differ" if report.problem else "match",
        *(_difference(each) for each in (report.single_difference, report.batch_difference)),
        *(
            ("-", "-", "-")
            if latency is None
            else (
                f"{latency.one_row_p50:.3f} ms",
                f"{latency.one_row_p99:.3f} ms",
                "-" if latency.thousand_rows is None else f"{latency.thousand_rows:.2f} ms",
            )
        ),
    )


def _difference(difference: float | None) -> str:
    return "-" if difference is None else f"{difference:.2g}"


def print_comparison(comparison: Comparison) -> None:
    """Print the counts of a candidate beside those of the stable version."""
    stable, candidate = comparison.stable, comparison.candidate
    both = (stable, candidate)
    rows = [["rows", *(number(side.rows) for side in both)]]
    for label in sorted(stable.classes.keys() | candidate.classes.keys()):
        shares = (side.classes.get(label, 0) / side.rows if side.rows else None for side in both)
        rows.append([f"share of {label}", *map(number, shares)])
    means = (side.mean_seconds and side.mean_seconds * 1000 for side in both)
    rows.append(["milliseconds per prediction", *map(number, means)])
    print_table(
        rows, [comparison.model, f"{stable.version} stable", f"{candidate.version} candidate"]
    )
    if comparison.shadowed:
        click.echo()
        results = [[name, number(count)] for name, count in sorted(comparison.shadowed.items())]
        results.append(["mean difference of answers", number(comparison.mean_difference)])
        print_table(results, ["shadow", "rows"])
