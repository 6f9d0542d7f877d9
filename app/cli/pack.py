"""``lantern model pack``: from a model's own file to a version that can be served."""

from __future__ import annotations

from pathlib import Path

import click
from flask.cli import with_appcontext

from ..documents.text import readable
from ..http.extension import current_lantern
from ..model.errors import BundleError
from ..model.manifest import TaskName
from ..model.manifest_formats import manifest_document
from ..model.naming import as_name
from ..packing.archives.packing import is_archive
from ..packing.description import read_description
from ..packing.file import NOTHING_DESCRIBED, Packed, pack_file
from ..packing.huggingface.directory import is_directory
from ..packing.own_handler import SUFFIX as HANDLER
from ..packing.own_handler import HandlerParts
from ..packing.statement import ROLES, TASKS, Statement, read_outputs
from ..registry.repository import Repository
from ..version import COMMAND
from . import reports
from .errors import EXIT_CODES, failing_in_a_sentence
from .printing import plain, print_json


@click.command("pack", epilog=EXIT_CODES)
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--task",
    type=click.Choice(TASKS),
    help="What the model is for; tensors serves any model with the inputs and outputs it has.",
)
@click.option(
    "--features",
    metavar="TOML",
    type=click.Path(path_type=Path),
    help="A TOML file with the features, the columns of the model's inputs, or the steps that make "
    "them of images and texts, and the names of what it answers.",
)
@click.option(
    "--samples",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A CSV file with a column for each feature; up to 20 of its rows become golden data. "
    "With steps a directory of pictures, a picture, a .txt with a text on each line, or a CSV with "
    "the columns image, text and pair. Else a .npz or .json with an array for each input. For an "
    "archive a file to send as a request, or a directory of them. Without it, an example is made "
    "for a directory of transformers.",
)
@click.option(
    "--out",
    metavar="models/NAME/VERSION",
    type=click.Path(path_type=Path),
    help="The bundle to create; its path ends in NAME/VERSION.",
)
@click.option(
    "--outputs",
    "outputs",
    multiple=True,
    metavar="ROLE | NAME=ROLE",
    help=f"What the model returns: {', '.join(ROLES)}. With several outputs, by name; repeatable.",
)
@click.option(
    *("--classes", "--labels", "--targets", "names"),
    metavar="NAMES",
    help="The names of the classes, labels or targets, in the order of the model's outputs, "
    "separated by commas.",
)
@click.option(
    "--truth",
    default="",
    metavar="COLUMN",
    help="The column of the samples that has the true class: the reference then says how often "
    "the model was right.",
)
@click.option(
    "--background",
    type=click.Choice(["centroids", "rows"]),
    default="centroids",
    help="What the reference keeps of the samples: means of similar rows, or 100 rows themselves.",
)
@click.option(
    "--allow-code",
    is_flag=True,
    help="Let the file run its own program, as TorchScript and the handler of an archive do. Only "
    "for files you trust.",
)
@click.option(
    "--network",
    metavar="BUNDLE",
    type=click.Path(path_type=Path),
    help="Of a handler: the bundle whose network it is around.",
)
@click.option(
    *("--file", "files"),
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Of a handler: a file that it imports or reads; repeatable.",
)
@click.option(
    *("--require", "requires"),
    multiple=True,
    metavar="PACKAGE",
    help="Of a handler: a package that it needs, as pip writes it; repeatable.",
)
@click.option("--replace", is_flag=True, help="Replace an existing bundle at --out.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@with_appcontext
def pack(
    *,
    source: Path,
    task: TaskName | None,
    features: Path | None,
    samples: Path | None,
    out: Path | None,
    outputs: tuple[str, ...],
    names: str | None,
    truth: str,
    background: str,
    allow_code: bool,
    network: Path | None,
    files: tuple[Path, ...],
    requires: tuple[str, ...],
    replace: bool,
    as_json: bool,
) -> None:
    """Make a bundle from SOURCE, your own model.

    SOURCE is an exported program (.pt2, by torch.export.save), an ONNX graph (.onnx), TorchScript,
    a checkpoint of Lantern's own network (.pt), a directory of transformers with a classifier of
    texts or images, or an archive of TorchServe (.mar, .tar.gz). It is read in a separate process,
    bounded in memory and time, and without running any code in it, unless --allow-code lets it run
    its own. The bundle is compared with it on the samples and on noise around them; what was
    assumed and measured is printed. Needs onnx, and for all but ONNX graphs torch and onnxscript:
    the extra `pack`; for a directory also transformers. An archive is packed with its handler,
    which answers the samples, and needs what that needs; where TorchServe's image_classifier or
    text_classifier is its handler, that becomes steps, and the samples are pictures, or lines of
    text. A handler of your own (.py) is packed like that of an archive.
    """
    if out is None:
        raise click.MissingParameter(_out_of(source), param_hint="'--out'", param_type="option")
    if samples is None and not (is_directory(source) or is_archive(source)):
        raise click.MissingParameter(
            _samples_of(source), param_hint="'--samples'", param_type="option"
        )
    with failing_in_a_sentence():
        role, roles = read_outputs(outputs)
        packed = pack_file(
            source,
            out,
            samples=samples,
            description=read_description(features) if features else NOTHING_DESCRIBED,
            statement=Statement(
                task, role, roles, _names(names), allow_code, truth, background == "rows"
            ),
            handler=HandlerParts(network, files, requires),
            replace=replace,
            limits=current_lantern().settings.model.process_limits,
        )
        held_back = _held_back(out.absolute().parent, packed.manifest.version)
    if held_back:
        click.echo(f"Warning: {plain(held_back)}", err=True)
    _report(packed, out, as_json=as_json)


def _report(packed: Packed, out: Path, *, as_json: bool) -> None:
    """Print what was packed, and what was assumed and measured."""
    manifest = packed.manifest
    if as_json:
        print_json(manifest_document(manifest) | {"notes": list(packed.notes)})
        return
    for note in packed.notes:
        click.echo(plain(note))
    click.echo(
        f"Packed version {manifest.version} of {manifest.name} to {readable(str(out))}: "
        f"{reports.takes_and_answers(manifest)}."
    )


def _out_of(source: Path) -> str:
    """Return where the bundle of ``source`` could be."""
    name = as_name(source.name.partition(".")[0])
    return f"The bundle to create; its path ends in NAME/VERSION: --out models/{name}/1"


def _samples_of(source: Path) -> str:
    """Return what the samples of ``source`` are, with a command that gives some."""
    if source.suffix == HANDLER:
        wanted = (
            "A file to send the handler as a request, or a directory of them. What it answers is "
            "stored, and verifies the version before it is served"
        )
        example = "--allow-code --samples request.json"
    else:
        wanted = (
            "A CSV file with a column for each feature; a .npz or .json with an array for each "
            "input; or, with steps, pictures or texts"
        )
        example = "--samples samples.csv"
    called = plain(readable(str(source)))
    return f"{wanted}:\n\n  {COMMAND} model pack {called} {example} --out models/NAME/1"


def _names(text: str | None) -> tuple[str, ...]:
    """Return the names in a list separated by commas."""
    return () if text is None else tuple(name.strip() for name in text.split(","))


def _held_back(directory: Path, version: str) -> str:
    """Return why ``version`` doesn't take over by itself; empty if it does, or only has to wait."""
    service = current_lantern().service_at(directory)
    try:
        repository = Repository(directory, name=service.source.name if service else "")
        return repository.held_back().get(version, "")
    except BundleError as error:
        if repository.versions() == [version]:
            return f"{error} The last two parts of --out are NAME/VERSION, as in models/churn/1."
        return ""  # a version beside it, or the release, is damaged: not this one's fault
