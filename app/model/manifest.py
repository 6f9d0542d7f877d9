"""The manifest: what a bundle says about one version of a model.

`manifest_file` reads and writes it, `manifest_formats` says which forms it has in a file, and
`bundle` checks the files against it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from msgspec import Meta, Struct

from .code.declaration import HandlerSpec
from .errors import BundleError, listed
from .features import Feature, in_one_matrix
from .golden import Golden
from .signature import OutputSpec, Role, Signature, TensorSpec, matrix_spec, probabilities_spec
from .steps.declaration import Step

TaskName = Literal["classification", "multilabel", "regression", "embedding", "tensors"]
"""The purpose of a model, and so the meaning of its outputs; those of ``tensors`` are the
caller's."""

LONGEST_NAME = 256
"""The longest name of a feature or class: responses, logs and metrics repeat it."""

VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
"""The form of a version: it appears in responses, logs, metrics and names of directories."""
VERSION_FORM = "at most 64 letters, digits and . _ + -, the first of them a letter or digit"
Version = Annotated[
    str, Meta(pattern=rf"\A{VERSION.pattern}\Z", description=f"a string of {VERSION_FORM}")
]

_Sha256 = Annotated[
    str, Meta(pattern=r"\A[0-9a-f]{64}\Z", description="64 lower-case hexadecimal digits")
]
_Bytes = Annotated[int, Meta(ge=0, description="a number of bytes")]


class FileRecord(Struct, frozen=True):
    """A file of the bundle: its SHA-256 in lower-case hexadecimal and its size in bytes."""

    sha256: _Sha256
    size: _Bytes


class Tolerance(Struct, frozen=True, forbid_unknown_fields=True):
    """The distance that an output may have from the golden one: ``absolute`` + ``relative`` * its
    size.
    """

    relative: Annotated[float, Meta(ge=0, le=1)] = 0.0
    absolute: Annotated[float, Meta(ge=0)] = 0.0

    @property
    def of_sum(self) -> float:
        """The distance that a sum of probabilities may have from 1: those of 16 bits are further
        from it.
        """
        return max(_SUM_TOLERANCE, self.absolute)


_SUM_TOLERANCE = 1e-4


class Target(Struct, frozen=True, forbid_unknown_fields=True):
    """A number that a regression predicts, in ``unit``."""

    name: Annotated[str, Meta(min_length=1)]
    unit: str = ""
    description: str = ""


class Manifest(Struct, frozen=True):
    """Everything that a bundle says about one version of a model.

    ``inputs`` and ``outputs`` are the tensors of the network, and ``task`` says what its outputs
    mean: ``classes`` exclude each other, ``labels`` don't, ``targets`` are numbers. Where there are
    ``features``, they are the columns of the inputs; where there are ``steps``, they make the
    inputs of an image or a text. With ``batch`` the first dimension of every tensor is rows, each
    answered as if it were alone, so that those of several callers may run together. ``top`` is the
    number of most probable classes that an answer has beside it, unless the caller says another.

    A ``handler`` is code of the bundle, which takes whole requests and answers them. It may come
    with a network or, where it predicts by itself, without: then there are no tensors.

    ``preprocessing`` describes the steps inside the network for people; ``training`` has the
    training metrics. ``golden_file`` and ``reference`` are files of the bundle; ``golden`` holds
    the golden data where no file does (format 1), and is None for a bare checkpoint.
    """

    name: str
    version: str
    features: tuple[Feature, ...] = ()
    classes: tuple[str, ...] = ()
    description: str = ""
    created_at: str | None = None
    preprocessing: tuple[Mapping[str, Any], ...] = ()
    training: Mapping[str, Any] = {}
    golden: Golden | None = None
    files: Mapping[str, FileRecord] = {}
    task: TaskName = "classification"
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    labels: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()
    tolerances: Mapping[str, Tolerance] = {}
    batch: bool = False
    golden_file: str = ""
    reference: str = ""
    steps: tuple[Step, ...] = ()
    top: int = 0
    handler: HandlerSpec | None = None

    @classmethod
    def of_classifier(
        cls,
        name: str,
        version: str,
        features: Sequence[Feature],
        classes: Sequence[str],
        **more: Any,
    ) -> Self:
        """Return the manifest of a network that takes one float32 matrix with the ``features`` as
        its columns, and returns the probabilities of the ``classes``.
        """
        probabilities = probabilities_spec(len(classes))
        return cls(
            name,
            version,
            in_one_matrix(features),
            tuple(classes),
            inputs=(matrix_spec(len(features)),),
            outputs=(probabilities,),
            tolerances={probabilities.name: PROBABILITY_TOLERANCE},
            batch=True,
            **more,
        )

    @property
    def takes_samples(self) -> bool:
        """True if callers send what becomes the inputs, and not only the tensors themselves."""
        return bool(self.features or self.steps)

    @property
    def has_network(self) -> bool:
        """True if there is a network; a handler may predict without one."""
        return bool(self.outputs)

    @property
    def signature(self) -> Signature:
        """The tensors of the network."""
        return Signature(self.inputs, self.outputs)

    def output(self, *roles: Role) -> OutputSpec | None:
        """Return the first output of one of ``roles``, or None."""
        return next((spec for spec in self.outputs if spec.role in roles), None)

    def tolerance(self, output: str) -> Tolerance:
        """Return how far an output may lie from the golden one; where nothing is said, nowhere."""
        return self.tolerances.get(output, EXACT)


PROBABILITY_TOLERANCE = Tolerance(absolute=1e-5)
"""The distance that probabilities of our own network may have from those that were packed."""
EXACT = Tolerance()


def check_names(place: str, names: Sequence[str]) -> None:
    """Raise `BundleError` for names of features, classes or tensors that are too long, or not
    unique.
    """
    for index, name in enumerate(names):
        if len(name) > LONGEST_NAME:
            raise BundleError(
                f"{place}[{index}] is a name of {len(name):,} characters, which exceeds the limit "
                f"of {LONGEST_NAME}: responses repeat it."
            )
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise BundleError(f"{place} must be unique; repeated: {listed(repeated)}.")
