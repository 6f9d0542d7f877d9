"""Customers that never were: random, with the columns, blanks and repeats of real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def customers() -> pd.DataFrame:
    """Return 240 customers who respond when they enrolled early and bought lately, mostly."""
    random = np.random.default_rng(7)
    n = 200
    tenure, recency = random.integers(0, 700, n), random.integers(0, 100, n)
    inclination = tenure / 200 - recency / 25 - 0.5 + random.normal(0, 1, n)
    table = pd.DataFrame(
        {
            "customer_id": np.arange(n),
            "age": random.integers(18, 80, n),
            "income": random.lognormal(10.7, 0.5, n).round(),
            "tenure_days": tenure,
            "num_purchases": random.integers(1, 30, n),
            "avg_transaction_value": random.lognormal(3.4, 0.7, n).round(2),
            "days_since_last_purchase": recency,
            "responded": (inclination > 0.5).astype(int),
        }
    )
    table.loc[3, "age"] = 114
    table.loc[[5, 60], "income"] = np.nan
    table.loc[9, "avg_transaction_value"] = np.nan
    return pd.concat([table, table.head(40)], ignore_index=True)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[pd.DataFrame], Path]:
    """Return a function that writes a table as a CSV and tells where."""

    def write_csv(table: pd.DataFrame) -> Path:
        path = tmp_path / "customers.csv"
        table.to_csv(path, index=False)
        return path

    return write_csv


@pytest.fixture
def customers_csv(customers: pd.DataFrame, write: Callable[[pd.DataFrame], Path]) -> Path:
    """Return a CSV of the customers."""
    return write(customers)
