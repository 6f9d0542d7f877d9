"""Commands of ``flask --app wsgi model``: a table, JSON that says the same, and an exit code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from flask import Flask

from app.cli.lantern import lantern
from app.model.network import save_checkpoint
from app.registry.release import Release, read_release, write_release
from tests.conftest import ROOT, without_coverage
from tests.damage import DAMAGE, answer_otherwise, corrupt, edit_manifest, write_as_format_1
from tests.small_model import CLASSES, FEATURES, make_network
from tests.tensor_graphs import EVERY_KIND, every_kind

COMMANDS = {
    "list": [],
    "show": ["2"],
    "diff": ["1", "2"],
    "verify": ["2"],
    "promote": ["2"],
    "rollback": [],
    "canary": ["2", "--traffic", "0.1"],
    "shadow": ["2"],
    "clear": [],
    "history": [],
}


@pytest.fixture
def model(versions: Path, make_app: Callable[..., Flask]) -> Callable[..., Result]:
    """Run a command on a model of versions 1, 2 and 3, of which 1 is released."""
    write_release(versions, Release("1"))
    runner = make_app(MODEL__PATH=str(versions)).test_cli_runner()

    def run(*arguments: str) -> Result:
        result = runner.invoke(args=["model", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return run


def flask(versions: Path, *arguments: str, before: str = "") -> subprocess.Popen[str]:
    """Start a command as a process, after the statements ``before``."""
    program = f"import sys\n{before}\nfrom flask.cli import main\nmain()"
    return subprocess.Popen(
        [sys.executable, "-c", program, "--app", "wsgi", "model", *arguments],
        cwd=ROOT,
        env={**without_coverage(), "LANTERN_MODEL__PATH": str(versions)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


def test_every_command_explains_itself_and_its_exit_codes(model: Callable[..., Result]) -> None:
    listed = model("--help")
    for name in COMMANDS:
        assert re.search(rf"^  {name}  ", listed.output, re.MULTILINE)
        text = model(name, "--help").output
        assert "..." not in text
        for part in ("--model NAME", "--json", "Exit codes: 0 done; 1 refused", "3 nothing to cha"):
            assert part in text
    commands = CliRunner().invoke(lantern, ["--help"])
    lines = (listed.output + commands.output).splitlines()
    summaries = [line for line in lines if line.startswith("  ")]
    assert not [line for line in summaries if line.endswith("...")], "a first sentence is too long"


def test_the_versions_are_listed(model: Callable[..., Result], versions: Path) -> None:
    model("canary", "2", "--traffic", "0.05")
    listed = json.loads(model("list", "--json").stdout)
    lines = model("list").stdout.splitlines()
    assert cells(lines[0]) == ["VERSION", "STATE", "PACKED", "SIZE", "TRAINING METRICS"]
    states = ["stable", "canary 0.05", "-"]
    assert len(listed) == len(lines) - 1 == 3
    for document, line, state in zip(listed, lines[1:], states, strict=True):
        size = f"{document['bytes'] / 1024:.1f} KiB"
        metrics = f"roc_auc {document['training']['cv']['roc_auc']['mean']}"
        assert cells(line) == [document["version"], state, document["created_at"], size, metrics]
    assert [document["state"] for document in listed] == ["stable", "canary", ""]
    assert [document["traffic"] for document in listed] == [None, 0.05, None]


def test_a_version_that_can_not_be_read_is_listed_with_the_reason(
    model: Callable[..., Result], versions: Path
) -> None:
    (versions / "3" / "manifest.json").write_text("{")
    shutil.rmtree(versions / "1")
    result = model("list")
    assert result.exit_code == 0
    assert "is not JSON" in result.stdout
    assert re.search(r"^1 +stable .*manifest\.json is missing", result.stdout, re.MULTILINE)


def test_the_versions_are_listed_though_the_release_is_damaged(
    model: Callable[..., Result], versions: Path
) -> None:
    (versions / "release.toml").write_text('stable = "')
    for arguments in (["list"], ["list", "--json"]):
        result = model(*arguments)
        assert result.exit_code == 1
        assert "release.toml is not TOML" in result.stderr
        assert "stable" not in result.stdout
    assert len(json.loads(result.stdout)) == 3


def test_a_version_is_shown(model: Callable[..., Result], versions: Path) -> None:
    text = model("show", "2").stdout
    document = json.loads(model("show", "2", "--json").stdout)
    assert document == json.loads((versions / "2" / "manifest.json").read_text())
    lines = [cells(line) for line in text.splitlines()]
    assert ["version", "2"] in lines
    assert ["golden data", "golden.npz"] in lines
    column = "features[1]"
    assert ["income", "number", "0 to 200,000", "a year", "yes", column, "Income"] in lines
    assert ["features", "FP32", "[-1, 3]"] in lines
    assert ["probabilities", "FP32", "[-1, 3]", "probabilities", "1e-05"] in lines
    assert [f"class_{i}" for i in range(3)] == [line[0] for line in lines if "class_" in line[0]]
    assert ["class_1", "maybe"] in lines
    assert ["cv.roc_auc.mean", "0.82"] in lines
    for name, record in document["files"].items():
        size = record["size"]
        in_words = f"{size} bytes" if size < 1024 else f"{size / 1024:.1f} KiB"
        assert [name, in_words, record["sha256"]] in lines


def test_two_versions_are_told_apart(model: Callable[..., Result], versions: Path) -> None:
    text = model("diff", "1", "3").stdout
    document = json.loads(model("diff", "1", "3", "--json").stdout)
    assert (document["old"], document["new"]) == ("1", "3")
    assert document["breaking"] == document["harmless"] == []
    assert "Schema: no breaking changes." in text
    lines = [cells(line) for line in text.splitlines()]
    assert document["training_metrics"]["rows"] == {"old": 100, "new": 300}
    assert ["rows", "100", "300"] in lines
    agreement = document["agreement"]
    assert ["golden samples of both", str(agreement["samples"])] in lines
    assert ["same class", f"{agreement['agreed']:.1%}"] in lines
    assert ["largest difference", f"{agreement['largest_difference']:.4g}"] in lines
    assert ["mean difference", f"{agreement['mean_difference']:.4g}"] in lines
    same = model("diff", "2", "2").stdout
    assert "Training metrics: the same." in same


def test_what_would_break_callers_is_told(model: Callable[..., Result], versions: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["features"][0].update(name="years")
        manifest["features"][1].update(maximum=9)

    edit_manifest(versions / "2", change)
    text = model("diff", "1", "2").stdout
    document = json.loads(model("diff", "1", "2", "--json").stdout)
    for sentence in (*document["breaking"], *document["harmless"], document["incomparable"]):
        assert sentence in text
    assert document["breaking"] == ["The feature 'age' is now called 'years'."]
    assert document["harmless"] == ["The range of 'income' is now 0 to 9; it was 0 to 200000."]
    assert document["agreement"] is None


def test_a_version_is_verified(model: Callable[..., Result]) -> None:
    result = model("verify", "2")
    assert result.exit_code == 0
    lines = [cells(line) for line in result.stdout.splitlines()]
    assert [line[:2] for line in lines[1:3]] == [["onnx", "match"], ["torch", "match"]]
    assert "Version 2 verifies: 3 files, 3 features, 3 classes." in result.stdout
    document = json.loads(model("verify", "2", "--json").stdout)
    assert document["passed"] is True
    assert (document["files"], document["features"], document["classes"]) == (3, 3, 3)
    for runtime, line in zip(document["runtimes"], lines[1:3], strict=True):
        assert runtime["name"] == line[0]
        assert line[2:4] == [f"{runtime[k]:.2g}" for k in ("single_difference", "batch_difference")]
        assert len(line) == 7
        assert all(value > 0 for value in runtime["latency"].values())


def test_what_is_wrong_with_a_version_is_all_told(
    model: Callable[..., Result], versions: Path
) -> None:
    answer_otherwise(versions / "2")
    (versions / "2" / "model.pt").unlink()
    result = model("verify", "2")
    as_json = model("verify", "2", "--json")
    assert result.exit_code == as_json.exit_code == 1
    assert result.stderr == as_json.stderr == "Error: Version 2 does not verify: 2 faults.\n"
    document = json.loads(as_json.stdout)
    assert document["passed"] is False
    assert len(document["problems"]) == 2
    for problem in document["problems"]:
        assert f"wrong: {problem}" in result.stdout
    assert cells(result.stdout.splitlines()[1])[:2] == ["onnx", "differ"]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_bad_version_is_not_promoted(
    model: Callable[..., Result], versions: Path, damage: Callable[[Path], None]
) -> None:
    damage(versions / "2")
    if damage.__name__ == "lose_the_manifest":
        shutil.copy(versions / "1" / "model.pt", versions / "2")
    before = (versions / "release.toml").read_bytes()
    for arguments in (["promote", "2"], ["canary", "2", "--traffic", "0.1"], ["shadow", "2"]):
        result = model(*arguments)
        assert result.exit_code == 1
        assert DAMAGE[damage] in result.stderr
        assert result.stdout == ""
    assert (versions / "release.toml").read_bytes() == before
    assert not (versions / "history.jsonl").exists()


def test_changes_are_made_told_and_listed(model: Callable[..., Result], versions: Path) -> None:
    steps: list[tuple[list[str], str]] = [
        (["canary", "2", "--traffic", "0.1", "-m", "try it"], "1 + canary 2 (0.1)"),
        (["shadow", "2"], "1 + shadow 2"),
        (["clear"], "1"),
        (["promote", "2", "--message", "better"], "2"),
        (["rollback", "-m", "worse"], "1"),
    ]
    before = "1"
    for arguments, after in steps:
        result = model(*arguments)
        assert result.exit_code == 0, result.stderr
        assert result.stdout == f"Serving now: {after}; before: {before}.\n"
        before = after
    changes = json.loads(model("history", "--json").stdout)
    lines = [cells(line) for line in model("history").stdout.splitlines()]
    assert lines[0] == ["WHEN", "WHO", "ACTION", "FROM", "TO", "WHY"]
    before = "1"
    for change, line, (arguments, after) in zip(changes, lines[1:], steps, strict=True):
        why = change["why"] or "-"
        assert line == [change["when"], change["who"], arguments[0], before, after, why]
        assert change["made"] is True
        before = after
    assert changes[0]["to"] == {"stable": "1", "candidate": "2", "mode": "canary", "traffic": 0.1}
    assert [change["why"] for change in changes] == ["try it", "", "", "better", "worse"]


def test_a_change_is_told_as_json_as_it_stands_in_the_history(
    model: Callable[..., Result], versions: Path
) -> None:
    for arguments in (
        ["canary", "2", "--traffic", "1"],
        ["shadow", "2"],
        ["clear"],
        ["promote", "2", "-m", "ü"],
        ["rollback"],
    ):
        document = json.loads(model(*arguments, "--json").stdout)
        assert document == json.loads((versions / "history.jsonl").read_text().splitlines()[-1])


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            lambda m: m["classes"].reverse(),
            "The classes are in another order: class_0 was 'no' and is 'yes'",
        ),
        (
            lambda m: [f.update(column=1 - f["column"]) for f in m["features"][:2]],
            "column 1 was 'income' and is 'age'): callers who send it whole (Open Inference "
            "Protocol) would be answered wrongly, those who send features by name are not affected",
        ),
    ],
    ids=["classes", "columns"],
)
def test_a_schema_change_has_to_be_allowed(
    model: Callable[..., Result],
    versions: Path,
    edit: Callable[[dict[str, Any]], object],
    said: str,
) -> None:
    edit_manifest(versions / "2", edit)
    result = model("promote", "2")
    assert result.exit_code == 1
    assert said in result.stderr
    assert "--allow-schema-change" in result.stderr
    assert model("canary", "2", "--traffic", "0.5").exit_code == 1
    assert read_release(versions) == Release("1")
    assert model("promote", "2", "--allow-schema-change").exit_code == 0
    assert read_release(versions) == Release("2")


def test_nothing_to_change_has_an_exit_code_of_its_own(
    model: Callable[..., Result], versions: Path
) -> None:
    for arguments, said in (
        (["promote", "1"], "Version 1 is already stable."),
        (["clear"], "There is no candidate: version 1 is served alone."),
    ):
        result = model(*arguments)
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr == f"Error: {said}\n"
    assert not (versions / "history.jsonl").exists()


def test_a_version_that_is_held_is_told_so(model: Callable[..., Result], versions: Path) -> None:
    (versions / "release.toml").unlink()
    result = model("promote", "3")
    assert result.stdout == "Serving now: 3. It stays when newer versions are added.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["promote"],
        ["canary", "2"],
        ["canary", "2", "--traffic", "2"],
        ["canary", "2", "--traffic", "ten"],
        ["diff", "1"],
        ["list", "--model", "../secret"],
        ["list", "--model", ""],
        ["list", "--yaml"],
        ["demote"],
    ],
)
def test_a_command_that_is_misused_says_how_it_is_used(
    model: Callable[..., Result], arguments: list[str]
) -> None:
    result = model(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


@pytest.mark.parametrize("traffic", ["nan", "inf", "-inf"])
def test_traffic_that_is_no_number_is_refused(
    model: Callable[..., Result], versions: Path, traffic: str
) -> None:
    assert model("canary", "2", "--traffic", traffic).exit_code in (1, 2)
    assert read_release(versions) == Release("1")


@pytest.mark.parametrize(
    "arguments", [["show", "7"], ["verify", "7"], ["diff", "1", "7"], ["promote", "7"]]
)
def test_a_version_that_is_not_there_is_refused(
    model: Callable[..., Result], arguments: list[str]
) -> None:
    result = model(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "has no version '7'; it has: 1, 2, 3." in result.stderr


def test_another_model_beside_it_is_reached_by_name(
    model: Callable[..., Result], versions: Path
) -> None:
    shutil.copytree(versions, versions.parent / "other")
    assert model("promote", "3", "--model", "other").exit_code == 0
    assert read_release(versions) == Release("1")
    assert read_release(versions.parent / "other") == Release("3")
    result = model("list", "--model", "nowhere")
    assert result.exit_code == 1
    assert "There is no model at" in result.stderr


def test_what_others_wrote_does_nothing_to_a_terminal(
    model: Callable[..., Result], versions: Path
) -> None:
    model("promote", "2", "-m", "\x1b[2Jgone\nnext \udcff")
    listed = model("history").stdout
    assert "\x1b" not in listed
    assert len(listed.splitlines()) == 2
    assert json.loads(model("history", "--json").stdout)[0]["why"].startswith("\x1b[2Jgone\nnext")


def test_a_change_that_was_cut_off_is_marked(model: Callable[..., Result], versions: Path) -> None:
    model("promote", "2")
    write_release(versions, Release("1"))
    assert "promote (not made)" in model("history").stdout
    assert json.loads(model("history", "--json").stdout)[0]["made"] is False


def test_a_damaged_history_is_told_in_a_sentence(
    model: Callable[..., Result], versions: Path
) -> None:
    (versions / "history.jsonl").write_text("{}\n")
    for command in ("history", "rollback"):
        result = model(command)
        assert result.exit_code == 1
        assert "history.jsonl: line 1 is not a change" in result.stderr


def test_a_process_ends_with_the_code_and_one_sentence(versions: Path) -> None:
    write_release(versions, Release("1"))
    corrupt(versions / "3")
    code, out, err = finished(flask(versions, "promote", "2", "--json"))
    assert (code, err) == (0, "")
    assert json.loads(out)["to"] == {"stable": "2"}
    code, out, err = finished(flask(versions, "promote", "3"))
    assert (code, out) == (1, "")
    assert err.startswith("Error: Version 3 is not promoted because it fails verification:")
    assert len(err.splitlines()) == 1
    assert finished(flask(versions, "promote", "2"))[0] == 3


@pytest.mark.parametrize(
    ("arguments", "libraries"),
    [(["list"], "False False"), (["show", "2"], "False False"), (["history"], "False False")],
)
def test_a_command_that_only_tells_loads_no_model_and_no_torch(
    versions: Path, arguments: list[str], libraries: str
) -> None:
    told = (
        "import atexit\n"
        "def tell():\n"
        "    import gc\n"
        "    model = sys.modules.get('app.model.model')\n"
        "    models = [o for o in gc.get_objects() if isinstance(o, model.Model)]\n"
        "    print('torch' in sys.modules, bool(models), file=sys.stderr)\n"
        "atexit.register(tell)"
    )
    code, _, err = finished(flask(versions, *arguments, before=told))
    assert (code, err) == (0, libraries + "\n")


def test_going_back_does_not_wait_for_torch(versions: Path) -> None:
    write_release(versions, Release("1"))
    assert finished(flask(versions, "promote", "2"))[0] == 0
    no_torch = "sys.modules['torch'] = None"
    assert finished(flask(versions, "rollback", before=no_torch))[0] == 0
    assert read_release(versions) == Release("1")


def test_of_two_promotes_at_once_one_wins_and_the_other_says_so(versions: Path) -> None:
    """For real: the first process holds the lock while it verifies, until it is let go on."""
    write_release(versions, Release("1"))
    verifying, go_on = versions.parent / "verifying", versions.parent / "go-on"
    barrier = (
        "import time, pathlib\n"
        "from app.registry import repository\n"
        "real = repository.verify\n"
        "def verify(*args, **options):\n"
        f"    pathlib.Path({str(verifying)!r}).touch()\n"
        f"    while not pathlib.Path({str(go_on)!r}).exists(): time.sleep(0.01)\n"
        "    return real(*args, **options)\n"
        "repository.verify = verify\n"
    )
    first = flask(versions, "promote", "2", "-m", "first", before=barrier)
    try:
        end = time.monotonic() + 300
        while not verifying.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        code, out, err = finished(flask(versions, "promote", "3", "-m", "second"))
        assert (code, out) == (4, "")
        assert "Another process is changing" in err
        assert read_release(versions) == Release("1")
        assert finished(flask(versions, "list"))[0] == 0
    finally:
        go_on.touch()
        code, out, err = finished(first)
    assert (code, err) == (0, "")
    assert read_release(versions) == Release("2")
    assert [json.loads(line)["why"] for line in (versions / "history.jsonl").open()] == ["first"]
    assert finished(flask(versions, "promote", "3"))[0] == 0


def test_a_promote_that_is_killed_holds_up_nobody(versions: Path) -> None:
    write_release(versions, Release("1"))
    verifying = versions.parent / "verifying"
    wait = (
        "import time, pathlib\n"
        "from app.registry import repository\n"
        f"repository.verify = lambda *_, **__: [pathlib.Path({str(verifying)!r}).touch(),"
        " time.sleep(600)]\n"
    )
    first = flask(versions, "promote", "2", before=wait)
    end = time.monotonic() + 300
    while not verifying.exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert finished(flask(versions, "promote", "3"))[0] == 4
    first.kill()
    first.communicate()
    assert finished(flask(versions, "promote", "3"))[0] == 0
    assert read_release(versions) == Release("3")


def test_a_checkpoint_is_packed_and_promoted(
    model: Callable[..., Result], versions: Path, tmp_path: Path
) -> None:
    """Exported programs and ONNX graphs have tests of their own; this is the way through."""
    features = "\n".join(
        f'[[features]]\nname = "{feature.name}"\nnullable = {str(feature.nullable).lower()}'
        for feature in FEATURES
    )
    (tmp_path / "features.toml").write_text(f"classes = {json.dumps(list(CLASSES))}\n{features}\n")
    names = ",".join(feature.name for feature in FEATURES)
    (tmp_path / "samples.csv").write_text(f"{names}\n30,20000,1\n60,,9\n45,1000,3\n")
    save_checkpoint(make_network(), "4", tmp_path / "model.pt")
    arguments = [
        *("pack", str(tmp_path / "model.pt"), "--features", str(tmp_path / "features.toml")),
        *("--samples", str(tmp_path / "samples.csv"), "--out", str(versions / "4")),
    ]
    packed = model(*arguments)
    assert packed.exit_code == 0, packed.output
    assert "Packed version 4 of example" in packed.output
    again = model(*arguments)
    assert again.exit_code == 1
    assert "already exists" in again.output
    replaced = model(*arguments, "--replace", "--json")
    assert json.loads(replaced.output)["version"] == "4"
    assert model("promote", "4").exit_code == 0


def test_a_version_that_is_held_back_is_told_when_it_is_packed_and_in_the_list(
    model: Callable[..., Result], versions: Path, tmp_path: Path
) -> None:
    (versions / "release.toml").unlink()
    names = [feature.name for feature in FEATURES]
    columns = ["years", *names[1:]]
    features = "".join(f'[[features]]\nname = "{name}"\nnullable = true\n' for name in columns)
    (tmp_path / "features.toml").write_text(f"classes = {json.dumps(list(CLASSES))}\n{features}")
    (tmp_path / "samples.csv").write_text(f"{','.join(columns)}\n30,20000,1\n45,1000,3\n")
    save_checkpoint(make_network(), "4", tmp_path / "model.pt")
    packed = model(
        *("pack", str(tmp_path / "model.pt"), "--features", str(tmp_path / "features.toml")),
        *("--samples", str(tmp_path / "samples.csv"), "--out", str(versions / "4")),
    )
    said = "Version 4 does not take over from version 3 because it may break callers"
    assert packed.exit_code == 0
    assert f"Warning: {said}" in packed.output
    listed = model("list")
    assert listed.exit_code == 0
    assert re.search(r"^3 +stable ", listed.output, re.MULTILINE)
    assert said in listed.output
    assert said in json.loads(model("list", "--json").output)[3]["held_back"]
    assert "Serving now: 2; before: 3." in model("rollback").output
    assert said not in model("list").output  # what is released doesn't change by itself


def test_a_path_without_a_version_is_told_when_it_is_packed(
    model: Callable[..., Result], tmp_path: Path
) -> None:
    """``--out models/churn`` makes version "churn" of "models", which no service would serve."""
    (tmp_path / "features.toml").write_text(
        f"classes = {json.dumps(list(CLASSES))}\n"
        + "".join(f'[[features]]\nname = "{feature.name}"\n' for feature in FEATURES)
    )
    names = ",".join(feature.name for feature in FEATURES)
    (tmp_path / "samples.csv").write_text(f"{names}\n30,20000,1\n45,1000,3\n")
    save_checkpoint(make_network(), "4", tmp_path / "model.pt")
    (tmp_path / "all").mkdir()
    packed = model(
        *("pack", str(tmp_path / "model.pt"), "--features", str(tmp_path / "features.toml")),
        *("--samples", str(tmp_path / "samples.csv"), "--out", str(tmp_path / "all" / "churn")),
    )
    assert packed.exit_code == 0
    assert "Packed version churn of all" in packed.stdout
    assert "has no version that is a number" in packed.stderr
    assert "The last two parts of --out are NAME/VERSION" in packed.stderr


def test_one_of_a_thing_is_not_called_many(model: Callable[..., Result], versions: Path) -> None:
    def onnx_alone(manifest: dict[str, Any]) -> None:
        del manifest["files"]["model.pt"]

    write_as_format_1(versions / "2")
    edit_manifest(versions / "2", onnx_alone)
    (versions / "2" / "model.pt").unlink()
    assert "verifies: 1 file, 3 features, 3 classes." in model("verify", "2").stdout


@pytest.mark.parametrize("named_by_settings", [True, False])
def test_packing_warns_of_another_name_unless_the_settings_name_the_model(
    make_app: Callable[..., Flask], versions: Path, tmp_path: Path, named_by_settings: bool
) -> None:
    manifest = json.loads((versions / "3" / "manifest.json").read_text())
    names = [feature["name"] for feature in manifest["features"]]
    features = "".join(f'[[features]]\nname = "{name}"\nnullable = true\n' for name in names)
    classes = json.dumps(list(CLASSES))
    (tmp_path / "features.toml").write_text(f"classes = {classes}\n{features}")
    (tmp_path / "samples.csv").write_text(f"{','.join(names)}\n30,20000,1\n45,1000,3\n")
    save_checkpoint(make_network(), "4", tmp_path / "model.pt")
    named = versions.rename(versions.parent / "renamed")
    setting = "MODELS__SHOP" if named_by_settings else "MODEL__PATH"
    packed = (
        make_app(**{setting: str(named)})
        .test_cli_runner()
        .invoke(
            args=[
                *("model", "pack", str(tmp_path / "model.pt")),
                *("--features", str(tmp_path / "features.toml")),
                *("--samples", str(tmp_path / "samples.csv"), "--out", str(named / "4")),
            ]
        )
    )
    assert packed.exit_code == 0, packed.output
    assert ("to 'renamed', and so do its URLs" in packed.output) is not named_by_settings


def test_what_can_not_be_packed_is_refused_in_a_sentence(
    model: Callable[..., Result], versions: Path, tmp_path: Path
) -> None:
    result = model(
        *("pack", str(tmp_path / "model.pt2"), "--features", str(tmp_path / "no.toml")),
        *("--samples", str(tmp_path / "no.csv"), "--out", str(versions / "4")),
    )
    assert result.exit_code == 1
    assert "no.toml" in result.output
    assert not (versions / "4").exists()


def test_a_version_that_the_settings_pin_is_told_where_a_release_will_not_count(
    versions: Path, make_app: Callable[..., Flask]
) -> None:
    app = make_app(MODEL__PATH=str(versions), MODEL__VERSION="3")
    result = app.test_cli_runner().invoke(args=["model", "promote", "2"])
    assert result.exit_code == 0
    assert "The settings pin version 3 (model.version)" in result.output


def test_models_that_the_settings_name_are_reached_by_their_names(
    versions: Path, make_app: Callable[..., Flask]
) -> None:
    app = make_app(MODELS__A="models/campaign-response", MODELS__B=str(versions))
    runner = app.test_cli_runner()
    first = runner.invoke(args=["model", "list"])
    assert len(first.stdout.splitlines()) == 2
    assert first.stderr == "Model a. For another, give --model: b.\n"
    second = runner.invoke(args=["model", "list", "--model", "b"])
    assert (len(second.stdout.splitlines()), second.stderr) == (4, "")


def test_a_version_that_the_service_could_not_run_is_not_promoted(
    versions: Path, make_app: Callable[..., Flask]
) -> None:
    def without_onnx(manifest: dict[str, Any]) -> None:
        del manifest["files"]["model.onnx"]

    edit_manifest(versions / "2", without_onnx)
    app = make_app(MODEL__PATH=str(versions), MODEL__RUNTIME="onnx")
    result = app.test_cli_runner().invoke(args=["model", "promote", "2"])
    assert result.exit_code == 1
    assert "model.runtime is 'onnx', but this model has no model.onnx" in result.output


def test_what_is_released_is_not_packed_over(
    model: Callable[..., Result], versions: Path, tmp_path: Path
) -> None:
    (tmp_path / "features.toml").write_text('classes = ["a", "b"]\n[[features]]\nname = "x"\n')
    (tmp_path / "samples.csv").write_text("x\n1\n")
    before = (versions / "1" / "manifest.json").read_bytes()
    result = model(
        *("pack", str(tmp_path / "model.pt2"), "--features", str(tmp_path / "features.toml")),
        *("--samples", str(tmp_path / "samples.csv"), "--out", str(versions / "1"), "--replace"),
    )
    assert result.exit_code == 1
    assert "Version 1 is released, so it is not replaced" in result.output
    assert (versions / "1" / "manifest.json").read_bytes() == before


def test_a_second_rollback_does_not_return_to_what_was_left(
    model: Callable[..., Result], versions: Path
) -> None:
    for version in ("2", "1", "2"):
        assert model("promote", version).exit_code == 0
    assert model("rollback").exit_code == 0
    assert read_release(versions) == Release("1")
    refused = model("rollback")
    assert refused.exit_code == 1
    assert read_release(versions) == Release("1")


def test_a_change_that_can_not_be_printed_was_made_all_the_same(versions: Path) -> None:
    write_release(versions, Release("1"))
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "wsgi", "model", "promote", "2"],
            cwd=ROOT,
            env={**without_coverage(), "LANTERN_MODEL__PATH": str(versions)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ran.returncode == 0
    assert "The change was made; it can't be printed" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert read_release(versions) == Release("2")


def test_a_directory_that_can_not_be_looked_into_hides_no_other(
    model: Callable[..., Result], versions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_file = Path.is_file

    def forbidden(path: Path) -> bool:
        if path.parent.name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return is_file(path)

    (versions / "lost+found").mkdir()
    monkeypatch.setattr(Path, "is_file", forbidden)
    assert model("promote", "2").exit_code == 0
    assert "lost+found" in model("list").output


def test_a_graph_of_any_tensors_is_packed_shown_compared_and_released(
    tmp_path: Path, make_app: Callable[..., Flask]
) -> None:
    np.savez(tmp_path / "example.npz", **EVERY_KIND)
    graph = every_kind(tmp_path / "any.onnx")
    model = tmp_path / "models" / "any"
    runner = make_app(MODEL__PATH=str(model)).test_cli_runner()

    def run(*arguments: str, exit_code: int = 0) -> str:
        result = runner.invoke(args=["model", *arguments])
        assert result.exit_code == exit_code, result.output
        return result.output

    def pack(version: str, *options: str, exit_code: int = 0) -> str:
        example = ["--samples", str(tmp_path / "example.npz")]
        out = ["--out", str(model / version)]
        return run("pack", str(graph), *example, *out, *options, exit_code=exit_code)

    said = pack("1", exit_code=1)
    assert "give --task classification|" in said
    said = pack("1", "--task", "tensors", "--outputs", "logits", exit_code=1)
    assert "--outputs logits has no meaning for the task tensors" in said
    assert "6 inputs, 7 outputs" in pack("1", "--task", "tensors")
    pack("2", "--task", "tensors")
    shown = run("show", "2")
    assert re.search(r"numbers +INT64 +\[-1, 2\]", shown)
    assert re.search(r"places +INT64 +\[2, -1\] +tensor +equal", shown)
    assert json.loads(run("show", "2", "--json"))["format"] == 2
    assert "6 inputs, 7 outputs" in run("verify", "2")
    differences = run("diff", "1", "2")
    assert "no breaking changes" in differences
    assert re.search(r"same answer, within the tolerance +100.0%", differences)
    run("promote", "1")
    assert "can't be a shadow" in run("shadow", "2", exit_code=1)
    run("canary", "2", "--traffic", "0.5")
    run("promote", "2")
    assert read_release(model).stable == "2"
