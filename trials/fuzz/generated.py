"""What libraries generate: documents by hypothesis, and schemathesis's tests of our description."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from benchmarks import payloads
from benchmarks.servers import ROOT
from tests.worker.wire import Answer, Connection
from trials.answers import fault_of
from trials.expected import BATCH, SINGLE, post
from trials.fuzz.conversations import Conversation, Findings

HOOKS = {"SCHEMATHESIS_HOOKS": "trials.fuzz.hooks", "PYTHONPATH": str(ROOT)}
"""Variables by which schemathesis finds our hooks."""
PATIENCE = "--request-timeout=60"
"""For schemathesis, which would otherwise take what needs ten seconds for a fault."""
_SCHEMATHESIS_SECONDS = 900
_SMALL_LISTS = 3


def by_hypothesis(port: int, seed: int, count: int, findings: Findings) -> None:
    """Send ``count`` documents that hypothesis makes; of those that go wrong the smallest is noted.

    Hypothesis shrinks what went wrong, as far as it goes wrong again.
    """
    kept = Connection(("127.0.0.1", port))
    wrong: list[tuple[Conversation, str]] = []

    def ask(data: bytes) -> Answer | None:
        nonlocal kept
        if select.select([kept.socket], [], [], 0)[0]:  # idle for too long, and closed meanwhile
            kept.close()
            kept = Connection(("127.0.0.1", port))
        answer = kept.send(data).answer()
        if answer is None or answer.all("connection") == ["close"]:
            kept.close()
            kept = Connection(("127.0.0.1", port))
        return answer

    @seeded(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
    )
    @given(requests())
    def answered_as_documented(made: tuple[str, Any]) -> None:
        path, document = made
        data = post(path, orjson.dumps(document))
        answer = ask(data)
        findings.conversations += 1
        if answer is not None:
            findings.statuses[answer.status] += 1
        fault = fault_of(answer, path) if answer else "closed without an answer"
        if fault:
            wrong.append((Conversation(f"hypothesis-{seed}", (data,), (path,)), fault))
            raise _WentWrong

    with contextlib.suppress(_WentWrong, Flaky):
        answered_as_documented()
    kept.close()
    if wrong:
        findings.fault(*min(wrong, key=lambda one: len(one[0].data)))


class _WentWrong(Exception):
    """An answer was not as documented."""


def requests() -> st.SearchStrategy[tuple[str, Any]]:
    """Return a path and a document: right, nearly right, or any JSON at all."""
    names = payloads.feature_names()
    numbers = st.one_of(
        st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.none()
    )
    anything = st.recursive(
        st.one_of(st.none(), st.booleans(), numbers, st.text(_CHARACTERS, max_size=20)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=_SMALL_LISTS),
            st.dictionaries(st.text(_CHARACTERS, max_size=10), inner, max_size=_SMALL_LISTS),
        ),
        max_leaves=8,
    )
    right = st.fixed_dictionaries(dict.fromkeys(names, numbers))
    nearly = st.dictionaries(
        st.one_of(st.sampled_from(names), st.text(_CHARACTERS, max_size=12)),
        st.one_of(numbers, anything),
        max_size=len(names) + 2,
    )
    sample = st.one_of(right, right, nearly, anything)
    return st.one_of(
        st.tuples(
            st.just(SINGLE), st.one_of(st.fixed_dictionaries({"features": sample}), anything)
        ),
        st.tuples(
            st.just(BATCH),
            st.one_of(
                st.fixed_dictionaries({"samples": st.lists(sample, max_size=_SMALL_LISTS)}),
                anything,
            ),
        ),
    )


_CHARACTERS = st.characters(exclude_categories=["Cs"])
"""All but lone surrogates, which JSON in UTF-8 can't hold."""


def by_schemathesis(url: str, seed: int, examples: int, directory: Path) -> str | None:
    """Run schemathesis with all of its checks and phases; give what it found, None if nothing."""
    ran = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{url}/openapi.json",
            "--checks=all",
            "--mode=all",
            PATIENCE,
            f"--max-examples={examples}",
            f"--seed={seed}",
        ],
        cwd=directory,
        env={**os.environ, **HOOKS},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=_SCHEMATHESIS_SECONDS,
    )
    # It may warn, as of a model that it didn't name: that speaks against nobody.
    if ran.returncode == 0 and re.search(r"\b([\d,]+) generated, \1 passed", ran.stdout):
        return None
    return f"schemathesis ended with {ran.returncode}:\n{ran.stdout[-6000:]}{ran.stderr[-2000:]}"
