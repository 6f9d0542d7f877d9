"""Samples from a CSV: columns by name, blanks as null, errors by line and column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.model.encoder import FeatureEncoder
from app.model.errors import BundleError
from app.model.features import Feature, in_one_matrix
from app.model.signature import FEATURES as MATRIX
from app.packing.samples import Samples, read_samples, with_ranges

FEATURES = in_one_matrix([Feature("age"), Feature("spend", nullable=True)])
ENCODER = FeatureEncoder(FEATURES)


def read(tmp_path: Path, content: str | bytes) -> Samples:
    path = tmp_path / "samples.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_samples(path, ENCODER)


@pytest.mark.parametrize(
    "content",
    [
        "age,spend\n40,1.5\n50,\n",
        "label,spend,age\nx,1.5,40\ny,,50\n",  # another order, another column
        "\ufeffage , spend\r\n 40, 1.5\r\n\r\n50, \r\n",  # as spreadsheets write it
        '"age","spend","note"\n"40","1.5","two\nlines"\n5e1,"",x\n',
    ],
)
def test_columns_are_found_by_name_and_blanks_are_null(tmp_path: Path, content: str) -> None:
    samples = read(tmp_path, content)
    np.testing.assert_array_equal(samples.rows[MATRIX], np.float32([[40, 1.5], [50, np.nan]]))
    assert samples.rows[MATRIX].dtype == np.float32


def test_a_spread_covers_the_file_from_first_to_last(tmp_path: Path) -> None:
    samples = read(tmp_path, "age,spend\n" + "".join(f"{i},0\n" for i in range(1000)))
    chosen = samples.spread()
    assert len(chosen.lines) == 20
    assert chosen.rows[MATRIX][0, 0] == 0
    assert chosen.rows[MATRIX][-1, 0] == 999
    assert chosen.lines[0] == 2
    assert np.diff(chosen.rows[MATRIX][:, 0]).min() > 40
    assert len(read(tmp_path, "age,spend\n1,2\n3,4\n").spread().lines) == 2


def test_ranges_and_examples_come_from_the_samples_where_they_are_not_given(tmp_path: Path) -> None:
    rows = read(tmp_path, "age,spend\n40,0.1\n50,\n61,0.3\n").rows
    assert with_ranges(ENCODER, rows) == in_one_matrix(
        [
            Feature("age", minimum=40, maximum=61, example=50),
            Feature("spend", minimum=0.1, maximum=0.3, nullable=True, example=0.2),
        ]
    )
    given = in_one_matrix([Feature("age", minimum=18, maximum=90, example=44), FEATURES[1]])
    assert with_ranges(FeatureEncoder(given), rows)[0] == given[0]
    blank = read(tmp_path, "age,spend\n40,\n").rows
    assert with_ranges(ENCODER, blank)[1] == FEATURES[1]
    high = in_one_matrix([Feature("age", minimum=99), FEATURES[1]])
    with pytest.raises(BundleError, match="'age': every sample is below the minimum"):
        with_ranges(FeatureEncoder(high), rows)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "the file is empty"),
        ("age,spend\n", "no row below the header"),
        ("age,spent\n1,2\n", "the column 'spend' is missing (is it 'spent'?)"),
        ("age\n1\n", "the column 'spend' is missing; the first line"),
        ("\ufeffage;spend\n1;2,5\n", "columns are separated by semicolons; save it with commas"),
        ("age\tspend\n1\t2\n", "columns are separated by tabs"),
        ("age,spend;\n1,2\n", "the column 'spend' is missing (is it 'spend;'?)"),
        ("age,spe\u0301nd\n1,2\n", "(is it 'spe\u0301nd' (which has U+0301 where"),
        ("age,age,spend\n1,1,1\n", "the column 'age' appears 2 times"),
        ("age,spend\n1,2\n3,many\n", "line 3, column 'spend': must be a number, not 'many'"),
        ("age,spend\n1_0,2\n", "line 2, column 'age': must be a number, not '1_0'"),
        ("age,spend\n1,nan\n", "line 2, column 'spend': must be finite"),
        ("age,spend\n1e39,1\n", "line 2, column 'age': must be finite as a 32-bit float"),
        ("age,spend\n,1\n", "line 2, column 'age': is blank; only a feature with nullable = true"),
        ("age,spend\n1,2\n1\n", "line 3 has 1 cells, but the header has 2"),
        ('age,spend,note\n1,2,"a\nb"\nx,1,\n', "line 4, column 'age'"),
        (b"age,spend\n\xff,1\n", "is not UTF-8"),
        ("age,spend\n" + "1" * 200_000 + ",1\n", "is not CSV: field larger than"),
    ],
)
def test_what_is_wrong_is_named_with_line_and_column(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    with pytest.raises(BundleError) as error:
        read(tmp_path, content)
    assert said in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "samples.csv"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="none.csv can't be read: No such file"):
        read_samples(tmp_path / "none.csv", ENCODER)
