"""What is known of a model before its graph is made: how to run it, and what its outputs are."""

from __future__ import annotations

from dataclasses import dataclass

from ..model.manifest import TaskName
from .checks import Run
from .material import Material
from .roles import Roles
from .source import GraphSource


@dataclass(frozen=True, slots=True)
class Plan:
    """A model on its way into a bundle.

    ``original`` runs it on any number of rows, whatever it was exported for; ``fixed_rows`` is the
    one number of rows that its graph declares, or None.
    """

    source: GraphSource
    task: TaskName
    roles: Roles
    material: Material
    original: Run
    fixed_rows: int | None
