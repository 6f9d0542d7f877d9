"""The commands of ``docs/lifecycle.md``, run in their order on three versions of the example model.

``python -m tests.lifecycle`` writes what they print into the document.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from flask.testing import FlaskCliRunner
from msgspec.structs import replace

from app import create_app
from app.model.bundle import open_bundle
from app.model.network import Network, build_network, read_checkpoint
from app.model.signature import FEATURES
from app.packing.network import pack
from app.settings import load_settings
from tests.conftest import BUNDLE, ROOT

DOCUMENT = ROOT / "docs" / "lifecycle.md"
BLOCK = re.compile(r"```console\n(.*?)```\n", re.DOTALL)


def pack_three_versions(directory: Path) -> None:
    """Put version 1 into ``directory``/models, and 2 and 3, of another schema, into /packed."""
    bundle = open_bundle(BUNDLE)
    manifest, golden = bundle.manifest, bundle.read_golden()
    assert golden is not None
    samples = golden.inputs[FEATURES]
    validation: dict[str, Any] = manifest.training["cross_validation"]
    for number in (1, 2, 3):
        network = build_network(read_checkpoint(BUNDLE / "model.pt"))
        sharpen(network, 1 + 0.05 * (number - 1))
        features = list(manifest.features)
        if number == 3:
            features[2] = replace(features[2], name="tenure_months", unit="months")
        place = "models/campaign-response" if number == 1 else "packed"
        pack(
            network,
            directory / place / str(number),
            name=manifest.name,
            version=str(number),
            description=manifest.description,
            features=features,
            classes=manifest.classes,
            golden_samples=samples,
            training={
                "rows": manifest.training["rows"],
                "cross_validation": {
                    "roc_auc": round(validation["roc_auc"]["mean"] + 0.006 * (number - 1), 4),
                    "brier": round(validation["brier"]["mean"] - 0.001 * (number - 1), 4),
                },
            },
        )


def sharpen(network: Network, factor: float) -> None:
    """Multiply the logits: another network, whose answers are a little surer."""
    for name, tensor in network.classifier[-1].named_parameters():
        setattr(network.classifier[-1], name, torch.nn.Parameter(tensor * factor, False))


def run_blocks(document: str, directory: Path) -> Iterator[tuple[str, str]]:
    """Run the commands (lines ``$ ...``) of each block; give it as it stands and as it came out."""
    path = directory / "models" / "campaign-response"
    app = create_app(load_settings({"LANTERN_MODEL__PATH": str(path)}))
    runner = app.test_cli_runner()
    code = 0
    with chdir(directory), patch("app.registry.history.login_name", lambda: "ann"):
        for match in BLOCK.finditer(document):
            printed = []
            for line in match[1].splitlines():
                if line.startswith("$ "):
                    code, output = run_line(line[2:], runner, code)
                    printed.append(f"{line}\n{output.replace(f'{directory}/', '')}")
            yield match[1], "".join(printed)


def run_line(line: str, runner: FlaskCliRunner, last_code: int) -> tuple[int, str]:
    """Return the exit code and the output of one command."""
    if line == "echo $?":
        return 0, f"{last_code}\n"
    words = shlex.split(line)
    if words[0] == "lantern":
        result = runner.invoke(args=words[1:])
        return result.exit_code, result.output
    ran = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ)
    return 0, ran.stdout


def main() -> None:
    document = DOCUMENT.read_text()
    with tempfile.TemporaryDirectory() as name:
        pack_three_versions(Path(name))
        outputs = iter([after for _, after in run_blocks(document, Path(name))])
    DOCUMENT.write_text(BLOCK.sub(lambda _: f"```console\n{next(outputs)}```\n", document))


if __name__ == "__main__":
    main()
