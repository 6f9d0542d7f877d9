"""``lantern model``: which versions of a model exist, and which of them is served.

Each command asks `Repository`, or a function of ``registry/``, for one thing and prints it. None
loads the model that the application serves. Making a version is in `pack`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial, wraps
from typing import Any, TypeVar

import click
from flask.cli import AppGroup

from ..documents.text import print_anything, readable
from ..http.extension import current_lantern
from ..model.errors import BundleError
from ..model.manifest import VERSION, VERSION_FORM
from ..model.manifest_formats import manifest_document
from ..registry.diff import diff_versions
from ..registry.history import Change, change_document
from ..registry.release import Release
from ..registry.repository import Repository
from ..registry.verification import verify
from ..settings import KEY_VARIABLE, PACKAGE
from . import reports
from .compare import compare, read_metrics
from .errors import EXIT_CODES, CommandFailed, failing_in_a_sentence
from .pack import pack
from .printing import print_json

F = TypeVar("F", bound=Callable[..., Any])


def repository(name: str | None) -> Repository:
    """Return the repository of the model called ``name``; of the settings' first model for None.

    A model that the settings don't name is looked for beside the first. Raises `BundleError` where
    the models in ``./models`` can't be served, unless one is named.
    """
    lantern = current_lantern()
    settings = lantern.settings.model
    if name is None and lantern.settings.models_fault:
        raise BundleError(lantern.settings.models_fault)
    if name is None and len(lantern.services) > 1:
        _say_which(lantern.services_by_name)
    service = lantern.default_service if name is None else lantern.services_by_name.get(name)
    source = service.source if service else None
    directory = source.path if source else lantern.default_service.source.path.parent / str(name)
    return Repository(
        directory,
        name=source.name if source else "",
        runtime=settings.runtime,
        device=settings.device,
        limits=settings.process_limits,
        allow_code=settings.allow_code,
        read_only=directory.is_relative_to(PACKAGE),
    )


def _say_which(names: Iterable[str]) -> None:
    first, *others = names
    click.echo(f"Model {first}. For another, give --model: {', '.join(others)}.", err=True)


def _plain_name(context: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    if name is not None and not VERSION.fullmatch(name):
        raise click.BadParameter(f"must be the name of a model's directory: {VERSION_FORM}.")
    return name


model = AppGroup(
    "model",
    callback=print_anything,
    help="List, verify and compare the versions of a model, and change which one is served.",
    short_help="List, verify, compare and release versions.",
    epilog=EXIT_CODES,
)
model.add_command(pack)


def command(name: str) -> Callable[[F], click.Command]:
    """Add a command to the group, run in the application's context; its errors are sentences.

    The function receives the `Repository` of ``--model``, then ``as_json``.
    """

    def decorate(function: F) -> click.Command:
        @wraps(function)
        def run(model_name: str | None, **options: Any) -> None:
            with failing_in_a_sentence():
                function(repository(model_name), **options)

        named = click.option(
            "--model",
            "model_name",
            metavar="NAME",
            callback=_plain_name,
            help="The model; by default the one that the settings name.",
        )
        as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
        make: Callable[..., Any] = model.command(name, epilog=EXIT_CODES)
        made: click.Command = make(named(as_json(run)))
        return made

    return decorate


message_option = partial(
    click.option, "--message", "-m", default="", metavar="WHY", help="The reason, for the history."
)


@command("list")
def list_versions(repository: Repository, as_json: bool) -> None:
    """List the versions, and which is served.

    Shows when each was packed, its size, and its training metrics. Without a release.toml, a higher
    version takes over by itself, unless it could break callers.
    """
    release, fault = _release_or_fault(repository)
    summaries = repository.summaries(release)
    if as_json:
        print_json([asdict(summary) for summary in summaries])
    else:
        reports.print_versions(summaries)
    if fault:
        raise CommandFailed(fault)


@command("show")
@click.argument("version")
def show(repository: Repository, as_json: bool, version: str) -> None:
    """Show the manifest of VERSION.

    Its features, tensors, what it answers, training metrics, and files.
    """
    manifest = repository.manifest(version)
    if as_json:
        print_json(manifest_document(manifest))
    else:
        reports.print_manifest(manifest)


@command("diff")
@click.argument("old")
@click.argument("new")
def diff(repository: Repository, as_json: bool, old: str, new: str) -> None:
    """Show what differs between OLD and NEW.

    Changes that would break callers, changes that would not, the training metrics that differ, and
    how closely the two agree on the golden data of both.
    """
    repository.require(old)
    repository.require(new)
    versions = diff_versions(repository.directory, old, new, repository.limits)
    if as_json:
        print_json(reports.diff_document(versions))
    else:
        reports.print_diff(versions)


@command("verify")
@click.argument("version")
def verify_version(repository: Repository, as_json: bool, version: str) -> None:
    """Verify VERSION, and measure its latency.

    Checks the SHA-256 of each file, the schema, and the golden data on each runtime, one row at a
    time and together; lists every fault. Each runtime is tried in a separate process, bounded in
    memory and time. The latencies are of the runtime alone, in milliseconds.
    """
    repository.require(version)
    report = verify(
        repository.directory,
        version,
        threads=current_lantern().settings.model.threads,
        runtime=repository.runtime,
        device=repository.device,
        limits=repository.limits,
        allow_code=repository.allow_code,
        name=repository.name,
    )
    if as_json:
        print_json(reports.report_document(report))
    else:
        reports.print_report(report)
    if not report.passed:
        count = len(report.problems)
        raise CommandFailed(f"Version {version} does not verify: {count} fault{'s' * (count > 1)}.")


@command("promote")
@click.argument("version")
@click.option(
    "--allow-schema-change",
    is_flag=True,
    help="Promote even if callers of the stable version must change what they send or read.",
)
@message_option()
def promote(
    repository: Repository, as_json: bool, version: str, allow_schema_change: bool, message: str
) -> None:
    """Make VERSION the stable one.

    It is verified first, and its schema is compared with the stable version's: a change that would
    break callers is refused. A canary or shadow ends. Running workers switch by themselves. Of a
    version with code of its own, what changed of it is shown, and its SHA-256 is recorded: workers
    run no other.
    """
    code = repository.code_changes(version)
    reports.print_code(code, err=as_json)
    change = repository.promote(
        version, allow_schema_change=allow_schema_change, message=_text(message)
    )
    _print_change(change, as_json)


@command("rollback")
@message_option()
def rollback(repository: Repository, as_json: bool, message: str) -> None:
    """Return to what was served before.

    During a canary, that is the stable version alone; otherwise it is the previous stable version,
    alone, if it still verifies. Each rollback goes one version further back; use promote to go
    forward.
    """
    _print_change(repository.rollback(_text(message)), as_json)


@command("canary")
@click.argument("version")
@click.option(
    "--traffic",
    type=click.FloatRange(0, 1),
    required=True,
    help="The fraction of the requests that it answers: 0.1 is one in ten.",
)
@message_option()
def canary(
    repository: Repository, as_json: bool, version: str, traffic: float, message: str
) -> None:
    """Let VERSION answer part of the traffic.

    The stable version answers the rest. VERSION is verified first, and refused if its schema would
    break callers of the stable version. Run it again to change the fraction; `promote` and `clear`
    end it.
    """
    reports.print_code(repository.code_changes(version), err=as_json)
    _print_change(repository.canary(version, traffic, _text(message)), as_json)


@command("shadow")
@click.argument("version")
@message_option()
def shadow(repository: Repository, as_json: bool, version: str, message: str) -> None:
    """Let VERSION predict, unseen by callers.

    It predicts the same rows as the stable version; its answers are compared, then discarded. It is
    verified first, and refused if its schema would break callers of the stable version; `promote`
    and `clear` end it.
    """
    _print_change(repository.shadow(version, _text(message)), as_json)


@command("clear")
@message_option()
def clear(repository: Repository, as_json: bool, message: str) -> None:
    """End the canary or the shadow.

    Only the stable version is served.
    """
    _print_change(repository.clear(_text(message)), as_json)


@command("compare")
@click.option(
    "--url",
    metavar="URL",
    help="The URL of the metrics, http://HOST:PORT/metrics; by default from the settings.",
)
@click.option(
    "--api-key",
    metavar="KEY",
    envvar=KEY_VARIABLE,
    help=f"A key with the scope metrics, if one is required; by default ${KEY_VARIABLE}.",
)
def compare_candidate(
    repository: Repository, as_json: bool, url: str | None, api_key: str | None
) -> None:
    """Compare the candidate with the stable version.

    Reads the metrics of a running service, summed over its workers: the rows that each version
    answered by class or label, how long a prediction takes, and how closely a shadow agrees.
    """
    settings = current_lantern().settings
    host = f"[{settings.server.host}]" if ":" in settings.server.host else settings.server.host
    text = read_metrics(url or f"http://{host}:{settings.server.port}/metrics", api_key)
    service = current_lantern().service_at(repository.directory)
    name = service.name if service else ""
    comparison = compare(text, name or repository.directory.name)
    if as_json:
        print_json(asdict(comparison))
    else:
        reports.print_comparison(comparison)


@command("history")
def history(repository: Repository, as_json: bool) -> None:
    """List the changes of the release.

    Who made each, when, and why; the latest is last. A change that was interrupted before it took
    effect, or undone by hand, is marked.
    """
    changes = repository.history()
    if as_json:
        print_json([change_document(change) | {"made": change.made} for change in changes])
    else:
        reports.print_history(changes)


def _release_or_fault(repository: Repository) -> tuple[Release | None, str]:
    """Return the release; or None, and what is wrong with it, to be reported after the rest."""
    repository.versions()
    try:
        return repository.release(), ""
    except BundleError as error:
        return None, str(error)


def _print_change(change: Change, as_json: bool) -> None:
    try:
        if as_json:
            print_json(change_document(change))
        else:
            click.echo(reports.sentence(change))
        sys.stdout.flush()
    except OSError as error:  # a full disk, a closed pipe: the change was made all the same
        click.echo(f"The change was made; it can't be printed: {error.strerror}.", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the exit would fail for it once more
    pinned = current_lantern().settings.model.version
    if pinned:
        click.echo(
            f"The settings pin version {pinned} (model.version): it is served, whatever is "
            "released.",
            err=True,
        )


def _text(argument: str) -> str:
    """Return an argument as it was typed, in any locale; what is not text is replaced."""
    return readable(argument)
