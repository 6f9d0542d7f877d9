"""The samples that the servers are sent suit the bundled model."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import payloads


def test_samples_lie_within_the_ranges_and_are_null_only_where_they_may_be() -> None:
    rows = payloads.samples(2_000)
    for feature in payloads.manifest()["features"]:
        values = [row[feature["name"]] for row in rows]
        given = [value for value in values if value is not None]
        assert (len(given) < len(values)) == feature["nullable"]
        assert feature["minimum"] <= min(given) <= max(given) <= feature["maximum"]


def test_samples_are_the_same_each_time_and_differ_by_seed() -> None:
    assert payloads.samples(50) == payloads.samples(50)
    assert payloads.samples(50) != payloads.samples(50, seed=1)


def test_a_batch_of_ten_thousand_fits_the_limit_of_a_body() -> None:
    assert len(payloads.batch(payloads.samples(10_000))) < 8 * 1024 * 1024


def test_bodies_are_written_a_line_each_none_twice(tmp_path: Path) -> None:
    lines = payloads.write_bodies(tmp_path / "bodies", 5_000).read_bytes().splitlines()
    assert len(set(lines)) == 5_000
    assert set(json.loads(lines[0])["features"]) == set(payloads.feature_names())
