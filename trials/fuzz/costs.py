"""The dearest body: a search for the JSON that takes a worker the most CPU for each of its bytes.

``python -m trials.fuzz.costs`` measures bodies of known shapes, and those that hypothesis makes of
the same pieces while it looks for dearer ones (``target``). What one may cost is told in times of a
valid batch of 10,000 rows, per byte. `Meter` calls the application as a worker does, in this
process: what is measured is the application's work, without the socket.
"""

from __future__ import annotations

import argparse
import gc
import io
import logging
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time
from typing import Any

import orjson
from hypothesis import HealthCheck, Phase, given, settings, target
from hypothesis import seed as seeded
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from benchmarks import payloads
from trials.expected import BATCH, INFER, SINGLE

MAX_TIMES = 5.0
"""How many times the CPU of a valid batch, per byte, any body may cost."""
SIZE = 8 << 20
"""The largest body that is accepted by default."""
SEARCHED_SIZE = 1_000_000
"""How large the bodies are among which is searched: small enough to try many, and large enough that
what every request costs doesn't count."""
EXAMPLES = 300
_NUMBER, _WIDTH = b"%x", b"000000"
_SAMPLE = payloads.golden_samples()[0]
ROW = orjson.dumps(_SAMPLE)
_MANY = [b'"%%x%d":0,' % number for number in range(1000)]
_NAME = next(iter(_SAMPLE)).encode()
_WRONG_ROW = ROW.replace(b":", b':"",' + b'"%b":' % _NAME, 1)
"""A row that is valid, because of a name that stands twice the last value counts."""


