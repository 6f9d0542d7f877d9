"""The search for the dearest body finds one, of whatever cost it is told."""

from __future__ import annotations

import logging

import orjson
import pytest

from trials.fuzz.costs import (
    MAX_TIMES,
    SEARCHED_SIZE,
    SHAPES,
    VALID,
    Cost,
    Meter,
    Shape,
    faults,
    search,
    table,
)


@pytest.mark.parametrize("shape", [VALID, *SHAPES], ids=lambda shape: shape.name)
def test_a_body_is_as_large_as_it_should_be_or_as_it_may_be(shape: Shape) -> None:
    size = len(shape.body(300_000))
    assert size <= 300_000
    wanted = 300_000 - 30_000  # the largest unit is 17 kB
    assert size > wanted or len(shape.body(900_000)) == size or shape.most_units < 100_000


def test_numbers_of_units_are_their_own() -> None:
    body = Shape("a", "/predict", b"{", b'"%x":0,"b%x":1,', b"}").body(10_000)
    assert len(orjson.loads(body)) == body.count(b":") > 400


def test_the_search_goes_where_it_gets_dearer() -> None:
    """Told that closing brackets in a unit cost, it comes upon ever deeper ones."""

    def cost(shape: Shape) -> float:
        return float(shape.unit.count(b"]"))

    found = search(cost, examples=400, seed=1)
    assert [value for value, _ in found] == sorted((value for value, _ in found), reverse=True)
    known = max(map(cost, SHAPES))
    assert found[0][0] > known
    assert search(cost, examples=400, seed=1) == found


def test_the_dearest_stand_first_and_what_is_too_dear_is_a_fault() -> None:
    valid = 1e-8
    costs = [
        (Cost(Shape("cheap", "/predict", b"", b" ", b""), 8_000_000, 400, 0.01), valid),
        (Cost(Shape("dear", "/predict", b"", b" ", b""), 8_000_000, 422, 0.8), valid),
        (Cost(Shape("small", "/predict", b"", b" ", b""), SEARCHED_SIZE // 3, 422, 0.8), valid),
        (Cost(Shape("wrong", "/predict", b"", b" ", b""), 8_000_000, 500, 0.01), valid),
    ]
    rows = [line.split(" | ")[0] for line in table(costs).splitlines()[2:]]
    assert rows == ["| small", "| dear", "| cheap", "| wrong"]
    dear, wrong = faults(costs)
    assert dear.startswith("dear costs 10.0 times")
    assert f"{MAX_TIMES:g} are allowed" in dear
    assert wrong == "wrong is answered 500"


def test_a_meter_asks_the_application() -> None:
    logger = logging.getLogger("lantern")
    level = logger.level
    try:
        meter = Meter()
        assert meter.cost_of_valid(1) > 0
        cost = meter.cost(Shape("a", "/predict", b"[", b"[],", b"]"), 1000)
    finally:
        logger.setLevel(level)
    assert cost.status == 422
    assert 990 < cost.size <= 1000
    assert cost.per_byte > 0
