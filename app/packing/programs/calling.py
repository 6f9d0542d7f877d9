"""The calling convention of an exported program: what its inputs and outputs are called.

Torch records how a program is called as trees of containers, whose classes may exist only where it
was exported (``ModelOutput`` of transformers). No such tree reaches torch: the program is rewritten
to take tensors one after the other and to return a tuple of tensors, and names remain of the trees.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...model.errors import BundleError, shown
from ...model.signature import MAX_TENSORS

_MAX_DEPTH = 16
_LONGEST_NAME = 256
_LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}


@dataclass(frozen=True, slots=True)
class Calling:
    """The names of a program's inputs and outputs, in order; ``notes`` say what was left out."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...] = ()


def flatten_calls(module: dict[str, Any]) -> Calling:
    """Rewrite the graph module of a document to take and return nothing but tensors.

    Values that were fixed when it was exported, such as None and flags, are no longer passed to it.
    Raises `BundleError` for other inputs and outputs, and KeyError, TypeError, AttributeError,
    IndexError or ValueError for a malformed document.
    """
    signature, graph = module["signature"], module["graph"]
    call = next(each for each in module["module_call_graph"] if each["fqn"] == "")["signature"]
    notes = [*_drop_fixed_inputs(signature, graph), *_drop_missing_outputs(signature, graph)]
    _check_inputs(signature)
    inputs = tuple(
        spec["user_input"]["arg"]["as_tensor"]["name"]
        for spec in signature["input_specs"]
        if "user_input" in spec
    )
    fields = module.get("treespec_namedtuple_fields") or {}
    wanted = len(signature["output_specs"]) + sum(note.missing for note in notes)
    paths = _output_paths(call["out_spec"], fields, wanted)
    missing = {note.index for note in notes if note.missing}
    kept = _named([path for index, path in enumerate(paths) if index not in missing])
    call["in_spec"] = json.dumps([1, _tuple([_tuple([_LEAF] * len(inputs)), _NO_KEYWORDS])])
    call["out_spec"] = json.dumps([1, _tuple([_LEAF] * len(kept))])
    call |= {"forward_arg_names": list(inputs), "inputs": [], "outputs": []}
    module |= {
        "module_call_graph": [{"fqn": "", "signature": call}],
        "metadata": {},
        "treespec_namedtuple_fields": {},
    }
    return Calling(inputs, _unique(kept, inputs), tuple(note.text for note in notes))


@dataclass(frozen=True, slots=True)
class _Note:
    """A value that was left out of the calling convention, and its place."""

    text: str
    index: int = 0
    missing: bool = False


_NO_KEYWORDS = {"type": "builtins.dict", "context": "[]", "children_spec": []}


def _tuple(children: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "builtins.tuple", "context": "null", "children_spec": children}


def _drop_fixed_inputs(signature: dict[str, Any], graph: dict[str, Any]) -> Iterator[_Note]:
    """Leave out inputs that are constants: the graph has their values already."""
    specs, values = signature["input_specs"], graph["inputs"]
    if len(specs) != len(values):
        raise ValueError("the number of inputs")
    kept = []
    for spec, value in zip(specs, values, strict=True):
        fixed = spec.get("constant_input")
        if fixed is None:
            kept.append((spec, value))
            continue
        (constant,) = (None,) if "as_none" in fixed["value"] else fixed["value"].values()
        yield _Note(
            f"The input {shown(fixed['name'])} was fixed to {shown(constant)} when the model was "
            "exported, so it is left out."
        )
    signature["input_specs"] = [spec for spec, _ in kept]
    graph["inputs"] = [value for _, value in kept]


def _drop_missing_outputs(signature: dict[str, Any], graph: dict[str, Any]) -> Iterator[_Note]:
    """Leave out outputs that are None; refuse those that are numbers."""
    specs, values = signature["output_specs"], graph["outputs"]
    if len(specs) != len(values):
        raise ValueError("the number of outputs")
    if any(set(spec) != {"user_output"} for spec in specs):
        raise BundleError(
            "changes its own buffers when it runs; call model.eval() before exporting."
        )
    kept = []
    for index, (spec, value) in enumerate(zip(specs, values, strict=True)):
        (kind,) = spec["user_output"]["arg"]
        if kind == "as_none":
            text = f"Output {index} is None, so it is left out."
            yield _Note(text, index, missing=True)
            continue
        if kind != "as_tensor":
            raise BundleError(
                f"returns a number ({shown(kind[3:])}) as output {index}; let the model return "
                "tensors only, and export it again."
            )
        kept.append((spec, value))
    if not kept:
        raise BundleError("returns no tensor.")
    if len(kept) > MAX_TENSORS:
        raise BundleError(f"returns {len(kept):,} tensors; at most {MAX_TENSORS:,} are served.")
    signature["output_specs"] = [spec for spec, _ in kept]
    graph["outputs"] = [value for _, value in kept]