@dataclass(frozen=True)
class Shape:
    """A body: ``unit`` again and again between ``start`` and ``end``, as large as it should be.

    Where a unit has ``%x`` in it, each has a number of its own there.
    """

    name: str
    path: str
    start: bytes
    unit: bytes
    end: bytes
    most_units: int = sys.maxsize

    def body(self, size: int) -> bytes:
        """Make the body of ``size`` bytes, or less by a unit."""
        room = size - len(self.start) - len(self.end)
        pieces = self.unit.split(_NUMBER)
        units = min(room // len(_WIDTH.join(pieces)), self.most_units)
        if len(pieces) == 1:
            middle = self.unit * units
        else:
            middle = b"".join((b"%06x" % number).join(pieces) for number in range(units))
        return self.start + middle.removesuffix(b",") + self.end


@dataclass(frozen=True)
class Cost:
    """What a body took: seconds of CPU, and MiB at most meanwhile and afterwards."""

    shape: Shape
    size: int
    status: int
    seconds: float
    peak_mib: float = 0.0
    left_mib: float = 0.0

    @property
    def per_byte(self) -> float:
        return self.seconds / self.size


VALID = Shape("valid batch of 10,000", BATCH, b'{"samples":[', ROW + b",", b"]}", 10_000)


def _deep(opening: bytes, depth: int, middle: bytes, closing: bytes) -> bytes:
    return opening * depth + middle + closing * depth


def _tensor(shape: bytes) -> bytes:
    return b'{"inputs":[{"name":"features","datatype":"FP32","shape":%b,"data":[' % shape


_INPUT = b'{"name":"%x","shape":[],"datatype":"INT8","data":[1]},'
SHAPES = (
    Shape("unknown names", SINGLE, b'{"features":{', b'"%x":0,', b"}}"),
    Shape("as many as are looked at", SINGLE, b'{"features":{', b'"%x":0,', b"}}", 50_000),
    Shape("unknown members", SINGLE, b"{", b'"%x":0,', b"}"),
    Shape("members beside features", SINGLE, b'{"features":{},', b'"%x":[],', b"}", 40_000),
    Shape("1,000 deep", SINGLE, b'{"features":[', _deep(b"[", 1000, b"", b"]") + b",", b"]}"),
    Shape("900 deep", SINGLE, b'{"features":[', _deep(b"[", 900, b"", b"]") + b",", b"]}"),
    Shape("objects 900 deep", BATCH, b"[", _deep(b'{"":', 900, b"0", b"}") + b",", b"]"),
    Shape("one nest to the end", SINGLE, b'{"features":{"age":', b"[", b""),
    Shape("1e999 before arrays", SINGLE, b"[1e999,", b"[],", b"]"),
    Shape("1e999 before members", SINGLE, b'{"a":1e999,', b'"%x":0,', b"}"),
    Shape("1e999 for every value", BATCH, b'{"samples":[', b'{"%b":1e999},' % _NAME, b"]}"),
    Shape("one name again", SINGLE, b'{"features":{', b'"%b":1,' % _NAME, b"," + ROW[1:] + b"}"),
    Shape("rows named twice", BATCH, b'{"samples":[', _WRONG_ROW + b",", b"]}", 10_000),
    Shape("empty rows", BATCH, b'{"samples":[', b"{},", b"]}"),
    Shape("empty arrays as rows", BATCH, b'{"samples":[', b"[],", b"]}"),
    Shape("numbers as rows", BATCH, b'{"samples":[', b"1,", b"]}"),
    Shape("empty rows, then a number", BATCH, b'{"samples":[', b"{},", b",1]}"),
    Shape("too many rows", BATCH, b'{"samples":[', ROW + b",", b"]}"),
    Shape("rows with an unknown name", BATCH, b'{"samples":[', b'{"%x":1},', b"]}"),
    Shape(
        "rows of unknown names",
        *(BATCH, b'{"samples":[', b"{" + b"".join(_MANY) + b'"b":0},', b"]}"),
    ),
    Shape("the last of 10,000 wrong", BATCH, b'{"samples":[', ROW + b",", b",{}]}", 9_999),
    Shape("the last 1e999", BATCH, b'{"samples":[', ROW + b",", b',{"a":1e999}]}', 9_999),
    Shape("valid but for its last byte", BATCH, b'{"samples":[', ROW + b",", b"]]"),
    Shape("null for every value", BATCH, b'{"samples":[', b'{"%b":null},' % _NAME, b"]}"),
    Shape("a number of many digits", SINGLE, b'{"features":{"age":', b"9", b"}}"),
    Shape("a long fraction", SINGLE, b'{"features":{"age":0.', b"9", b"}}"),
    Shape("many long numbers", SINGLE, b'{"features":{"age":[', b"9" * 300 + b",", b"]}}"),
    Shape("a long name", SINGLE, b'{"features":{"', b"a", b'":1}}'),
    Shape("a long name in escapes", SINGLE, b'{"features":{"', b"\\ud83d\\ude00", b'":1}}'),
    Shape("a long string of commas", SINGLE, b'{"features":{"age":"', b", ", b'"}}'),
    Shape("strings", SINGLE, b'{"features":{"age":[', b'"\\n",', b"]}}"),
    Shape("invalid UTF-8 at the end", SINGLE, b'{"features":{"', "é".encode(), b'\xff":1}}'),
    Shape("half a surrogate at the end", SINGLE, b'{"features":{"', b"a", b'\\ud800":1}}'),
    Shape("wide characters", SINGLE, b'{"features":{"', "😀".encode(), b'":1}}'),
    Shape("accents", SINGLE, b'{"features":{', "\"a\u0301g\u0308e%x\":1,".encode(), b"}}", 50_000),
    Shape("blanks", SINGLE, b"", b" ", b""),
    Shape("too many numbers", INFER, _tensor(b"[2,6]"), b"1,", b"]}]}"),
    Shape("10,000 rows of null", INFER, _tensor(b"[10000,6]"), b"null,", b"]}]}", 60_000),
    Shape("10,000 rows of digits", INFER, _tensor(b"[10000,6]"), b"0.3000000001,", b"]}]}", 60_000),
    Shape("rows as strings", INFER, _tensor(b"[10000,6]"), b'"1",', b"]}]}", 60_000),
    Shape("arrays for numbers", INFER, _tensor(b"[2,6]"), b"[],", b"]}]}"),
    Shape("many dimensions", INFER, b'{"inputs":[{"name":"features","shape":[', b"1,", b"]}]}"),
    Shape("many inputs", INFER, b'{"inputs":[', _INPUT, b"]}"),
    Shape("one input again", INFER, b'{"inputs":[', _INPUT.replace(_NUMBER, b"age"), b"]}", 100),
    Shape("empty inputs", INFER, b'{"inputs":[', b"{},", b"]}"),
    Shape("many outputs", INFER, b'{"inputs":[],"outputs":[', b'{"name":"%x"},', b"]}"),
    Shape("unknown members of a request", INFER, b'{"inputs":[],', b'"%x":[{}],', b"}"),
    Shape("a byte order mark", BATCH, b'\xef\xbb\xbf{"samples":[', ROW + b",", b"]}"),
)  # fmt: skip


class Meter:
    """Measures what bodies cost the application with its default settings."""

    def __init__(self) -> None:
        from app import create_app
        from app.settings import load_settings
        from app.worker.malloc import keep_freed_memory

        keep_freed_memory()
        self._app = create_app(load_settings({}))
        logging.getLogger("lantern").setLevel(logging.CRITICAL)
        self._valid = VALID.body(SIZE)
        self.cost(VALID, SIZE)  # loads the model

    def cost(self, shape: Shape, size: int) -> Cost:
        """Measure a body of this shape and size."""
        return self.cost_of(shape, shape.body(size))

    def cost_of(self, shape: Shape, body: bytes) -> Cost:
        """Measure a body that is made already."""
        seconds, status = self._call(shape.path, body)
        return Cost(shape, len(body), status, seconds)

    def cost_of_valid(self, times: int = 5) -> float:
        """Measure a valid batch, in seconds for a byte: the least of some."""
        return min(self._call(BATCH, self._valid)[0] for _ in range(times)) / len(self._valid)

    def _call(self, path: str, body: bytes) -> tuple[float, int]:
        environ = EnvironBuilder(path, method="POST").get_environ()
        environ["wsgi.input"] = io.BytesIO(body)
        environ |= {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body))}
        statuses: list[str] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            statuses.append(status)

        began = process_time()
        answer = self._app(environ, start_response)
        b"".join(answer)
        getattr(answer, "close", lambda: None)()
        return process_time() - began, int(statuses[-1][:3])


