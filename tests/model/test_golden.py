"""Golden data are read without belief in what the file says, and judged by tolerances."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.lib import format as npy

from app.model.bundle import open_bundle
from app.model.errors import BundleError
from app.model.golden import Golden, read_golden
from app.model.manifest import EXACT, Manifest, Tolerance
from app.model.self_test import MOST_ALONE, check_answer, is_close, runs_of
from app.model.signature import OutputSpec
from app.model.tasks import task_of
from app.registry.loading import ModelSource, load_model
from tests import task_models
from tests.damage import Arrays, edit_golden, edit_manifest, record_file


def header(text: str) -> bytes:
    """Return the beginning of a .npy with a header of any text."""
    content = text.encode() + b"\n"
    return npy.magic(1, 0) + len(content).to_bytes(2, "little") + content


class Hostile:
    """Does what it should not when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("it was unpickled",)


def pickled() -> bytes:
    beginning = header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }")
    return beginning + pickle.dumps([Hostile()])


FLOATS = "{{'descr': '<f4', 'fortran_order': False, 'shape': {}, }}"
MEMBERS: dict[str, tuple[bytes, str]] = {
    "objects": (pickled(), "must be an array of booleans, numbers or strings"),
    "larger than its bytes": (header(FLOATS.format("(1000000000000,)")), "larger than its file"),
    "a header without end": (header(FLOATS.format("(" * 9_000)), "is not a .npz"),
    "a huge header": (header(FLOATS.format("(2,)") + " " * 60_000), "is not a .npz"),
    "a deep header": (header("-" * 9_000 + "1"), "is not a .npz"),
    "a program as header": (header("__import__('os').abort()"), "is not a .npz"),
    "records": (
        header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }") + b"1234",
        "must be an array of booleans, numbers or strings",
    ),
    "no array": (b"hello", "is not a .npz"),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_hostile_array_is_refused_unread(tmp_path: Path, name: str) -> None:
    content, said = MEMBERS[name]
    file = tmp_path / "golden.npz"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("input_0.npy", content)
    with pytest.raises(BundleError, match=said):
        read_golden(file, Manifest("m", "1").signature)


def bomb(file: Path) -> None:
    """Write 300 MiB of zeros in 300 KiB."""
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("input_0.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(300):
            member.write(bytes(1 << 20))


def twice(file: Path) -> None:
    array = io.BytesIO()
    np.save(array, np.zeros((2, 2), np.float32))
    with zipfile.ZipFile(file, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for _ in range(2):
            archive.writestr("input_0.npy", array.getvalue())


def damaged_stream(file: Path) -> None:
    np.savez_compressed(file, input_0=np.arange(100_000), output_0=np.arange(100_000))
    content = bytearray(file.read_bytes())
    content[200:400] = bytes(200)
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (bomb, "at most 268,435,456 are read"),
        (twice, "has two arrays called"),
        (damaged_stream, "is not a .npz"),
        (lambda file: file.write_bytes(b"PK\x03\x04"), "is not a .npz"),
        (lambda file: file.mkdir(), "can't be read"),
    ],
)
def test_a_hostile_archive_is_refused(
    tmp_path: Path, write: Callable[[Path], Any], said: str
) -> None:
    write(tmp_path / "golden.npz")
    with pytest.raises(BundleError, match=said):
        read_golden(tmp_path / "golden.npz", Manifest("m", "1").signature)


def keep_rows(name: str, rows: int) -> Callable[[Arrays], object]:
    return lambda arrays: arrays.update({name: arrays[name][:rows]})


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (keep_rows("output_0", 1), "as many in each array; it holds 1 and 3"),
        (
            lambda a: a.update({n: array[:0] for n, array in a.items()}),
            "one row or more, as many in each array; it holds 0",
        ),
        (lambda a: a.pop("input_0"), "must hold input_0, output_0; it holds output_0"),
        (lambda a: a.update(input_0=a["input_0"].astype(np.float64)), "must be FP32 of shape"),
        (lambda a: a.update(input_0=a["input_0"][:, :2]), "must be FP32 of shape"),
        (lambda a: a.update(input_0=a["input_0"].astype(">f4")), "must be FP32 of shape"),
    ],
)
def test_golden_data_that_are_not_those_of_the_signature_never_serve(
    bundle: Path, edit: Callable[[Arrays], object], said: str
) -> None:
    edit_golden(bundle, edit)
    with pytest.raises(BundleError, match=said):
        load_model(ModelSource(bundle))


