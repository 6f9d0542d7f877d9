"""The features file: what people may write, and what they are told when they wrote it wrong."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from app.model.errors import BundleError
from app.model.features import Feature
from app.packing import description as descriptions
from app.packing.description import read_description

TWO = """
classes = ["stays", "leaves"]

[[features]]
name = "age"

[[features]]
name = "spend"
"""


def test_the_example_in_the_documentation_is_a_features_file(tmp_path: Path) -> None:
    assert descriptions.__doc__
    example = textwrap.dedent(descriptions.__doc__.partition("::\n")[2].partition("\nIt knows")[0])
    (tmp_path / "features.toml").write_text(example)
    description = read_description(tmp_path / "features.toml")
    assert description.features == (
        Feature("age", "Age of the customer.", "years", 18, 90, example=44),
        Feature("spend", nullable=True),
        Feature(
            "plan",
            kind="category",
            tensor="categories",
            column=0,
            categories=("basic", "plus"),
        ),
    )
    assert description.stated[1] == {"name", "nullable", "median"}
    assert [target.unit for target in description.targets] == ["euros"]
    assert description.classes == ("stays", "leaves")
    assert description.medians == {"spend": 12.5}
    assert description.training == {"roc_auc": 0.93}


def test_names_are_all_that_is_needed(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text(TWO)
    assert read_description(tmp_path / "f.toml").features == (Feature("age"), Feature("spend"))


def test_dates_among_the_figures_become_text(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text(f"{TWO}[training]\nday = 2026-01-02\nsplit = [0.8, 0.2]")
    training = read_description(tmp_path / "f.toml").training
    assert training == {"day": "2026-01-02", "split": [0.8, 0.2]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "features is missing: write a [[features]] table"),
        ("features = 3", "features is missing"),
        ("features = [3]", "features must be tables"),
        ('classes = ["a"]\n[[features]]\nname = "x"', "classes must be an array of two or more"),
        (TWO.replace("leaves", "stays"), "classes must be unique; 'stays' appears twice"),
        (TWO.replace("spend", "age"), "features must be unique; 'age' appears twice"),
        (TWO.replace('name = "age"', ""), "feature 1: name is missing or empty"),
        (TWO.replace('"age"', '" age"'), "feature 1: name ' age' begins or ends with a space"),
        ("clases = 1\n" + TWO, "'clases' is not a key here; did you mean 'classes'?"),
        (TWO + "minimun = 1", "feature 2 ('spend'): 'minimun' is not a key here; did you mean"),
        (TWO + "size = 1", "'size' is not a key here; the keys are name, description, unit"),
        (TWO + "minimum = nan", "feature 2 ('spend'): minimum must be a number that is finite"),
        (TWO + "minimum = true", "minimum must be a number that is finite"),
        (
            TWO + "example = 1e39",
            "example must be a number that is finite as a 32-bit float, a string, or true or false",
        ),
        (TWO + "minimum = 2\nmaximum = 1", "minimum 2 is above maximum 1"),
        (TWO + 'nullable = "yes"', "nullable must be true or false"),
        (TWO + "median = 1\nnullable = true\nminimum = " + "1" * 400, "minimum must be a number"),
        (TWO.replace('name = "age"', 'nmae = "age"'), "feature 1: 'nmae' is not a key here; did"),
        (TWO.replace("leaves", ""), "classes[1] must be a string that is not empty"),
        ("feature = 1", "'feature' is not a key here; did you mean 'features'?"),
        (TWO + "unit = 3", "feature 2 ('spend'): unit must be a string"),
        (TWO + "median = 3", "median replaces null, so it requires nullable = true"),
        ("training = 3\n" + TWO, "training must be a table"),
        (TWO + "[training]\nauc = inf", "training.auc must be a finite number"),
        ("x = ", "is not TOML"),
        ("x = " + "[" * 5000, "is not TOML"),
        ("x = " + "1" * 5000, "is not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_the_file_and_the_key(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "features.toml"
    path.write_text(text)
    with pytest.raises(BundleError) as error:
        read_description(path)
    assert said in str(error.value)
    assert str(error.value).startswith(str(path))


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="can't be read: No such file"):
        read_description(tmp_path / "none.toml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(BundleError, match="not UTF-8"):
        read_description(tmp_path / "binary")