def measured(shape: Shape, size: int = SIZE) -> tuple[Cost, float]:
    """Measure a shape in a process that has done nothing else, and a valid batch beside it."""
    meter = Meter()
    valid = meter.cost_of_valid()
    meter.cost(replace(shape, most_units=min(10, shape.most_units)), size)  # imports what it needs
    body = shape.body(size)
    gc.collect()
    before = _resident("VmRSS")
    # The peak starts anew (proc(5)).
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    cost = meter.cost_of(shape, body)
    peak, after = _resident("VmHWM"), _resident("VmRSS")
    return replace(cost, peak_mib=peak - before, left_mib=after - before), valid


def _resident(which: str) -> float:
    """Return a size of this process in MiB, as proc(5) has it."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(text.split(f"{which}:")[1].split()[0]) / 1024


def in_fresh_processes(shapes: tuple[Shape, ...], size: int = SIZE) -> list[tuple[Cost, float]]:
    """Measure each shape in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        return list(pool.map(measured, shapes, [size] * len(shapes)))


_FRAMES = (
    *((b'{"features":{', b"}}"), (b'{"features":[', b"]}"), (b"{", b"}"), (b"[", b"]")),
    *((b'{"samples":[', b"]}"), (b'{"samples":{', b"}}"), (b'{"samples":[{', b"}]}")),
    *((b'{"features":{"age":', b"}}"), (b'{"features":{"age":"', b'"}}'), (b'{"', b'":1}')),
    *((b'{"samples":[{"age":[', b"]}]}"),),
)
_ATOMS = (
    *(b"0", b"1e999", b"-1.5e-7", b"9" * 400, b"null", b'""', b'"%x"', b"[]", b"{}", b"\xff"),
    *(ROW, _WRONG_ROW, b'{"%x":1}', b'{"age":""}', b'"\\ud83d"', b'"\xc3\xa9"', b"[[[{}]]]"),
)


