"""The archive of an exported program: take a ``.pt2`` file apart, and keep what is safe.

``torch.export.load`` must not see a stranger's file: it unpickles weights, constants and example
inputs with ``weights_only=False``, gives expressions to ``sympify``, which evaluates them as
Python, takes any function below ``torch`` as an operator, writes names and guards into code that it
executes, and loads compiled libraries. Here everything in the file is checked to be what a network
of tensor operators needs, and a new archive of that alone is made: no pickle, no code, no library.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from app.model.errors import BundleError
from app.model.packing.source import first_line

_PROGRAM = "models/model.json"
_WEIGHTS = "data/weights/model_weights_config.json"
_CONSTANTS = "data/constants/model_constants_config.json"
_EXAMPLES = "data/sample_inputs/model.pt"
_SMALL = ("archive_format", "archive_version", "byteorder", ".data/version")
_RECORDS = {_WEIGHTS: re.compile(r"weight_[0-9]+"), _CONSTANTS: re.compile(r"tensor_[0-9]+")}
_OTHER_FORMATS = {
    "serialized_exported_program.json": "was written by a torch that is too old; export the model "
    "with a newer one",
    "constants.pkl": "is TorchScript; export the model with torch.export.export instead",
    "data.pkl": "was written by torch.save; export the model with torch.export.export, and write "
    "that with torch.export.save",
}

_TENSOR_OPERATOR = re.compile(r"torch\.ops\.aten\.([A-Za-z0-9_]+)\.([A-Za-z0-9_]+)")
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
_EXPRESSIONS = frozenset(
    {
        *("Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Abs"),
        *("FloorDiv", "CeilDiv", "CleanDiv", "Mod", "PythonMod", "PowByNatural"),
        *("IntTrueDiv", "ToFloat", "FloorToInt", "CeilToInt", "TruncToInt", "Identity"),
        *("Equality", "Unequality", "GreaterThan", "LessThan", "StrictGreaterThan"),
        "StrictLessThan",
    }
)
_SYMBOL = re.compile(r"[a-z][a-z0-9_]{0,30}")
_IDENTIFIER = re.compile(r"[A-Za-z0-9_]*")
_PATH = re.compile(r"(?!__)[A-Za-z0-9_]+(\.(?!__)[A-Za-z0-9_]+)*")
_NAMES = {
    "name": _IDENTIFIER,
    "as_name": _IDENTIFIER,
    "parameter_name": _PATH,
    "buffer_name": _PATH,
    "tensor_constant_name": _PATH,
}
_LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
_ONE_ARGUMENT = [
    1,
    {
        "type": "builtins.tuple",
        "context": "null",
        "children_spec": [
            {"type": "builtins.tuple", "context": "null", "children_spec": [_LEAF]},
            {"type": "builtins.dict", "context": "[]", "children_spec": []},
        ],
    },
]
_ONE_TENSOR = [1, _LEAF]


def safe_archive(path: Path) -> tuple[io.BytesIO, str]:
    """Give an archive that ``torch.export.load`` can be trusted with, and who wrote the file.

    The first is a copy of the program in ``path`` without anything that could run code; the second
    is a version of torch, for people. Raises `BundleError`, which says what else is in the file.
    """
    try:
        records = _records(path)
        document = _document(records)
        return _archive(records, document), str(document.get("torch_version"))[:40]
    except BundleError as error:
        raise BundleError(f"{path} {error}") from None


def _records(path: Path) -> dict[str, bytes]:
    """Give the archive's files without the name of its root. The whole is as large as the file."""
    if not path.is_file():
        raise BundleError("does not exist, or is not a regular file.")
    try:
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            names = [entry.filename.partition("/")[2] for entry in entries]
            for other, what in _OTHER_FORMATS.items():
                if other in names or any(entry.filename == other for entry in entries):
                    raise BundleError(f"{what}.")
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
            if packed or sum(entry.file_size for entry in entries) > len(content):
                raise BundleError("is a compressed zip; write it with torch.export.save.")
            if len(set(names)) != len(names):
                raise BundleError("has two files of one name; write it with torch.export.save.")
            return {name: archive.read(entry) for name, entry in zip(names, entries, strict=True)}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BundleError(
            f"is not an archive that torch.export.save writes: {first_line(error)}."
        ) from error
    except OSError as error:
        raise BundleError(f"can't be read: {error.strerror}.") from error


