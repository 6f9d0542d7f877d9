"""A handler of TorchServe as the steps of a bundle: it gets the ``context`` and rows that it knows.

It is one class, or a function ``handle(data, context)``. Such handlers are made for one request at
a time, so their calls wait for each other.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import PurePath
from threading import Lock
from types import ModuleType
from typing import Any
from uuid import uuid4

import orjson

from ..answers import BINARY, JSON, TEXT, HandlerAnswer, encode_answer, plain_value
from ..bundle_access import HandlerBundle
from ..declaration import HandlerSpec
from ..errors import HandlerRefusal
from ..modules import OwnModules
from ..request import HandlerRequest
from .context import Context, RequestProcessor
from .metrics import Metrics
from .util import PredictionException, get_yaml_config, list_classes_from_module

ARCHIVE_MANIFEST = "torchserve_manifest.json"
"""The file of a bundle with the archive's own manifest."""


class TorchServeSteps:
    """The steps of a bundle whose handler is one of TorchServe."""

    def __init__(self, modules: OwnModules, spec: HandlerSpec, limit: int) -> None:
        self._modules = modules
        self._spec = spec
        self._limit = limit
        self._lock = Lock()
        self._handle: Callable[[Any, Context], Any]
        self._context: Context

    def load(self, bundle: HandlerBundle) -> None:
        """Make the context, and initialize the handler with it."""
        manifest = orjson.loads(bundle.read(ARCHIVE_MANIFEST))
        directory = bundle.path(ARCHIVE_MANIFEST).parent
        config = manifest["model"].get("configFile")
        self._context = Context(
            manifest["model"].get("modelName") or bundle.name,
            str(directory),
            manifest,
            Metrics(bundle),
            get_yaml_config(str(directory / config)) if config else {},
            load_module=self._modules.load,
        )
        module = self._modules.load(PurePath(self._spec.file).stem)
        self._handle, initialize = _entry(module, manifest["model"].get("handler", ""))
        initialize(self._context)

    def predict(self, request: HandlerRequest) -> HandlerAnswer:
        """Return the handler's answer to one request."""
        processor = RequestProcessor(request.headers)
        with self._lock:
            context = self._context
            context.request_ids = {0: uuid4().hex}
            context.request_processor = [processor]
            try:
                answers = self._handle([_row(request)], context)
            except PredictionException as error:
                raise HandlerRefusal(error.message, error.error_code) from error
        if not isinstance(answers, list) or len(answers) != 1:
            raise TypeError(
                f"its answer must be a list of one for each row, not a {type(answers).__name__}"
                + (f" of {len(answers)}" if isinstance(answers, list) else "")
            )
        return self._answer(answers[0], processor)

    def _answer(self, value: Any, processor: RequestProcessor) -> HandlerAnswer:
        """Return what TorchServe sends for an element of the answers."""
        content_type, status = processor.get_response_header("content-type"), _status(processor)
        if _is_tensor(value):
            value, own = _saved(value), BINARY
        elif isinstance(value, bytes | bytearray):
            own = BINARY
        elif isinstance(value, str):
            own = TEXT
        else:
            plain = plain_value(value, self._limit)
            body = json.dumps(plain, indent=2, allow_nan=False).encode()
            return HandlerAnswer(body, content_type or JSON, status)
        content = value.encode("utf-8", "replace") if isinstance(value, str) else bytes(value)
        checked = encode_answer((content, content_type or own.partition(";")[0]), self._limit)
        return HandlerAnswer(checked.body, content_type or own, status)


def _entry(
    module: ModuleType, written: str
) -> tuple[Callable[[Any, Context], Any], Callable[[Context], Any]]:
    """Return what handles rows, and what initializes it: a function of the module, or the methods
    of its one class.
    """
    name = written.partition(":")[2] or "handle"
    if hasattr(module, name):
        function = getattr(module, name)
        return function, lambda context: function(None, context)
    classes = list_classes_from_module(module)
    if len(classes) != 1:
        names = ", ".join(each.__name__ for each in classes) or "none"
        raise ValueError(f"it must have a function {name}, or one class; it has {names}")
    handler: Any = classes[0]()
    return handler.handle, handler.initialize


def _row(request: HandlerRequest) -> dict[str, Any]:
    """Return a request as the row that a handler knows."""
    row: dict[str, Any] = {
        name: bytearray(value.encode()) for name, value in request.parameters.items()
    }
    row[request.field] = _content(request)
    return row


def _content(request: HandlerRequest) -> Any:
    """Return the body: JSON and text as such, if they are, and all else as bytes."""
    kind = request.content_type.partition(";")[0].strip().lower()
    content = bytearray(request.body)
    try:
        if kind == JSON:
            return json.loads(content.decode())
        return content.decode() if kind.startswith("text") else content
    except (ValueError, RecursionError):
        return content


def _status(processor: RequestProcessor) -> int:
    status = processor.get_response_status_code()
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"it set a status that is none: {str(status)[:40]}")
    return status


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _saved(tensor: Any) -> bytes:
    import torch

    content = io.BytesIO()
    torch.save(tensor, content)
    return content.getvalue()