def shapes() -> st.SearchStrategy[Shape]:
    """Make shapes: those that are known, and any of their pieces put together."""
    frames = st.sampled_from(_FRAMES)
    names = st.sampled_from([b'"%x":', b'"a":', b'"%b":' % _NAME, b'"\\u00e9%x":', b""])
    atoms = st.sampled_from(_ATOMS)
    deep = st.builds(
        lambda depth, atom: _deep(b"[", depth, atom, b"]"), st.integers(1, 1100), atoms
    )
    nested = st.builds(
        lambda depth, atom: _deep(b'{"":', depth, atom, b"}"), st.integers(1, 1100), atoms
    )
    unit = st.builds(
        lambda name, values: b"".join(name + value + b"," for value in values),
        names,
        st.lists(st.one_of(atoms, atoms, deep, nested), min_size=1, max_size=3),
    )
    before = st.sampled_from([b"", b"", b'"a":1e999,', b"1e999,", ROW + b",", ROW[1:-1] + b","])
    after = st.sampled_from(
        [b"", b"", b"\xff", b"]", b',"":"\\ud800"', b",1e999", b"," + ROW, b",{}"]
    )
    most = st.sampled_from([sys.maxsize, sys.maxsize, 100, 9_999, 50_000])
    made = st.builds(
        lambda path, frame, start, unit, end, most: Shape(
            "found", path, frame[0] + start, unit, end + frame[1], most
        ),
        st.sampled_from([SINGLE, BATCH]),
        frames,
        before,
        unit,
        after,
        most,
    )
    return st.one_of(made, made, st.sampled_from(SHAPES))


def search(
    cost: Callable[[Shape], float], examples: int = EXAMPLES, seed: int = 0, keep: int = 5
) -> list[tuple[float, Shape]]:
    """Look for the shapes that ``cost`` the most; return the dearest, the first of all first."""
    found: dict[Shape, float] = {}

    @seeded(seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.target],
    )
    @given(shapes())
    def look(shape: Shape) -> None:
        if shape not in found:
            found[shape] = cost(shape)
        target(found[shape])

    look()
    dearest = sorted(found, key=found.__getitem__, reverse=True)
    return [(found[shape], shape) for shape in dearest[:keep]]


def dearest(examples: int = EXAMPLES, seed: int = 0) -> list[Shape]:
    """Look for the dearest bodies that are nearly as large as they may be when they are tried."""
    meter = Meter()
    valid = meter.cost_of_valid()

    def times(shape: Shape) -> float:
        cost = meter.cost(shape, SEARCHED_SIZE)
        # One that is small, whatever it should be, costs what any request costs.
        return cost.per_byte / valid if cost.size > SEARCHED_SIZE / 2 else 0.0

    return [
        replace(shape, name=f"found {number}: {shape.start[:30]!r} {shape.unit[:30]!r}")
        for number, (_, shape) in enumerate(search(times, examples, seed), 1)
    ]


def table(costs: list[tuple[Cost, float]]) -> str:
    """Write what each body cost beside a valid batch, for people; the dearest first."""
    lines = [
        "| body | bytes | answer | CPU | ns a byte | times a valid batch | peak | left |",
        "| --- |" + " ---: |" * 7,
    ]
    for cost, valid in sorted(costs, key=lambda one: one[0].per_byte / one[1], reverse=True):
        lines.append(
            f"| {cost.shape.name} | {cost.size:,} | {cost.status} | {cost.seconds * 1e3:,.1f} ms "
            f"| {cost.per_byte * 1e9:.1f} | {cost.per_byte / valid:.1f} "
            f"| {cost.peak_mib:+.0f} MiB | {cost.left_mib:+.0f} MiB |"
        )
    return "\n".join(lines)


def faults(costs: list[tuple[Cost, float]]) -> list[str]:
    """Return what is wrong with costs: bodies that take too long, or are answered 500."""
    wrong = [
        f"{cost.shape.name} costs {cost.per_byte / valid:.1f} times what a valid batch does, "
        f"per byte; {MAX_TIMES:g} are allowed"
        for cost, valid in costs
        if cost.size > SEARCHED_SIZE / 2 and cost.per_byte / valid > MAX_TIMES
    ]
    return wrong + [f"{cost.shape.name} is answered 500" for cost, _ in costs if cost.status == 500]


def main() -> int:
    """Measure and search, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m trials.fuzz.costs", description=__doc__)
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="how many are searched")
    parser.add_argument("--seed", type=int, default=0, help="of the search")
    given_ = parser.parse_args()
    costs = in_fresh_processes((VALID, *SHAPES, *dearest(given_.examples, given_.seed)))
    print(table(costs))
    wrong = faults(costs)
    for fault in wrong:
        print(f"FAULT: {fault}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
