"""Bundles on disk: found, verified, or refused with a sentence that names the fault."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from app.model.bundle import find_bundle, open_bundle
from app.model.compat import breaking_changes, harmless_changes
from app.model.errors import BundleError
from app.model.manifest_file import read_manifest, write_manifest
from tests.damage import record_file, write_as_format_1


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit ``manifest.json`` in place."""
    file = path / "manifest.json"
    document = json.loads(file.read_text())
    edit(document)
    file.write_text(json.dumps(document))


def test_a_bundle_that_was_packed_opens(packed: Path) -> None:
    bundle = open_bundle(packed)
    assert bundle.checkpoint == packed / "model.pt"
    assert bundle.onnx == packed / "model.onnx"
    assert set(bundle.manifest.files) == {"model.pt", "model.onnx", "README.md", "golden.npz"}


def test_a_manifest_survives_being_written_and_read(packed: Path, tmp_path: Path) -> None:
    manifest = read_manifest(packed / "manifest.json")
    write_manifest(manifest, tmp_path / "manifest.json")
    written, packed_one = (
        json.loads((path / "manifest.json").read_text()) for path in (tmp_path, packed)
    )
    assert written == packed_one


@pytest.mark.parametrize("name", ["model.pt", "model.onnx", "README.md", "golden.npz"])
def test_a_file_with_one_byte_changed_is_refused_by_name(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} does not match the SHA-256"):
        open_bundle(bundle)


def test_a_file_that_is_changed_after_it_was_verified_is_not_read(bundle: Path) -> None:
    opened = open_bundle(bundle)
    name = next(iter(opened.manifest.files))
    assert opened.read_file(name) == (bundle / name).read_bytes()
    content = bytearray((bundle / name).read_bytes())
    content[-1] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match="was altered after it was packed"):
        opened.read_file(name)


def test_a_file_cut_short_is_refused_with_both_sizes(bundle: Path) -> None:
    (bundle / "model.pt").write_bytes((bundle / "model.pt").read_bytes()[:100])
    with pytest.raises(BundleError, match=r"model\.pt has 100 bytes, but the manifest says"):
        open_bundle(bundle)


def test_a_file_that_is_gone_is_named(bundle: Path) -> None:
    (bundle / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"model\.onnx is missing"):
        open_bundle(bundle)