def _document(records: Mapping[str, bytes]) -> dict[str, Any]:
    """Give the program in the archive, once it is sure to be one of tensor operators alone."""
    programs = [name for name in records if name.startswith("models/")]
    if programs != [_PROGRAM]:
        raise BundleError(
            f"holds {len(programs)} programs where one, called 'model', is needed; write it with "
            "torch.export.save."
        )
    document = _json(records, _PROGRAM)
    try:
        module = document["graph_module"]
        for node in module["graph"]["nodes"]:
            _check_operator(node)
            node["metadata"] = {}  # for people, and with the paths of their machine
        for part in _objects(document):
            _check_values(part)
        _check_signature(module["signature"])
        for symbol in document["range_constraints"]:
            _check_values({"name": symbol})
        calls = [call for call in module["module_call_graph"] if call["fqn"] == ""]
        _check_call(calls[0]["signature"])
        module |= {"module_call_graph": calls[:1], "metadata": {}, "treespec_namedtuple_fields": {}}
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise BundleError(f"is malformed: {type(error).__name__} at {error}.") from error
    document["guards_code"] = []  # Python, and it would be executed
    return document


def _archive(records: Mapping[str, bytes], document: dict[str, Any]) -> io.BytesIO:
    """Write a new archive of ``document`` and the raw tensors; nothing else reaches torch."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as writer:
        for name in _SMALL:
            if name in records:
                writer.writestr(f"model/{name}", records[name][:64])
        writer.writestr(f"model/{_PROGRAM}", json.dumps(document))
        writer.writestr(f"model/{_EXAMPLES}", b"")  # a pickle, and not needed
        for config_name, form in _RECORDS.items():
            config = _json(records, config_name)
            names = _tensor_records(config, form)
            writer.writestr(f"model/{config_name}", json.dumps(config))
            directory = config_name.rpartition("/")[0]
            for name in sorted(names):
                record = records.get(f"{directory}/{name}")
                if record is None:
                    raise BundleError(f"lacks {directory}/{name}: it was cut short.")
                writer.writestr(f"model/{directory}/{name}", record)
    archive.seek(0)
    return archive


def _tensor_records(config: dict[str, Any], form: re.Pattern[str]) -> set[str]:
    """Give the names of the records that a list of tensors refers to, all of them raw numbers."""
    names = set()
    try:
        for tensor, entry in config["config"].items():
            _check_values({"parameter_name": tensor})
            if entry["use_pickle"] is not False or not form.fullmatch(entry["path_name"]):
                raise BundleError(
                    f"is refused: {tensor[:80]!r} in it is a Python object and not a plain tensor, "
                    "and loading that could run code that it hides."
                )
            for part in _objects(entry):
                _check_values(part)
            names.add(entry["path_name"])
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"is malformed: {type(error).__name__} at {error}.") from error
    return names


def _json(records: Mapping[str, bytes], name: str) -> dict[str, Any]:
    if name not in records:
        raise BundleError(
            f"lacks {name}: it was cut short, or written by another version of torch than "
            f"{torch.__version__}, or can't be read without running code."
        )
    try:
        document = json.loads(records[name])
    except (ValueError, RecursionError) as error:
        raise BundleError(f"holds a {name} that is not JSON: {first_line(error)}.") from error
    if not isinstance(document, dict):
        raise BundleError(f"holds a {name} that is not a JSON object.")
    return document


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Give every JSON object in ``value``, itself included."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _check_values(part: Mapping[str, Any]) -> None:
    """Refuse values that are more than tensors, numbers, text and sizes."""
    for key, value in part.items():
        if key.startswith("as_") and key not in _VALUES:
            raise BundleError(
                f"holds a value of kind {key[3:][:40]!r}, which is not for a network of tensor "
                "operators. If you can export the model to ONNX yourself, pack that file."
            )
        if key == "expr_str":
            _check_expression(value)
        form = _NAMES.get(key)
        if form and value is not None and not (isinstance(value, str) and form.fullmatch(value)):
            raise BundleError(
                f"is refused: it calls a value {str(value)[:80]!r}, and torch writes names into "
                "code that it executes."
            )
        if key in ("device", "as_device") and isinstance(value, dict) and value["type"] != "cpu":
            raise BundleError(
                f"was exported on {str(value['type'])[:20]!r}; export it on the CPU: model.cpu()."
            )


def _check_expression(text: Any) -> None:
    """Refuse an expression of sizes that is not plain arithmetic: it will be evaluated."""
    allowed = (ast.Expression, ast.Call, ast.Name, ast.Load, ast.keyword, ast.Constant)
    signs = (ast.UnaryOp, ast.USub)
    powers = 0
    try:
        if not isinstance(text, str) or len(text) > 2000:
            raise ValueError
        for node in ast.walk(ast.parse(text, mode="eval")):
            if isinstance(node, ast.Name):
                # No power of a power: a few letters could keep a computer busy for ever.
                powers += node.id in ("Pow", "PowByNatural")
                plain = node.id in _EXPRESSIONS and powers <= 1
            elif isinstance(node, ast.Call):
                plain = isinstance(node.func, ast.Name)
            elif isinstance(node, ast.keyword):
                plain = node.arg in ("positive", "integer", "nonnegative", "real", "precision")
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                plain = bool(_SYMBOL.fullmatch(node.value))
            elif isinstance(node, ast.Constant):
                plain = isinstance(node.value, int | float) and abs(node.value) < 2**63
            else:
                plain = isinstance(node, (*allowed, *signs))
            if not plain:
                raise ValueError
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise BundleError(
            f"is refused: it holds the expression {str(text)[:80]!r} where a size is expected, and "
            "loading that could run code."
        ) from None


def _check_operator(node: Mapping[str, Any]) -> None:
    """Refuse what is not an operator on tensors, or on their sizes."""
    target = node["target"]
    if target not in _SIZE_OPERATORS and not _is_tensor_operator(target):
        raise BundleError(
            f"uses {str(target)[:80]!r}, which is not an operator on tensors that can be served. "
            "If you can export the model to ONNX yourself, pack that file."
        )
    for argument in node["inputs"]:
        if argument["name"] in ("train", "training") and argument["arg"].get("as_bool"):
            raise BundleError("was exported while training; call model.eval() before exporting.")


def _is_tensor_operator(target: object) -> bool:
    found = _TENSOR_OPERATOR.fullmatch(target) if isinstance(target, str) else None
    if not found or any("__" in name for name in found.groups()):
        return False
    operator = getattr(getattr(torch.ops.aten, found[1], None), found[2], None)
    return isinstance(operator, torch._ops.OpOverload) and not any(
        argument.name == "filename" for argument in operator._schema.arguments
    )


def _check_signature(signature: Mapping[str, Any]) -> None:
    kinds = [kind for spec in signature["input_specs"] for kind in spec]
    strange = set(kinds) - {"parameter", "buffer", "tensor_constant", "user_input"}
    if strange:
        raise BundleError(
            f"takes an input of kind {min(strange)[:40]!r}; one matrix of features is needed."
        )
    if kinds.count("user_input") != 1:
        raise BundleError(
            f"takes {kinds.count('user_input')} inputs; one matrix of features is needed."
        )
    outputs = [kind for spec in signature["output_specs"] for kind in spec]
    if set(outputs) - {"user_output"}:
        raise BundleError(
            "changes its own buffers when it runs; call model.eval() before exporting."
        )
    if len(outputs) != 1:
        raise BundleError(f"gives {len(outputs)} outputs; one tensor (rows, classes) is needed.")


def _check_call(signature: Mapping[str, Any]) -> None:
    """Refuse a program that is not called with one positional tensor and answers with one."""
    for name in signature["forward_arg_names"] or ():
        _check_values({"name": name})
    if json.loads(signature["in_spec"]) != _ONE_ARGUMENT:
        raise BundleError(
            "is not called with one matrix; export it with one positional argument: "
            "torch.export.export(model, (example,), ...)."
        )
    if json.loads(signature["out_spec"]) != _ONE_TENSOR:
        raise BundleError(
            "does not answer with a tensor alone but with a collection; let the model return the "
            "tensor (rows, classes)."
        )
