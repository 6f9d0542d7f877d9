"""Read what is deployed: kustomizations as kustomize builds them, and the image they start."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.settings import Settings
from tests.conftest import ROOT
from tests.deploy.conftest import arguments, read_environ, read_image, settings_in_image

KUBERNETES = ROOT / "deploy" / "kubernetes"
KSERVE = ROOT / "deploy" / "kserve"
OLDEST, NEWEST = "1.30", "1.37"
"""The releases of Kubernetes whose schemas the manifests are checked against."""

Document = dict[str, Any]


def documents(path: Path) -> list[Document]:
    """Read the documents of one file."""
    return list(yaml.safe_load_all(path.read_text()))


def build(directory: Path) -> list[Document]:
    """Build the kustomization in ``directory``; skip the test where nothing here can."""
    run = subprocess.run(
        [*_builder(), str(directory)], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert not run.stderr  # a field that is deprecated, say
    return list(yaml.safe_load_all(run.stdout))


def build_with(what: str, components: Sequence[str], directory: Path) -> list[Document]:
    """Build the base or an overlay with components, as a kustomization of the user's own does."""

    def relative(path: Path) -> str:
        return os.path.relpath(path, directory)

    kustomization = {
        "resources": [relative(KUBERNETES / what)],
        "components": [relative(KUBERNETES / "components" / name) for name in components],
    }
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return build(directory)


@cache
def _builder() -> tuple[str, ...]:
    if shutil.which("kustomize"):
        return ("kustomize", "build")
    if shutil.which("kubectl"):
        run = subprocess.run(
            ["kubectl", "version", "--client"], capture_output=True, text=True, check=False
        )
        found = re.search(r"Kustomize Version: v(\d+)", run.stdout)
        if found and int(found[1]) >= 5:
            return ("kubectl", "kustomize")
    pytest.skip("there is neither kustomize nor a kubectl with kustomize 5")


def check_against_the_schema(document: Document, version: str) -> None:
    """Raise where the API of that release would not know a field or take a value."""
    kubernetes_validate.validate(document, version, strict=True)


@dataclass(frozen=True)
class Image:
    """What the Dockerfile says of the image."""

    environ: dict[str, str]
    user: str
    port: int
    directory: str


@cache
def image() -> Image:
    instructions = read_image()
    [user], [port] = arguments(instructions, "USER"), arguments(instructions, "EXPOSE")
    [directory] = arguments(instructions, "WORKDIR")
    return Image(read_environ(instructions), user, int(port), directory)


def variables(container: Document) -> dict[str, str]:
    """Return what a container sets itself, with $(NAME) replaced as the kubelet does."""
    values: dict[str, str] = {}
    for variable in container["env"]:
        value = variable["value"]
        for name, known in values.items():
            value = value.replace(f"$({name})", known)
        values[variable["name"]] = value
    return values


def settings_in_force(container: Document, file: Path | None = None) -> Settings:
    """Load the settings as in a pod, with ``file`` mounted where LANTERN_CONFIG says."""
    return settings_in_image(variables(container), file)


def mounts(pod: Document, container: Document) -> dict[str, tuple[Document, Document]]:
    """Return the mount and the volume at each path; every volume is mounted once."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert sorted(mount["name"] for mount in container["volumeMounts"]) == sorted(volumes)
    return {
        mount["mountPath"]: (mount, volumes[mount["name"]]) for mount in container["volumeMounts"]
    }


def seconds_to_end(container: Document) -> int:
    """Return for how long the container waits before it is told to stop."""
    program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    return int(seconds)


def mebibytes(quantity: str) -> int:
    """Read a quantity of memory in Mi or Gi."""
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]