def test_a_file_the_manifest_does_not_list_is_never_used(bundle: Path) -> None:
    change(bundle, lambda m: m["files"].pop("model.onnx"))
    assert open_bundle(bundle).onnx is None


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda m: m.update(format=3), "format must be 1 or 2"),
        (lambda m: m.pop("name"), "name must be a string that is not empty"),
        (lambda m: m.update(format=True), "format must be 1"),
        (lambda m: m.update(version=1), "version must be a string of at most 64 letters"),
        (lambda m: m.update(version="1\r\n"), "version must be a string of at most 64 letters"),
        (lambda m: m["features"][0].update(minimum=91), "minimum must be at most the maximum"),
        (
            lambda m: m["features"][0].update(maximum=True),
            "maximum must be a number that is",
        ),
        (lambda m: m.update(features=[]), "features must be an array of at least 1"),
        (lambda m: m["features"][1].pop("name"), r"features\[1\].name must be"),
        (lambda m: m["features"][0].update(nullable=1), r"features\[0\].nullable must be true"),
        (lambda m: m["features"][0].update(minimum="0"), r"features\[0\].minimum must be a number"),
        (lambda m: m["features"][1].update(name="age"), "features must be unique; repeated: age"),
        (lambda m: m.update(classes=["one"]), "classes must be an array of at least 2"),
        (lambda m: m.update(classes=["a", "a", "b"]), "classes must be unique"),
        (
            lambda m: m["classes"].__setitem__(2, "é" * 257),
            r"classes\[2\] is a name of 257 characters, which exceeds the limit of 256",
        ),
        (
            lambda m: m["features"][1].update(name="a" * 300),
            r"features\[1\] is a name of 300 characters, which exceeds the limit of 256",
        ),
        (
            lambda m: m.update(description="a" * (16 << 20)),
            r"has 16,\d+,\d+ bytes, which exceeds the limit of 16,777,216",
        ),
        *(
            (
                lambda m, key=key: m["features"][2].update({key: 1e300}),
                rf"features\[2\].{key} must be a number that is finite as a 32-bit float",
            )
            for key in ("minimum", "maximum", "example")
        ),
        (
            lambda m: m["golden"]["samples"][1].__setitem__(2, -1e39),
            r"golden.samples\[1\]\[2\] must be a number that is finite as a 32-bit float",
        ),
        (lambda m: m.update(description=3), "description must be a string"),
        (lambda m: m["features"][0].update(unit=3), r"features\[0\].unit must be a string"),
        (lambda m: m.update(version=None), "version must be a string"),
        (lambda m: m["features"][0].update(name=None), r"features\[0\].name must be a string"),
        (lambda m: m.update(golden=None), "golden must be an object"),
        (lambda m: m["classes"].__setitem__(0, None), r"classes\[0\] must be a string"),
        (lambda m: m.update(training=[]), "training must be an object"),
        (lambda m: m.update(preprocessing=[{}, 3]), r"preprocessing\[1\] must be an object"),
        (lambda m: m["golden"]["samples"][0].__setitem__(1, "1"), r"samples\[0\]\[1\] must be a n"),
        (lambda m: m["files"]["model.pt"].pop("size"), r"files\.model\.pt\.size must be a number"),
        (lambda m: m.pop("golden"), "golden must be an object"),
        (lambda m: m["golden"]["samples"][0].pop(), r"golden.samples\[0\] must be an array of 3"),
        (lambda m: m["golden"]["probabilities"].pop(), "as many rows as golden.samples"),
        (lambda m: m["golden"]["probabilities"][0].__setitem__(0, None), "without null"),
        (lambda m: m["files"].update({"../x": {}}), "must be named like a plain file"),
        (lambda m: m["files"].update({"a/../../x": {}}), "must be named like a plain file"),
        (lambda m: m["files"]["model.pt"].update(sha256="abc"), "64 lower-case hexadecimal"),
        (lambda m: m["files"]["model.pt"].update(size=-1), "a number of bytes"),
        (lambda m: [m["files"].pop(n) for n in ("model.pt", "model.onnx")], "lists neither"),
    ],
)
def test_a_manifest_of_format_1_with_a_wrong_member_is_refused_by_its_place(
    bundle: Path, edit: Callable[[dict[str, Any]], object], said: str
) -> None:
    change(write_as_format_1(bundle), edit)
    with pytest.raises(BundleError, match=said):
        open_bundle(bundle)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda m: m.pop("task"), "task is missing|task must be"),
        (lambda m: m.pop("golden"), "golden must be|golden is missing"),
        (lambda m: m.update(golden="../golden.npz"), "golden must be named like a plain file"),
        (lambda m: m.update(golden="other.npz"), "golden names 'other.npz', which files doesn't"),
        (lambda m: m.update(reference="reference.npz"), "reference names 'reference.npz', which"),
        (lambda m: m.update(reference="/etc/passwd"), "reference must be"),
        (lambda m: m.update(sumary="x"), "sumary"),
        (lambda m: m["features"][0].update(minimum=91), "minimum must be at most the maximum"),
        (lambda m: m["features"][0].update(column=7), "has no column 7"),
        (lambda m: m["features"][0].update(tensor="x"), "tensor 'x' is not one of the inputs"),
        (lambda m: m["inputs"][0].update(shape=[3]), r"must have -1 as its first dimension"),
        (lambda m: m["outputs"][0].update(shape=[]), r"must have -1 as its first dimension"),
        (lambda m: m["outputs"][0].update(role="tensor"), "must have exactly one of the role"),
        (lambda m: m.update(tolerances={"x": {}}), "tolerances has 'x', which is not one"),
        (lambda m: m.update(labels=["a"]), "labels is for the task 'multilabel'"),
    ],
)
def test_a_manifest_of_format_2_with_a_wrong_member_is_refused_by_its_place(
    bundle: Path, edit: Callable[[dict[str, Any]], object], said: str
) -> None:
    change(bundle, edit)
    with pytest.raises(BundleError, match=said):
        open_bundle(bundle)


def test_a_bundle_of_format_1_is_the_same_model(bundle: Path) -> None:
    copy = shutil.copytree(bundle, bundle.parent / "as format 1" / "1")
    before, after = open_bundle(bundle), open_bundle(write_as_format_1(copy))
    assert breaking_changes(before.manifest, after.manifest) == []
    assert breaking_changes(after.manifest, before.manifest) == []
    assert harmless_changes(before.manifest, after.manifest) == []
    for member in ("task", "inputs", "outputs", "features", "classes", "tolerances", "batch"):
        assert getattr(before.manifest, member) == getattr(after.manifest, member), member
    golden = [each.read_golden() for each in (before, after)]
    assert golden[0] is not None
    assert golden[1] is not None
    for ours, theirs in zip(*((each.inputs, each.outputs) for each in golden if each), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name], equal_nan=True) for name in ours)