def _check_inputs(signature: Mapping[str, Any]) -> None:
    """Refuse inputs other than tensors and weights."""
    count = 0
    for spec in signature["input_specs"]:
        (kind,) = spec
        if kind in ("parameter", "buffer", "tensor_constant"):
            continue
        if kind != "user_input":
            raise BundleError(
                f"takes an input of kind {shown(kind)}; only tensors can be passed to a model."
            )
        (form,) = spec[kind]["arg"]
        if form != "as_tensor":
            raise BundleError(
                f"takes a number ({shown(form[3:])}) as an input; let the model take a tensor in "
                "its place (torch.tensor(value)), and export it again."
            )
        name = spec[kind]["arg"][form]["name"]
        if not name or len(name) > _LONGEST_NAME:
            raise ValueError("the name of an input")
        count += 1
    if not count:
        raise BundleError("takes no tensor, so there is nothing to ask it.")
    if count > MAX_TENSORS:
        raise BundleError(f"takes {count:,} tensors; at most {MAX_TENSORS:,} are served.")


def _output_paths(text: str, fields: Mapping[str, Any], count: int) -> list[str]:
    """Return the path to each of ``count`` outputs in the tree ``text``."""
    try:
        found = list(_paths(json.loads(text)[1], fields, "", _MAX_DEPTH))
    except RecursionError:
        raise ValueError("the depth of a tree") from None
    if len(found) != count:
        raise ValueError("the number of outputs in a tree")
    return found


def _named(paths: Sequence[str]) -> list[str]:
    """Return a name for each path; without usable keys outputs are numbered."""
    if len(paths) == 1 and paths[0][:1] in ("", "_"):
        return ["output"]
    named = [f"output{path}" if path[:1] == "_" else path for path in paths]
    return named if all(map(_is_usable, named)) else [f"output_{i}" for i in range(len(paths))]


def _paths(
    tree: Mapping[str, Any], fields: Mapping[str, Any], path: str, depth: int
) -> Iterator[str]:
    """Yield the path to each leaf: ``logits``, ``states_0``, or ``_0`` below a list."""
    if tree["type"] is None:
        yield path
        return
    if not depth:
        raise BundleError("returns tensors in collections that are nested too deeply.")
    children = tree["children_spec"]
    keys = _keys(tree, fields)
    for index, child in enumerate(children):
        part = f"_{index}" if keys is None else keys[index]
        if path and keys is not None:
            part = f"_{part}"
        yield from _paths(child, fields, (path + part)[: 2 * _LONGEST_NAME], depth - 1)


def _keys(tree: Mapping[str, Any], fields: Mapping[str, Any]) -> list[str] | None:
    """Return the keys of a dict, or the fields of a class; None for what is only in order."""
    children = len(tree["children_spec"])
    if tree["type"] == "collections.namedtuple":
        named = fields.get(tree["context"])
        keys = named.get("field_names") if isinstance(named, dict) else None
    else:
        keys = json.loads(tree["context"] or "null")
    if isinstance(keys, list) and len(keys) == 2 and all(isinstance(k, list) for k in keys):
        keys = keys[0]  # of a dataclass: the fields, and those that are None
    if not isinstance(keys, list) or len(keys) != children:
        return None
    return [str(key) for key in keys] if all(isinstance(k, str | int) for k in keys) else None


def _is_usable(name: str) -> bool:
    return 0 < len(name) <= _LONGEST_NAME and name.isprintable() and name.strip() == name


def _unique(names: Sequence[str], taken: Collection[str]) -> tuple[str, ...]:
    """Return ``names``, changed where they are called as an input or an output before them."""
    used, unique = set(taken), []
    for name in names:
        base = f"{name}_output" if name in taken else name
        new, number = base, 0
        while new in used:
            number += 1
            new = f"{base}_{number}"
        used.add(new)
        unique.append(new)
    return tuple(unique)
