"""Lantern's side: the same models as bundles, with steps that are data, or with the handler."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnxruntime

from app.model.bundle import ONNX
from app.model.golden import Golden
from app.model.manifest import Manifest, Tolerance
from app.model.signature import OutputSpec, TensorSpec
from app.model.steps.declaration import ImageStep, Sample, files_of
from app.model.steps.encoder import StepEncoder
from app.packing.bundle_writer import write_bundle
from benchmarks.migration.cases import TOKENIZER, Case
from benchmarks.migration.peers import first_question
from benchmarks.servers import LANTERN, ROOT, BenchmarkError, Program, lantern

HANDLER = f"{LANTERN}, its handler"
"""Lantern with the handler of the archive, as it is."""
_LONGEST_WAIT_MS = 10_000
_DATATYPES = {"tensor(float)": "FP32", "tensor(int64)": "INT64"}


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
    file = case.network.read_bytes()
    session = onnxruntime.InferenceSession(file)
    inputs = tuple(
        TensorSpec(each.name, _DATATYPES[each.type], tuple(_size(size) for size in each.shape))
        for each in session.get_inputs()
    )
    samples = tuple(_sample(case, body) for body in case.bodies[:2])
    steps = (case.step,)
    rows = StepEncoder(steps, inputs, lambda name: TOKENIZER.read_bytes()).encode(samples)
    (probabilities,) = session.run(["probabilities"], dict(rows))
    answer = OutputSpec("probabilities", "FP32", (-1, len(case.labels)), "probabilities")
    manifest = Manifest(
        case.name,
        "1",
        classes=case.labels,
        inputs=inputs,
        outputs=(answer,),
        steps=steps,
        top=case.top,
        batch=True,
        tolerances={"probabilities": Tolerance(absolute=1e-5)},
    )

    def fill(out: Path) -> None:
        (out / ONNX).write_bytes(file)
        for name in files_of(steps):
            shutil.copy(TOKENIZER, out / name)

    write_bundle(
        directory / "1", manifest, Golden(rows, {"probabilities": probabilities}, samples), fill
    )
    return directory


def _sample(case: Case, body: Path) -> Sample:
    if isinstance(case.step, ImageStep):
        return Sample(image=body.read_bytes())
    return Sample(text=json.loads(body.read_bytes())["data"])


def _size(size: int | str) -> int:
    return size if isinstance(size, int) else -1


def _pack(source: Path, directory: Path, *arguments: str | Path) -> Path:
    command: list[str | Path] = [sys.executable, "-m", "app", "model", "pack", source]
    command += [*arguments, "--out", directory / "1"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    if ran.returncode:
        raise BenchmarkError(f"{source.name} could not be packed: {ran.stderr.strip()[-2000:]}")
    return directory