@pytest.mark.parametrize("name", ["golden.npz", "reference.npz"])
def test_data_beside_the_network_are_hashed_as_it_is(bundle: Path, name: str) -> None:
    if name == "reference.npz":
        np.savez(bundle / name, rows=np.zeros((2, 3)))
        record_file(bundle, name)
        change(bundle, lambda m: m.update(reference=name))
    assert open_bundle(bundle).manifest.files[name].size == (bundle / name).stat().st_size
    with (bundle / name).open("r+b") as file:
        file.seek(100)
        file.write(b"?")
    with pytest.raises(BundleError, match=f"{name} does not match the SHA-256"):
        open_bundle(bundle)


def test_null_says_the_same_as_a_member_that_is_not_there(bundle: Path) -> None:
    optional = ("description", "created_at", "preprocessing", "training")
    of_features = ("description", "unit", "minimum", "maximum", "nullable", "example")

    def remove(manifest: dict[str, Any]) -> None:
        for key in optional:
            manifest.pop(key, None)
        for feature in manifest["features"]:
            for key in of_features:
                feature.pop(key, None)

    def say_null(manifest: dict[str, Any]) -> None:
        manifest.update(dict.fromkeys(optional))
        manifest["training"] = {"roc_auc": None}
        for feature in manifest["features"]:
            feature.update(dict.fromkeys(of_features))

    change(bundle, remove)
    without = open_bundle(bundle).manifest
    change(bundle, say_null)
    with_null = open_bundle(bundle).manifest
    assert with_null.training == {"roc_auc": None}  # what is in a figure is nobody's concern
    assert msgspec.structs.replace(with_null, training={}, golden=None) == (
        msgspec.structs.replace(without, golden=None)
    )


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000])
def test_a_manifest_that_is_not_a_json_object_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        open_bundle(bundle)


def test_the_highest_version_is_found_by_number_not_by_letter(bundle: Path) -> None:
    for version in ("2", "9", "9.1", "10", "2-old", "10.bak", "1²"):
        shutil.copytree(bundle, bundle.parent / version)
    (bundle.parent / "11").mkdir()  # holds no model
    assert find_bundle(bundle.parent).name == "10"
    assert find_bundle(bundle.parent, "2").name == "2"
    assert find_bundle(bundle.parent, "2-old").name == "2-old"
    assert find_bundle(bundle.parent / "9") == bundle.parent / "9"


def test_versions_of_one_number_are_ordered_alike_however_the_file_system_lists_them(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bundle, bundle.parent / "01")
    names = [path.name for path in bundle.parent.iterdir()]
    for listed in (names, names[::-1]):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "iterdir", lambda path, n=listed: (path / name for name in n))
            assert find_bundle(bundle.parent).name == "1"


def test_a_version_that_is_not_there_is_refused_with_those_that_are(bundle: Path) -> None:
    with pytest.raises(BundleError, match="no version '7'; it has: 1"):
        find_bundle(bundle.parent, "7")


def test_of_versions_without_a_number_none_is_served_unasked(bundle: Path) -> None:
    bundle.rename(bundle.with_name("spring"))
    with pytest.raises(BundleError, match="set model.version to one of: spring"):
        find_bundle(bundle.parent)
    assert find_bundle(bundle.parent, "spring").name == "spring"


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
def test_a_pipe_in_place_of_a_file_is_refused_not_waited_for(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(BundleError, match=f"{name} is missing, or not a regular file"):
        open_bundle(bundle)


@pytest.mark.parametrize("path", ["a\0b", "a" * 300])
def test_a_path_that_can_not_be_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(BundleError, match="can't be read"):
        find_bundle(tmp_path / path)


def test_a_place_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has no model"):
        find_bundle(tmp_path)
    (tmp_path / "models" / "churn" / "1").mkdir(parents=True)
    (tmp_path / "models" / "churn" / "1" / "manifest.json").touch()
    with pytest.raises(BundleError, match=r"several models.*choose one of them: .*models/churn\."):
        find_bundle(tmp_path / "models")
    with pytest.raises(BundleError, match="There is no model at .*nowhere"):
        find_bundle(tmp_path / "nowhere")
