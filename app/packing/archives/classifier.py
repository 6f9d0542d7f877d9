"""TorchServe's own classifiers as bundles: the names of the classes, and the softmax that those
handlers take of whatever a network answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ...model.errors import BundleError, listed, shown
from ...model.manifest import LONGEST_NAME
from ...model.signature import Array, Tensors
from ..conversion import make_bundle_of_source
from ..description import ModelDescription
from ..graphs.forms import editing, softmax
from ..source import GraphSource
from ..statement import StatedRole, Statement
from .container import Unpacked
from .torchserve import CLASSES_FILE, TorchServeModel

_ONE = 1e-4
"""The distance that a sum of probabilities may have from 1."""


@dataclass(frozen=True, slots=True)
class ClassifierArchive:
    """An archive that uses TorchServe's classifier ``handler``, unpacked from ``path``."""

    handler: str
    model: TorchServeModel
    unpacked: Unpacked
    path: Path

    def pack(
        self,
        source: GraphSource,
        example: Array,
        description: ModelDescription,
        out: Path,
        samples: Path | None,
    ) -> list[str]:
        """Write the bundle ``out`` of the network ``source``; ``example`` is a row of its input.

        Returns what was assumed and measured, a sentence each. Raises `BundleError`.
        """
        names, notes = _classes(self.model, self.unpacked, _width(source, self.handler))
        role: StatedRole = "logits"
        if _are_probabilities(source, example):
            source, role = _with_softmax(source), "probabilities"
            notes.append(
                f"The network answers probabilities, and {self.handler} takes the softmax of them "
                "all the same: the bundle answers what TorchServe answered."
            )
        description = replace(
            description,
            description=self.model.described(self.path),
            top=min(description.top, len(names)),
        )
        statement = Statement("classification", role, names=names, allow_code=True)
        source = replace(source, path=self.path)
        return [*notes, *make_bundle_of_source(source, out, description, statement, samples)]


def _width(source: GraphSource, handler: str) -> int:
    """Return the number of classes that a network tells apart. Raises `BundleError`."""
    specs = [output.spec for output in source.outputs]
    shape = specs[0].shape
    if len(specs) == 1 and specs[0].datatype == "FP32" and len(shape) == 2 and shape[1] > 1:
        return shape[1]
    found = listed(f"{spec.datatype} of {list(spec.shape)}" for spec in specs)
    raise BundleError(
        f"{source.path} answers {found} (-1 is any number), and {handler} takes FP32 of "
        "[N, classes], with two classes or more."
    )


def _are_probabilities(source: GraphSource, example: Array) -> bool:
    """Return True if a network itself ends in what a softmax returns."""
    (answer,) = source.ask({source.inputs[0].name: example}).values()
    return bool(np.all(answer >= 0) and np.all(np.abs(answer.sum(axis=1) - 1) < _ONE))


def _with_softmax(source: GraphSource) -> GraphSource:
    """Return a network and the softmax of what it answers."""
    (output,) = source.outputs
    name = output.spec.name
    editor = editing(source)
    editor.set_outputs([(softmax(editor, name), output.spec)])

    def ask(tensors: Tensors) -> Tensors:
        answer = torch.from_numpy(np.array(source.ask(tensors)[name]))
        return {name: torch.softmax(answer, dim=1).numpy()}

    return replace(source, graph=editor.model, ask=ask)


def _classes(
    model: TorchServeModel, unpacked: Unpacked, width: int
) -> tuple[tuple[str, ...], list[str]]:
    """Return the names of the classes, each by another, and notes. Raises `BundleError`."""
    place = unpacked.directory / CLASSES_FILE
    if CLASSES_FILE not in unpacked.files:
        names = tuple(map(str, range(width)))
        return names, [f"There is no {CLASSES_FILE}: the classes are their indices, as there."]
    if not model.names:
        raise BundleError(f"{place} doesn't name classes from 0 on.")
    if len(model.names) != width:
        raise BundleError(
            f"{place} names {len(model.names):,} classes, and the network has {width:,}."
        )
    wrong = next((i for i, n in enumerate(model.names) if not 1 <= len(n) <= LONGEST_NAME), None)
    if wrong is not None:
        raise BundleError(
            f"{place}: the name of {wrong} must have 1 to {LONGEST_NAME} characters, and has "
            f"{len(model.names[wrong]):,}."
        )
    names = _unique(model.names)
    notes = [f"The classes are {listed(names)}."]
    if changed := [new for new, old in zip(names, model.names, strict=True) if new != old]:
        notes.append(
            f"Names in {CLASSES_FILE} are repeated, of which TorchServe answers one; the later "
            f"ones are called {listed(map(shown, changed))}."
        )
    return names, notes


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``names`` with the index behind those that another class has, too."""
    taken, seen = set(names), set[str]()
    found: list[str] = []
    for index, name in enumerate(names):
        called = name
        if name in seen:
            called = f"{name[: LONGEST_NAME - 10]} ({index})"
            while called in taken:
                called += "*"
        taken.add(called)
        seen.add(name)
        found.append(called)
    return tuple(found)
