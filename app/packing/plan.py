"""The plan of a bundle, before its graph is made: how to run a model, and what its outputs are."""

from __future__ import annotations

from dataclasses import dataclass

from ..model.manifest import TaskName
from ..model.signature import Tensors
from .checks import Run
from .material import Material
from .roles import Roles
from .source import GraphSource


@dataclass(frozen=True, slots=True)
class Plan:
    """A model on its way into a bundle.

    ``original`` runs it on any number of rows, whatever it was exported for; ``answered`` is what
    it answers to the samples that are tried. ``fixed_rows`` is the one number of rows that its
    graph declares, or None.
    """

    source: GraphSource
    task: TaskName
    roles: Roles
    material: Material
    original: Run
    answered: Tensors
    fixed_rows: int | None
