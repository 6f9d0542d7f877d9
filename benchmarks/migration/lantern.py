"""Lantern's side: the same models as bundles, with steps that are data, or with the handler."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.migration.cases import Case
from benchmarks.migration.peers import first_question
from benchmarks.servers import LANTERN, ROOT, BenchmarkError, Program, lantern

HANDLER = f"{LANTERN}, its handler"
"""Lantern with the handler of the archive, as it is."""
_LONGEST_WAIT_MS = 10_000


def lanterns(case: Case, directory: Path) -> list[Program]:
    """Describe Lantern with the steps of ``case`` as data, and where its archive has a handler of
    its own, with that.
    """
    programs = [_lantern(LANTERN, case, pack_steps(case, directory / f"{case.name}-steps"), {})]
    if case.own_handler:
        packed = pack_archive(case, directory / f"{case.name}-handler")
        allowed = {"LANTERN_MODEL__ALLOW_CODE": "true"}
        programs.append(_lantern(HANDLER, case, packed, allowed))
    return programs


def _lantern(name: str, case: Case, models: Path, settings: dict[str, str]) -> Program:
    settings = {
        f"LANTERN_MODELS__{case.name.upper()}": str(models),
        # The others let requests wait as long as they may, and so this doesn't refuse any.
        "LANTERN_LIMITS__QUEUE_BUDGET_MS": str(_LONGEST_WAIT_MS),
        **settings,
    }
    question = first_question(case, f"/predictions/{case.name}")
    return replace(lantern(name, settings), ready=question)


def pack_archive(case: Case, directory: Path) -> Path:
    """Pack the archive with its handler, as its owner would, as a version in ``directory``."""
    arguments = ("--allow-code", "--samples", case.bodies[0])
    return _pack(case.archive, directory, *arguments)


def pack_steps(case: Case, directory: Path) -> Path:
    """Pack the network with the steps to it as data, as a version in ``directory``."""
    directory.mkdir()
    described = directory / "steps.toml"
    described.write_text(
        f"classes = {json.dumps(case.labels)}\ntop = {case.top}\n[[steps]]{case.steps}",
        encoding="utf-8",
    )
    arguments = ("--features", described, "--samples", _samples(case, directory))
    return _pack(case.network, directory, *arguments, "--outputs", "probabilities")


def _samples(case: Case, directory: Path) -> Path:
    """Return what packing takes for samples: a picture, or a file with a text on each line."""
    if case.content_type != "application/json":
        return case.bodies[0]
    texts = [json.loads(body.read_bytes())["data"] for body in case.bodies]
    path = directory / "samples.txt"
    path.write_text("\n".join(texts), encoding="utf-8")
    return path


def _pack(source: Path, directory: Path, *arguments: str | Path) -> Path:
    command: list[str | Path] = [sys.executable, "-m", "app", "model", "pack", source]
    command += [*arguments, "--out", directory / "1"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    if ran.returncode:
        raise BenchmarkError(f"{source.name} could not be packed: {ran.stderr.strip()[-2000:]}")
    return directory
