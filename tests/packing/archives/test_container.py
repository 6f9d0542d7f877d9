"""Archives that mean harm cost bounded time, memory and files, and write nothing outside."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from app.model.errors import BundleError
from app.packing.archives import container
from app.packing.archives.container import METADATA, MOST_FILES, unpack

HONEST = {METADATA: b"{}", "handler.py": b"x = 1\n", "weights.pt": b"w" * 1000}


def zipped(path: Path, members: dict[Any, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, members: dict[str, bytes], *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"digits/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for each in more:
            archive.addfile(each)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    directory = tmp_path / "scratch" / "out"
    directory.mkdir(parents=True)
    return directory


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


def refused(path: Path, out: Path) -> str:
    """Return why an archive is refused, and check that it wrote nothing outside."""
    beside = {*out.parent.parent.rglob("*")}
    with pytest.raises(BundleError) as error:
        unpack(path, out)
    assert {*out.parent.parent.rglob("*")} - beside <= {*out.rglob("*")}
    return str(error.value)


@pytest.mark.parametrize("suffix", [".mar", ".tar.gz"])
def test_an_archive_is_unpacked(suffix: str, tmp_path: Path, out: Path) -> None:
    make = zipped if suffix == ".mar" else tarred
    unpacked = unpack(make(tmp_path / f"m{suffix}", HONEST), out)
    assert unpacked.metadata == b"{}"
    assert sorted(unpacked.files) == ["handler.py", "weights.pt"]
    assert (out / "weights.pt").read_bytes() == HONEST["weights.pt"]


@pytest.mark.parametrize("suffix", [".mar", ".tar.gz"])
def test_what_a_bundle_has_no_place_for_is_named(suffix: str, tmp_path: Path, out: Path) -> None:
    make = zipped if suffix == ".mar" else tarred
    members = HONEST | {"conf/a.json": b"", ".hidden": b"", "a b.txt": b""}
    unpacked = unpack(make(tmp_path / f"m{suffix}", members), out)
    assert unpacked.left == [
        "'conf/a.json' is left out: a bundle has no directories.",
        "'.hidden' is left out: its name is no plain file name.",
        "'a b.txt' is left out: its name is no plain file name.",
    ]
    assert names(out) == ["handler.py", "weights.pt"]


@pytest.mark.parametrize(
    "name", ["../x.py", "/tmp/x.py", "a/../../x.py", "..", "a\\..\\x.py", "C:\\x", "x/../y"]
)
def test_a_name_that_leads_out_is_refused(name: str, tmp_path: Path, out: Path) -> None:
    assert "leads out of it" in refused(zipped(tmp_path / "m.mar", {name: b"x"}), out)
    assert "leads out of it" in refused(
        tarred(tmp_path / "m.tar.gz", {}, tarfile.TarInfo(name)), out
    )


def test_links_and_devices_are_refused(tmp_path: Path, out: Path) -> None:
    for mode in (0o120777, 0o010666, 0o020666):
        entry = zipfile.ZipInfo("x.py")
        entry.external_attr = mode << 16
        assert "is a link or a device" in refused(
            zipped(tmp_path / "m.mar", {entry: b"/etc/passwd"}), out
        )
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        info = tarfile.TarInfo("digits/x.py")
        info.type, info.linkname = kind, "/etc/passwd"
        assert "is a link or a device" in refused(tarred(tmp_path / "m.tar.gz", {}, info), out)
    assert names(out) == []


def test_thousands_of_files_are_refused_before_they_are_written(tmp_path: Path, out: Path) -> None:
    many = {f"f{i}": b"" for i in range(MOST_FILES + 1)}
    assert "has more than 1,000 entries" in refused(zipped(tmp_path / "m.mar", many), out)
    assert names(out) == []
    assert "has more than 1,000 entries" in refused(tarred(tmp_path / "m.tar.gz", many), out)
    assert len(names(out)) <= MOST_FILES


def test_directories_of_a_tar_count_as_its_entries(tmp_path: Path, out: Path) -> None:
    directories = [tarfile.TarInfo(f"m/{number}") for number in range(2_000)]
    for each in directories:
        each.type = tarfile.DIRTYPE
    path = tarred(tmp_path / "m.mar", {}, *directories)
    assert "has more than 1,000 entries" in refused(path, out)


def test_a_directory_of_a_zip_that_is_huge_is_not_read(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "_LARGEST_DIRECTORY", 1 << 17)
    path = zipped(tmp_path / "m.mar", {f"{'x' * 200}{i}": b"" for i in range(2000)})
    read: list[int] = []
    parse = zipfile.ZipFile._RealGetContents  # type: ignore[attr-defined]

    def parsed(archive: zipfile.ZipFile) -> None:
        parse(archive)
        read.append(1)

    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", parsed)
    assert "has more than 1,000 entries" in refused(path, out)
    assert read == []


@pytest.mark.parametrize("suffix", [".mar", ".tar.gz"])
def test_a_bomb_is_refused(
    suffix: str, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "_SMALL", 1 << 20)
    make = zipped if suffix == ".mar" else tarred
    path = make(tmp_path / f"m{suffix}", {"a.pt": bytes(1 << 23)})
    assert path.stat().st_size < 1 << 14
    assert "may be a bomb" in refused(path, out)
    assert sum(file.stat().st_size for file in out.iterdir()) == 0


def test_a_tar_that_hides_a_bomb_in_a_header_is_refused(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "_SMALL", 1 << 20)
    info = tarfile.TarInfo("digits/x.py")
    info.pax_headers = {"comment": "x" * (1 << 24)}
    assert "may be a bomb" in refused(tarred(tmp_path / "m.tar.gz", {}, info), out)


def test_sizes_that_are_not_true_are_refused(tmp_path: Path, out: Path) -> None:
    content = bytearray(zipped(tmp_path / "m.mar", {"a.pt": b"x" * 5000}).read_bytes())
    place = content.rindex(b"PK\x01\x02")
    for stated in (10, 6000):
        content[place + 24 : place + 28] = struct.pack("<I", stated)
        (tmp_path / "n.mar").write_bytes(content)
        assert "is damaged" in refused(tmp_path / "n.mar", out)
        for file in out.iterdir():
            file.unlink()


def test_two_files_of_one_name_are_refused(tmp_path: Path, out: Path) -> None:
    for name in ("a.py", METADATA):
        path = tmp_path / "m.mar"
        with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning):
            archive.writestr(name, "x")
            archive.writestr(name, "y")
        assert "two files" in refused(path, out)
        for file in out.iterdir():
            file.unlink()


def test_a_huge_manifest_is_refused(tmp_path: Path, out: Path) -> None:
    path = zipped(tmp_path / "m.mar", {METADATA: b"[" * ((1 << 20) + 1)})
    assert "exceeds the limit of 1 MiB" in refused(path, out)


def test_unusual_compression_and_encryption_are_refused(tmp_path: Path, out: Path) -> None:
    path = zipped(tmp_path / "m.mar", {"a.py": b"x" * 100}, zipfile.ZIP_LZMA)
    assert "compressed in an unusual way" in refused(path, out)
    content = bytearray(zipped(tmp_path / "m.mar", {"a.py": b"x" * 100}).read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert "is encrypted" in refused(path, out)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"PK\x03\x04",
        b"PK\x03\x04" + bytes(100),
        b"\x1f\x8b",
        gzip.compress(b"x", mtime=0),
    ],
)
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path, out: Path) -> None:
    path = tmp_path / "m.mar"
    path.write_bytes(content)
    refused(path, out)


@pytest.mark.parametrize("suffix", [".mar", ".tar.gz"])
def test_hundreds_of_mutants_are_unpacked_or_refused(
    suffix: str, tmp_path: Path, out: Path
) -> None:
    make = zipped if suffix == ".mar" else tarred
    whole = make(tmp_path / f"m{suffix}", HONEST).read_bytes()
    chance = random.Random(7)
    for number in range(300):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path = tmp_path / f"mutant{suffix}"
        path.write_bytes(content[: chance.choice([len(content), chance.randrange(len(content))])])
        into = out / str(number)
        into.mkdir()
        with suppress(BundleError):
            unpack(path, into)
        assert all(file.is_file() for file in into.iterdir())
    assert names(out.parent) == ["out"]
