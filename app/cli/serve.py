"""``lantern serve``: the service, run by Gunicorn in this process."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from flask.cli import ScriptInfo

from ..documents.text import readable
from ..model import isolation
from ..model.bundle import checkpoint_path, find_bundle, holds_versions, is_bare, open_bundle
from ..model.checkpoint_scan import scan_checkpoint
from ..model.code.permission import check_allowed
from ..model.naming import as_name
from ..registry.loading import ModelSource, runtime_for
from ..registry.release import release_in_force
from ..settings import Settings, load_settings, settings_at_start, use_arguments
from .errors import failing_in_a_sentence
from .serve_file import is_model_file, packed_for_now


@click.command()
@click.argument("model", required=False, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--name",
    help="The name of the model; by default the setting model.name, or the one in its files.",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    help="The address to listen on; by default the setting server.host (127.0.0.1).",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="The port to listen on; by default the setting server.port (8000).",
)
@click.option(
    "--workers",
    type=click.IntRange(0),
    help="Worker processes; by default the setting server.workers (one per core).",
)
@click.option(
    "--allow-code",
    is_flag=True,
    help="Run the code that the model's bundle or archive has; the setting model.allow_code.",
)
@click.pass_obj
def serve(
    script: ScriptInfo,
    model: Path | None,
    *,
    name: str | None,
    host: str | None,
    port: int | None,
    workers: int | None,
    allow_code: bool,
) -> None:
    """Serve models over HTTP.

    MODEL is a directory of versions, one bundle, or a model's file, which is packed for as long as
    it is served: a network (.onnx, .pt2) with the tensors that it has, a directory of transformers
    with the texts or images that it classifies, or a handler, your own (.py) or in an archive of
    TorchServe (.mar), which runs only with --allow-code. Without MODEL, the models that the
    settings name are served; if they name none, those in ./models, or else the example that comes
    with Lantern.

    MODEL and options override the settings (`lantern config` prints them). Further options of
    Gunicorn, such as --pid, are read from the variable GUNICORN_CMD_ARGS. SIGTERM stops it
    gracefully.
    """
    options: dict[str, Any] = {
        "server.host": host,
        "server.port": port,
        "server.workers": workers,
        "model.name": name,
        "model.allow_code": allow_code or None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    use_arguments(given)
    if model is not None and is_model_file(model):
        with ExitStack() as stack:
            with failing_in_a_sentence():
                settings = load_settings(arguments=given | {"model.path": str(model)}).model
                packed = stack.enter_context(packed_for_now(model, settings))
            _serve(script, packed)
    else:
        _serve(script, model)


def _serve(script: ScriptInfo, model: Path | None) -> None:
    """Run the service in this process."""
    if model is not None:
        use_arguments({"model.path": readable(str(model))})
    if __package__ and Path(sys.argv[0]).name == "__main__.py":
        # A new master is started with these; by its path the module would not know its package.
        sys.argv[:1] = ["-m", __package__.partition(".")[0]]
    # Not at the top: it reads the settings, and brings in the whole application.
    from ..server.application import LanternServer

    server = LanternServer(script.load_app)
    if model is not None:
        _check(settings_at_start())
    server.run()


def _check(settings: Settings) -> None:
    """Raise `CommandFailed` if MODEL can't be a model; its network isn't loaded.

    Only MODEL is checked: a service whose settings name a missing model stays up, unhealthy.
    """
    path = settings.model.path
    with failing_in_a_sentence():
        version = release_in_force(path).stable if holds_versions(path) else ""
        found = find_bundle(path, version)
        if is_bare(found):
            file = checkpoint_path(found)
            isolation.run(scan_checkpoint, file, path=file, limits=settings.model.process_limits)
        else:
            manifest = open_bundle(found, version or None).manifest
            name = settings.model.name or as_name(manifest.name)
            check_allowed(manifest, settings.model.allow_code, name)
        model = settings.model
        runtime_for(ModelSource(path, version=version, runtime=model.runtime, device=model.device))
