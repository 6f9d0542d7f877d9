"""The document of an exported program: check that it has only tensor operators.

Torch writes names into code that it executes, gives expressions to sympy, and accepts any function
below ``torch`` as an operator; so each value of the document is checked against what a network
needs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ...model.errors import BundleError, first_line, shown
from . import operators
from .calling import Calling, flatten_calls
from .expressions import check_expression

_LARGEST_JSON = 64 << 20
_LONGEST_INTEGER = len(str(-(2**63)))
_TENSOR_OPERATOR = re.compile(r"torch\.ops\.(aten\.[A-Za-z0-9_]+\.[A-Za-z0-9_]+)")
_ALLOWED = operators.TENSOR | operators.VIEW | operators.CHECK | operators.IN_PLACE
_SIZE_OPERATORS = frozenset(
    f"_operator.{name}"
    for name in ("add", "sub", "mul", "floordiv", "mod", "neg", "eq", "ne", "lt", "le", "gt", "ge")
)
_VALUES = frozenset(
    f"as_{name}"
    for name in (
        *("none", "tensor", "tensors", "optional_tensor", "optional_tensors", "name", "expr"),
        *("int", "ints", "int_lists", "float", "floats", "float_lists", "bool", "bools"),
        *("sym_int", "sym_ints", "sym_float", "sym_floats", "sym_bool", "sym_bools"),
        *("string", "strings", "scalar_type", "memory_format", "layout", "device", "complex"),
    )
)
_IDENTIFIER = re.compile(r"[A-Za-z0-9_]*")
_PATH = re.compile(r"(?!__)[A-Za-z0-9_]+(\.(?!__)[A-Za-z0-9_]+)*")
_NAMES = {
    "name": _IDENTIFIER,
    "as_name": _IDENTIFIER,
    "parameter_name": _PATH,
    "buffer_name": _PATH,
    "tensor_constant_name": _PATH,
}


def check_document(document: dict[str, Any]) -> Calling:
    """Check that the program in ``document`` is safe, remove what it doesn't need, and return how
    it is called.

    Raises `BundleError`.
    """
    try:
        module = document["graph_module"]
        for node in module["graph"]["nodes"]:
            _check_operator(node)
            node["metadata"] = {}  # for people, and has paths of their machine
        for part in objects(document):
            check_values(part)
        for symbol in document["range_constraints"]:
            check_values({"name": symbol})
        calling = flatten_calls(module)
    except (
        *(KeyError, IndexError, TypeError, AttributeError, ValueError),
        *(StopIteration, RecursionError),
    ) as error:
        said = f"{type(error).__name__} at {first_line(error)}"
        raise BundleError(f"is malformed: {said}.") from error
    document["guards_code"] = []  # Python, and it would be executed
    return calling


def read_json(content: bytes, name: str) -> dict[str, Any]:
    """Return the JSON object in ``content``, that of the file ``name``. Raises `BundleError`."""
    if len(content) > _LARGEST_JSON:
        raise BundleError(
            f"holds a {name} of {len(content):,} bytes; at most {_LARGEST_JSON:,} are read."
        )
    try:
        document = json.loads(content, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"holds a {name} that is not JSON: {first_line(error)}.") from error
    if not isinstance(document, dict):
        raise BundleError(f"holds a {name} that is not a JSON object.")
    return document


def _integer(text: str) -> int:
    if len(text) > _LONGEST_INTEGER:
        raise ValueError("an integer of more than 64 bits")
    return int(text)


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every JSON object in ``value``, itself included."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def check_values(part: Mapping[str, Any]) -> None:
    """Refuse values that are not tensors, numbers, text or sizes."""
    for key, value in part.items():
        if key.startswith("as_") and key not in _VALUES:
            raise BundleError(
                f"holds a value of kind {shown(key[3:])}, which a network of tensor operators "
                "doesn't have. If you can export the model to ONNX yourself, pack that file."
            )
        if key == "expr_str":
            check_expression(value)
        form = _NAMES.get(key)
        if form and value is not None and not (isinstance(value, str) and form.fullmatch(value)):
            raise BundleError(
                f"is refused: it calls a value {shown(value)}, and torch writes names into "
                "code that it executes."
            )
        if key in ("device", "as_device") and isinstance(value, dict) and value["type"] != "cpu":
            raise BundleError(
                f"was exported on {shown(value['type'])}; export it on the CPU: model.cpu()."
            )


def _check_operator(node: Mapping[str, Any]) -> None:
    """Refuse what is not one of the known operators on tensors, or on their sizes."""
    target = node["target"]
    found = _TENSOR_OPERATOR.fullmatch(target) if isinstance(target, str) else None
    name = found[1] if found else ""
    if name not in _ALLOWED and target not in _SIZE_OPERATORS:
        if name.split(".")[1:2] and name.split(".")[1] in operators.RANDOM:
            raise BundleError(
                f"uses {shown(target)}, which is random: the same rows would be answered "
                "differently each time. Call model.eval(), and export a model without random "
                "numbers."
            )
        raise BundleError(
            f"uses {shown(target)}, which is not an operator on tensors that can be served. "
            "If you can export the model to ONNX yourself, pack that file."
        )
    for argument in node["inputs"]:
        name, value = argument["name"], argument["arg"]
        if name in ("train", "training") and value.get("as_bool"):
            raise BundleError("was exported while training; call model.eval() before exporting.")
        if name == "dropout_p" and value.get("as_float"):
            raise BundleError(
                "drops values at random (dropout_p of scaled_dot_product_attention is not 0); pass "
                "dropout_p=0.0 when the model is not training, and export it again."
            )
