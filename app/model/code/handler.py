"""A loaded handler: the owner's steps around a network, or in its place.

Its calls may come from several threads. What a handler refuses is for its caller; whatever else it
raises is its owner's fault.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import BundleError, NonFiniteOutput, OutputsTooLarge
from ..manifest import Manifest
from ..signature import DTYPES, Tensors, row_count, select_rows
from .answers import HandlerAnswer, check_size, encode_answer
from .arrays import as_inputs, without_rows
from .bundle_access import HandlerBundle
from .declaration import HandlerSpec
from .errors import HandlerFailed, HandlerRefusal, failure
from .modules import OwnModules
from .request import HandlerRequest

log = logging.getLogger("lantern.handler")

VERBS = ("load", "preprocess", "predict", "postprocess")
_FOR_CALLERS = (HandlerRefusal, HandlerFailed, NonFiniteOutput, OutputsTooLarge, MemoryError)
"""The errors that are raised on purpose: by the handler, or by an interface of ours around it."""
Run = Callable[[Tensors], Tensors]
"""Runs the network of the bundle."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """The result of `preprocess` for a request: for the network, arrays with the first dimension
    that its inputs have. ``alone`` says that a row was added to them, which `postprocess` doesn't
    see.
    """

    made: Any
    alone: bool = False


class Handler:
    """The owner's steps of one bundle, loaded.

    ``steps`` is the object of the bundle's class, with any of the verbs `VERBS`. An answer has at
    most ``max_answer_values`` values; 0 is no limit.
    """

    def __init__(
        self, steps: Any, bundle: HandlerBundle, directory: Path, manifest: Manifest, limit: int = 0
    ) -> None:
        self.bundle = bundle
        self.counters = bundle.counters
        self.modules: OwnModules | None = None
        """Those of its code, which imports from them for as long as it lives."""
        self._manifest = manifest
        self._directory = str(directory)
        self._limit = limit
        self._verbs: dict[str, Any] = {verb: getattr(steps, verb, None) for verb in VERBS}

    @property
    def predicts(self) -> bool:
        """True if the handler predicts by itself, without a network."""
        return self._verbs["predict"] is not None

    def answer(self, requests: Sequence[HandlerRequest], run: Run) -> list[HandlerAnswer]:
        """Return the answer to each of the ``requests``, which go through the network together.

        Raises `HandlerRefusal`, `HandlerFailed`, what ``run`` raises, and what `encode_answer`
        raises; of several requests its ``index`` says which one. Either all are answered, or none,
        and together they have no more than an answer may have.
        """
        samples = self._each(requests, self._prepare)
        if self.predicts:
            outputs = self._each(samples, lambda sample: self._call("predict", sample.made))
        else:
            outputs = self._run(samples, run)
        pairs = [*zip(outputs, requests, strict=True)]
        size = 0

        def finish(pair: tuple[Any, HandlerRequest]) -> HandlerAnswer:
            nonlocal size
            answer = self._finish(*pair)
            size += len(answer.body)
            if len(pairs) > 1:
                check_size(size, self._limit)
            return answer

        return self._each(pairs, finish)

    def _each(self, values: Sequence[Any], act: Callable[[Any], Any]) -> list[Any]:
        done = []
        for index, value in enumerate(values):
            try:
                done.append(act(value))
            except (HandlerRefusal, HandlerFailed) as error:
                error.index = index if len(values) > 1 else None
                raise
            except NonFiniteOutput as error:
                raise NonFiniteOutput([index] if len(values) > 1 else None) from error
        return done

    def _prepare(self, request: HandlerRequest) -> _Sample:
        if self._verbs["preprocess"] is None:
            made = request if self.predicts else arrays_in(request, self._manifest)
        else:
            made = self._call("preprocess", request)
        if self.predicts:
            return _Sample(made)
        specs, in_rows = self._manifest.inputs, self._manifest.batch
        return _Sample(*self._try("preprocess", partial(as_inputs, in_rows=in_rows), made, specs))

    def _run(self, samples: Sequence[_Sample], run: Run) -> list[dict[str, Any]]:
        """Return the outputs for each sample; those whose arrays fit run together."""
        outputs: list[dict[str, Any]] = [{}] * len(samples)
        groups: dict[object, list[int]] = {}
        for index, sample in enumerate(samples):
            form = [(name, array.shape[1:]) for name, array in sample.made.items()]
            groups.setdefault(repr(form) if self._manifest.batch else index, []).append(index)
        for places in groups.values():
            made = [samples[index].made for index in places]
            if len(places) == 1:
                answers = [run(made[0])]
            else:
                together = {n: np.concatenate([each[n] for each in made]) for n in made[0]}
                answers = _split(run(together), [row_count(each) for each in made])
            for index, answer in zip(places, answers, strict=True):
                outputs[index] = without_rows(answer, alone=samples[index].alone)
        return outputs

    def _finish(self, outputs: Any, request: HandlerRequest) -> HandlerAnswer:
        if self._verbs["postprocess"] is not None:
            outputs = self._call("postprocess", outputs, request)
        if isinstance(outputs, HandlerAnswer):  # of an interface of ours
            return outputs
        answer: HandlerAnswer = self._try("reading its answer", encode_answer, outputs, self._limit)
        return answer

    def _call(self, verb: str, *arguments: Any) -> Any:
        """Call one of the verbs. Raises as `_try` does."""
        return self._try(verb, self._verbs[verb], *arguments)

    def _try(self, what: str, act: Callable[..., Any], *arguments: Any) -> Any:
        """Call ``act``, which runs the owner's code: objects that it returns have some, too.

        Raises what is raised on purpose, and `HandlerFailed` for all else.
        """
        try:
            return act(*arguments)
        except _FOR_CALLERS:
            raise
        except BaseException as error:  # also SystemExit: others use the worker
            raise HandlerFailed(failure(what, error, self._directory)) from error


def load_handler(bundle: Bundle, name: str, limit: int = 0, *, threads: int = 1) -> Handler | None:
    """Execute and load the handler of a bundle, if it has one; ``name`` is that of the model.

    One that uses torch may use ``threads`` of it: a worker is one of several on its machine.
    It is executed from bytes that are compared with the manifest, not from a file that may have
    changed since. The caller has checked that it is allowed. Raises `BundleError`.
    """
    manifest, directory = bundle.manifest, bundle.directory
    if manifest.handler is None or directory is None:
        return None
    access = HandlerBundle(directory, manifest, name)
    place = directory / manifest.handler.file
    try:
        steps, modules = _load(manifest.handler, access, directory, limit)
        handler = Handler(steps, access, directory, manifest, limit)
    except BundleError:
        raise
    except BaseException as error:
        log.error("handler not loaded", exc_info=True, extra={"model": name})
        said = failure("loading it", error, str(directory))
        raise BundleError(f"{place} can't be loaded: {said}.{_advice(error, manifest)}") from error
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
    handler.modules = modules
    if not manifest.has_network and not handler.predicts:
        raise BundleError(
            f"{place}: its class has no predict, and the bundle has no network that could; give it "
            "one of them."
        )
    return handler


def _load(
    spec: HandlerSpec, access: HandlerBundle, directory: Path, limit: int
) -> tuple[Any, OwnModules]:
    sources = {PurePath(n).stem: access.read(n) for n in spec.all_files if n.endswith(".py")}
    steps: Any = None
    if spec.interface == "torchserve":
        from .torchserve.adapter import TorchServeSteps
        from .torchserve.modules import provided_modules

        modules = OwnModules(sources, directory, provided_modules())
        steps = TorchServeSteps(modules, spec, limit)
    else:
        modules = OwnModules(sources, directory)
    with modules.importable():
        if steps is None:
            steps = _make(modules, spec, directory)
        if hasattr(steps, "load"):
            steps.load(access)
    return steps, modules


def _make(modules: OwnModules, spec: HandlerSpec, directory: Path) -> Any:
    module = modules.load(PurePath(spec.file).stem)
    made = getattr(module, "Handler", None)
    if not isinstance(made, type):
        raise BundleError(f"{directory / spec.file} has no class Handler.")
    steps = made()
    if not any(callable(getattr(steps, verb, None)) for verb in VERBS[1:]):
        raise BundleError(
            f"{directory / spec.file}: the class Handler has none of the methods "
            f"{', '.join(VERBS[1:])}."
        )
    return steps


def _advice(error: BaseException, manifest: Manifest) -> str:
    handler = manifest.handler
    if isinstance(error, ImportError) and handler is not None and handler.requirements:
        return f" It needs: {', '.join(handler.requirements)}; install them."
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f" Install {error.name} where Lantern runs, or pack it with the handler."
    return ""


def arrays_in(request: HandlerRequest, manifest: Manifest) -> dict[str, Any]:
    """Return the arrays of a sample in the JSON of a request, for a handler that doesn't make them:
    a member for each input. What isn't that is refused with 422.
    """
    document = request.json()
    names = [spec.name for spec in manifest.inputs]
    if not isinstance(document, dict) or document.keys() != {*names}:
        raise HandlerRefusal(f"The body must be a JSON object with {', '.join(names)}.")
    arrays = {}
    for spec in manifest.inputs:
        try:
            arrays[spec.name] = np.array(document[spec.name], DTYPES[spec.datatype])
        except (ValueError, TypeError, OverflowError):
            raise HandlerRefusal(f"{spec.name} must be an array of {spec.datatype}.") from None
    try:
        as_inputs(arrays, manifest.inputs, in_rows=manifest.batch)
    except HandlerFailed as error:
        raise HandlerRefusal(f"{error.reason.replace('preprocess returned ', '')}.") from None
    return arrays


def _split(outputs: Tensors, counts: Sequence[int]) -> list[Tensors]:
    """Return the outputs of each of several samples, of so many rows, that ran together."""
    ends = np.cumsum(counts).tolist()
    return [
        select_rows(outputs, slice(end - count, end))
        for end, count in zip(ends, counts, strict=True)
    ]
