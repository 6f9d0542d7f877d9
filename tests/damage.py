"""Ways in which a version goes bad, each with what is said of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, Any]
GOLDEN = "golden.npz"


def edit_manifest(version: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit ``manifest.json`` in place."""
    file = version / "manifest.json"
    document = json.loads(file.read_text())
    edit(document)
    file.write_text(json.dumps(document))


def record_file(version: Path, name: str) -> None:
    """Have the manifest say of a file what it is now."""
    content = (version / name).read_bytes()
    record = {"sha256": sha256(content).hexdigest(), "size": len(content)}
    edit_manifest(version, lambda m: m["files"].update({name: record}))


def golden_arrays(version: Path) -> Arrays:
    """Return the arrays of the golden data, by their names in the file."""
    with np.load(version / GOLDEN) as archive:
        return dict(archive)


def edit_golden(version: Path, edit: Callable[[Arrays], object]) -> None:
    """Edit the golden data in place, and have the manifest say what they are now."""
    arrays = golden_arrays(version)
    edit(arrays)
    np.savez(version / GOLDEN, **arrays)
    record_file(version, GOLDEN)


def move_golden(version: Path, off: float) -> None:
    """Have the golden data say that one probability was larger by ``off``."""

    def alter(arrays: Arrays) -> None:
        arrays["output_0"][1, 0] += off

    edit_golden(version, alter)


def write_as_format_1(version: Path) -> Path:
    """Write the manifest of a classifier as format 1 has it, its golden samples inside."""

    def rewrite(manifest: dict[str, Any]) -> None:
        arrays = golden_arrays(version)
        del manifest["files"][GOLDEN]
        for member in ("task", "inputs", "outputs", "tolerances", "batch"):
            del manifest[member]
        for feature in manifest["features"]:
            for member in ("kind", "tensor", "column"):
                feature.pop(member, None)
        samples = [
            [None if np.isnan(value) else float(value) for value in row]
            for row in arrays["input_0"]
        ]
        golden = {"samples": samples, "probabilities": arrays["output_0"].tolist()}
        manifest.update(format=1, golden=golden)

    edit_manifest(version, rewrite)
    (version / GOLDEN).unlink()
    return version


def corrupt(version: Path) -> None:
    content = bytearray((version / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (version / "model.onnx").write_bytes(content)


def truncate(version: Path) -> None:
    file = version / "model.pt"
    file.write_bytes(file.read_bytes()[:-1])


def forge_checksum(version: Path) -> None:
    edit_manifest(version, lambda m: m["files"]["model.onnx"].update(sha256="0" * 64))


def answer_otherwise(version: Path) -> None:
    """Take the ONNX file of version 1, and its checksum: only the golden samples tell."""
    shutil.copy(version.parent / "1" / "model.onnx", version / "model.onnx")
    record_file(version, "model.onnx")


def describe_another_network(version: Path) -> None:
    def drop_a_feature(manifest: dict[str, Any]) -> None:
        manifest["features"].pop()
        manifest["inputs"][0]["shape"][1] -= 1

    edit_manifest(version, drop_a_feature)
    edit_golden(version, lambda arrays: arrays.update(input_0=arrays["input_0"][:, :-1]))


def lose_a_file(version: Path) -> None:
    (version / "model.onnx").unlink()


def lose_the_manifest(version: Path) -> None:
    (version / "manifest.json").unlink()


def call_itself_otherwise(version: Path) -> None:
    edit_manifest(version, lambda m: m.update(version="7"))


DAMAGE: dict[Callable[[Path], None], str] = {
    corrupt: "model.onnx does not match the SHA-256",
    truncate: "model.pt has",
    forge_checksum: "model.onnx does not match the SHA-256",
    answer_otherwise: "onnx: The answers to the golden samples differ",
    describe_another_network: "the input must be float32 of any number of rows and 2 columns",
    lose_a_file: "model.onnx is missing",
    lose_the_manifest: "manifest.json is missing",
    call_itself_otherwise: "its manifest says '7'",
}
