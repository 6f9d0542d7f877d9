"""How TorchServe, LitServe and BentoML are started: each in an environment of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from benchmarks.migration.cases import SENTENCES, TOKENIZER, Case
from benchmarks.peers import make_environment
from benchmarks.servers import PEERS, VENVS, BenchmarkError, Program, Question, free_port

TORCHSERVE, LITSERVE, BENTOML = "TorchServe", "LitServe", "BentoML"
NAMES = (TORCHSERVE, LITSERVE, BENTOML)
UNTUNED = f"{TORCHSERVE}, as it starts"
"""TorchServe with torch's default, a thread for each core in each worker."""
_WORKERS = 2


def make_environments() -> None:
    """Make those of the three that aren't there. Raises `BenchmarkError` without Java."""
    if shutil.which("java") is None:
        raise BenchmarkError("TorchServe needs Java (Debian's default-jre-headless).")
    for name in NAMES:
        make_environment(VENVS / name.lower(), PEERS / name.lower() / "requirements.txt")


def peers(case: Case, directory: Path) -> list[Program]:
    """Describe the three with the model of ``case``; they keep their files in ``directory``.

    TorchServe twice, where the archive is one that its owner has.
    """
    labels = directory / f"{case.name}-labels.json"
    labels.write_text(json.dumps(case.labels), encoding="utf-8")
    settings = {
        "CASE": case.name,
        "NETWORK": str(case.network),
        "LABELS": str(labels),
        "TOP": str(case.top),
        "TOKENIZER": str(TOKENIZER),
        "PYTHONPATH": str(PEERS),  # what both serve is in one file
    }
    # Two workers on two cores would fight for them with more threads: this is faster.
    tuned = {"OMP_NUM_THREADS": "1"}
    untuned = directory / f"torchserve-untuned-{case.name}"
    return [
        _torchserve(TORCHSERVE, case, tuned, directory / f"torchserve-{case.name}"),
        *([_torchserve(UNTUNED, case, {}, untuned)] if case.own_handler else []),
        _litserve(case, settings),
        _bentoml(case, settings, directory / f"bentoml-{case.name}"),
    ]


def first_question(case: Case, path: str) -> Question:
    """Return a request whose answer of 200 says that a server answers what it was started for."""
    return Question(path, case.bodies[0].read_bytes(), case.content_type)


def _torchserve(name: str, case: Case, settings: dict[str, str], directory: Path) -> Program:
    """Describe TorchServe without its launcher, which would wait beside it."""
    store = directory / "store"
    store.mkdir(parents=True)
    shutil.copy(case.archive, store)
    config = directory / "config.properties"
    addresses = {
        "inference_address": "http://127.0.0.1:{port}",
        "management_address": f"http://127.0.0.1:{free_port()}",
        "metrics_address": f"http://127.0.0.1:{free_port()}",
    }
    lines = {
        "disable_token_authorization": "true",
        "enable_envvars_config": "true",
        "default_workers_per_model": str(_WORKERS),
        "grpc_inference_port": str(free_port()),
        "grpc_management_port": str(free_port()),
    }
    config.write_text("".join(f"{key}={value}\n" for key, value in lines.items()), encoding="utf-8")
    environment = VENVS / "torchserve"
    [packages] = environment.glob("lib/python*/site-packages")
    arguments = (
        f"-Dmodel_server_home={packages}",
        *("-cp", f".:{packages}/ts/frontend/*", "org.pytorch.serve.ModelServer"),
        *("--python", str(environment / "bin" / "python"), "-f", str(config)),
        *("-s", str(store), "-ncs", "-m", f"{case.name}={case.archive.name}"),
    )
    settings = {f"TS_{key.upper()}": value for key, value in addresses.items()} | settings
    settings["PATH"] = f"{environment / 'bin'}:/usr/bin:/bin"
    java = Path(shutil.which("java") or "java")
    question = first_question(case, path_of(name, case))
    return Program(name, java, arguments, directory, settings, question)


def _litserve(case: Case, settings: dict[str, str]) -> Program:
    executable = VENVS / "litserve" / "bin" / "python"
    question = first_question(case, path_of(LITSERVE, case))
    return Program(
        LITSERVE, executable, ("app.py", "{port}"), PEERS / "litserve", settings, question
    )


def _bentoml(case: Case, settings: dict[str, str], directory: Path) -> Program:
    service = "Sentences" if case.name == SENTENCES else "Pictures"
    directory.mkdir(parents=True)
    own = {
        "BENTOML_HOME": str(directory),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    arguments = ("serve", f"app:{service}", "--host", "127.0.0.1", "--port", "{port}", "-q")
    question = first_question(case, path_of(BENTOML, case))
    executable = VENVS / "bentoml" / "bin" / "bentoml"
    return Program(BENTOML, executable, arguments, PEERS / "bentoml", settings | own, question)


def path_of(name: str, case: Case) -> str:
    """Return the path that a server answers ``case`` under."""
    if name in (LITSERVE, BENTOML):
        return "/predict"
    return f"/predictions/{case.name}"