def test_a_file_that_grew_by_the_data_of_another_is_refused_by_its_size(bundle: Path) -> None:
    with (bundle / "golden.npz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"golden\.npz has .* bytes, but the manifest says"):
        open_bundle(bundle)
    record_file(bundle, "golden.npz")
    load_model(ModelSource(bundle))  # what follows an archive is nobody's concern


def several(*specs: OutputSpec, **tolerances: Tolerance) -> Manifest:
    return Manifest("m", "1", task="tensors", outputs=specs, tolerances=tolerances)


ONE = OutputSpec("one", "FP32", (-1,))
TWO = OutputSpec("two", "FP64", (-1,))


def judged(manifest: Manifest, found: dict[str, Any], device: str = "cpu") -> str:
    """Return why outputs are refused where the golden ones are 100; empty if they are not."""
    golden = Golden({}, {spec.name: np.array([100.0]) for spec in manifest.outputs})
    try:
        check_answer(manifest, task_of(manifest), found, golden, device)
    except BundleError as error:
        return str(error)
    return ""


def test_each_output_has_its_own_tolerance() -> None:
    manifest = several(ONE, TWO, one=Tolerance(absolute=0.1), two=Tolerance(relative=0.01))
    within = {"one": np.array([100.05]), "two": np.array([100.9])}
    assert judged(manifest, within) == ""
    said = judged(manifest, {"one": np.array([100.5]), "two": np.array([102.0])})
    assert "'one' differs by up to 0.5 (0.1 is allowed)" in said
    assert "'two' differs by up to 2 (0 + 0.01 of its size is allowed)" in said
    assert judged(manifest, {"one": np.array([100.5]), "two": np.array([102.0])}, "cuda") == ""
    assert "'one' differs by up to 5" in judged(
        manifest, within | {"one": np.array([105.0])}, "cuda"
    )
    said = judged(manifest, within | {"two": np.array([1.0, 2.0])})
    assert "'two' has the shape [2], not [1]" in said


@pytest.mark.parametrize(
    ("found", "expected", "tolerance", "close"),
    [
        (np.array([1, 2]), np.array([1, 3]), EXACT, False),
        (np.array([1, 2]), np.array([1, 3]), Tolerance(absolute=1), True),
        (np.array([2**62]), np.array([2**62 + 1]), EXACT, False),
        (np.array(["a"], object), np.array(["a"], object), Tolerance(absolute=1), True),
        (np.array(["a"], object), np.array(["b"], object), Tolerance(absolute=1), False),
        (np.array([True]), np.array([False]), Tolerance(absolute=1), False),
        (np.array([np.nan, np.inf]), np.array([np.nan, np.inf]), EXACT, True),
        (np.array([np.nan]), np.array([1.0]), Tolerance(absolute=1), False),
    ],
)
def test_what_is_close(found: Any, expected: Any, tolerance: Tolerance, close: bool) -> None:
    assert is_close(found, expected, tolerance) is close


def test_golden_rows_alone_are_bounded() -> None:
    rows = np.zeros((5 * MOST_ALONE, 1), dtype=np.float32)
    golden = Golden({"x": rows}, {"y": rows})
    together, *alone = runs_of(Manifest("m", "1", batch=True), golden)
    assert together is golden
    assert [each.rows for each in alone] == [1] * MOST_ALONE
    assert [*runs_of(Manifest("m", "1"), golden)] == [golden]


@pytest.mark.parametrize("task", ["regression", "multilabel", "scores", "embedding", "mixed"])
def test_a_model_of_any_task_that_answers_otherwise_never_serves(tmp_path: Path, task: str) -> None:
    version = getattr(task_models, task)(tmp_path / task / "1")
    load_model(ModelSource(version))
    edit_golden(version, lambda arrays: arrays["output_0"].__iadd__(0.25))
    with pytest.raises(BundleError, match="answers to the golden samples differ .* by up to 0.25"):
        load_model(ModelSource(version))
    name = open_bundle(version).manifest.outputs[0].name
    edit_manifest(version, lambda m: m.update(tolerances={name: {"absolute": 0.5}}))
    load_model(ModelSource(version))


def test_a_tolerance_that_is_not_stated_is_none() -> None:
    manifest = several(ONE)
    assert "differs by up to 1e-05" in judged(manifest, {"one": np.array([100.00001])})
    assert (
        judged(
            replace(manifest, tolerances={"one": Tolerance(1e-6)}), {"one": np.array([100.00001])}
        )
        == ""
    )
