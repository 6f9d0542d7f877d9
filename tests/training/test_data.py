"""Reading the CSV: what is accepted, and the sentence for what is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from training.data import FEATURE_NAMES, DataError, group_identical, read_data

Write = Callable[[pd.DataFrame], Path]


def test_features_come_in_their_own_order_whatever_the_file_has(
    customers: pd.DataFrame, write: Write
) -> None:
    """Columns may stand in any order, and the identifier may be absent."""
    data = read_data(write(customers.drop(columns="customer_id")[sorted(customers.columns[1:])]))
    assert data.features.dtype == np.float32
    assert data.features.shape == (240, 6)
    expected = customers[list(FEATURE_NAMES)].to_numpy(np.float32)
    np.testing.assert_array_equal(data.features, expected)
    np.testing.assert_array_equal(data.labels, customers["responded"])


def test_blanks_become_nan(customers_csv: Path) -> None:
    """A blank cell is a missing value where the feature may be missing."""
    data = read_data(customers_csv)
    assert np.isnan(data.features).sum(axis=0).tolist() == [0, 3, 0, 0, 2, 0]


def test_identical_rows_share_a_group() -> None:
    """Rows are one group when all features are equal, blanks included, and only then."""
    rows = np.array([[1, np.nan], [1, 2], [1, np.nan], [0.0, 2], [-0.0, 2]], dtype=np.float32)
    groups = group_identical(rows).tolist()
    assert groups[0] == groups[2]
    assert groups[3] == groups[4]
    assert len(set(groups)) == 3


def test_wrong_columns_are_named(customers: pd.DataFrame, write: Write) -> None:
    """One sentence names what is missing and what is unexpected."""
    path = write(customers.rename(columns={"income": "salary", "age": "years"}))
    with pytest.raises(DataError) as error:
        read_data(path)
    assert str(error.value) == (
        "The columns are wrong (missing: 'age', 'income'; unexpected: 'years', 'salary')."
    )


def test_a_missing_label_is_named(customers: pd.DataFrame, write: Write) -> None:
    """Nothing can be learnt without the label."""
    with pytest.raises(DataError, match=r"missing: 'responded'"):
        read_data(write(customers.drop(columns="responded")))


@pytest.mark.parametrize(
    ("column", "cell", "sentence"),
    [
        ("income", "many", "Column 'income', row 3: 'many' is not a finite number."),
        ("income", "nan", "Column 'income', row 3: 'nan' is not a finite number."),
        ("income", "1e39", "Column 'income', row 3: '1e39' is not a finite number."),
        ("age", "", "Column 'age', row 3: '' is blank."),
        ("responded", "2", "Column 'responded', row 3: '2' is neither 0 nor 1."),
        ("responded", "", "Column 'responded', row 3: '' is blank."),
    ],
)
def test_a_wrong_cell_is_named_with_column_and_row(
    customers: pd.DataFrame, write: Write, column: str, cell: str, sentence: str
) -> None:
    """The first wrong cell is shown, with where it is; the header is not counted as a row."""
    table = customers.astype(str).replace("nan", "")
    table.loc[2, column] = cell
    with pytest.raises(DataError) as error:
        read_data(write(table))
    assert str(error.value) == sentence


def test_a_column_without_any_value_is_refused(customers: pd.DataFrame, write: Write) -> None:
    """Blanks only leave no median to put in their place."""
    with pytest.raises(DataError, match="'income' has no value in any row"):
        read_data(write(customers.assign(income=np.nan)))


def test_a_label_of_one_kind_is_refused(customers: pd.DataFrame, write: Write) -> None:
    """A classifier needs to see both classes."""
    with pytest.raises(DataError, match="'responded' is 1 in every row"):
        read_data(write(customers.assign(responded=1)))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\x00", "is not a CSV file in UTF-8"),
        (b"a,b\n1,2,3\n", "more cells than the header has columns"),
        (b'a,b\n"1,2\n3,4\n', "is not a CSV file"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    """Whatever the file holds, the answer is a sentence and not a traceback."""
    path = tmp_path / "broken.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_data(path)


def test_a_header_alone_and_no_file_at_all_are_refused(
    customers: pd.DataFrame, write: Write, tmp_path: Path
) -> None:
    """There must be rows to learn from."""
    with pytest.raises(DataError, match="no rows"):
        read_data(write(customers.head(0)))
    with pytest.raises(DataError, match="can't be read"):
        read_data(tmp_path / "nowhere.csv")
