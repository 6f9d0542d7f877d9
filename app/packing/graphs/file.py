"""Files of ONNX graphs: read one with all its weights, and write one.

What a graph computes is not looked at here, but for random numbers, with which no bundle could be
checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from ...model.errors import BundleError, first_line
from ...model.file_kind import foreign_kind
from ...model.onnx_runtime import open_session
from .external import take_in_external_data

_RANDOM = frozenset(
    {
        *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
        *("Bernoulli", "Multinomial"),
    }
)


def load_graph(path: Path) -> onnx.ModelProto:
    """Return the graph in ``path``, with the weights in files beside it. Raises `BundleError`."""
    if not path.is_file():
        raise BundleError(f"{path} does not exist, or is not a regular file.")
    try:
        kind = foreign_kind(path)
        if kind:
            raise BundleError(f"{path} can't be read as ONNX: it {kind}.")
        model = onnx.load(str(path), load_external_data=False)
    except BundleError:
        raise
    except Exception as error:  # of protobuf, of onnx's checks, of the system
        raise BundleError(f"{path} can't be read as ONNX: {first_line(error)}.") from error
    take_in_external_data(model, path)
    _refuse_random(model, path)
    if not model.graph.node:
        raise BundleError(f"{path} can't be read as ONNX: there is no graph in it.")
    _name_locale(model)
    return model


def _name_locale(model: onnx.ModelProto) -> None:
    """Let text be made lower or upper case in a locale that every system has.

    By default ONNX Runtime asks for ``en_US.UTF-8``, which images don't have, and refuses the graph
    without it. The C library's rules on case are the same in ``C.UTF-8``.
    """
    for graph in graphs_of(model.graph):
        for node in graph.node:
            if node.op_type == "StringNormalizer" and not any(
                each.name == "locale" and not each.s.startswith(b"en_US") for each in node.attribute
            ):
                kept = [each for each in node.attribute if each.name != "locale"]
                del node.attribute[:]
                node.attribute.extend([*kept, onnx.helper.make_attribute("locale", "C.UTF-8")])


def open_graph(model: onnx.ModelProto, path: Path) -> Any:
    """Return a session of ONNX Runtime for a graph, which was read from ``path``.

    Raises `BundleError` if ONNX Runtime doesn't take it.
    """
    content = serialised(model, path)
    try:
        return open_session(content, threads=1)
    except Exception as error:  # a pybind exception with no public base
        raise BundleError(
            f"{path} can't be loaded by ONNX Runtime: {first_line(error)}.{_about_types(error)}"
        ) from error


def _about_types(error: Exception) -> str:
    """Return advice for a graph that mixes datatypes, as converters of tables write them."""
    said = str(error)
    if "bound to different types" not in said or "tensor(double)" not in said:
        return ""
    return (
        " The graph mixes float32 and float64, as exporters do with a table that does: let all its "
        "numbers be float32 (or all float64) before training, and export it again."
    )


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield ``graph`` and every graph in its nodes: the branches of an If, the body of a Loop."""
    waiting = [graph]
    while waiting:
        part = waiting.pop()
        yield part
        for node in part.node:
            for attribute in node.attribute:
                waiting += [inner for inner in (attribute.g, *attribute.graphs) if inner.node]


def remove_traces(model: onnx.ModelProto) -> None:
    """Remove what exporters add for people: stack traces, with the paths of their machine."""
    graphs = list(graphs_of(model.graph))
    nodes = [node for graph in graphs for node in graph.node]
    for part in (model, *graphs, *model.functions, *nodes):
        part.doc_string = ""
        del part.metadata_props[:]


def serialised(model: onnx.ModelProto, path: Path) -> bytes:
    """Return the bytes of a graph, weights and all. Raises `BundleError`."""
    try:
        content: bytes = model.SerializeToString()
    except Exception as error:  # protobuf's own class; it is limited to 2 GiB
        raise BundleError(f"{path} is too large for one ONNX file of 2 GiB.") from error
    return content


def _refuse_random(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a random graph: it would answer no golden sample the same way twice."""
    nodes = [node for graph in graphs_of(model.graph) for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    found = next((node.op_type for node in nodes if node.op_type in _RANDOM), None)
    if found:
        raise BundleError(
            f"{path} uses {found}, which is random: the same rows would be answered differently "
            "each time. Call model.eval(), and export a model without random numbers."
        )
