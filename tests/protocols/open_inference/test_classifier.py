"""A classifier's tensors: which inputs are its rows, without a copy, and what an answer costs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from app.model.encoder import FeatureEncoder
from app.model.features import Feature
from app.model.model import Model
from app.model.signature import classifier_signature
from app.protocols.open_inference.classifier import ClassifierTensors
from app.protocols.open_inference.request import InputTensor, RequestedOutput, decode_request

CLASSES = ("no", "yes", "a name of thirty two characters.")


def tensors(*names: str, nullable: bool = False) -> ClassifierTensors:
    """Return the tensors of a model of these features, without a network."""
    encoder = FeatureEncoder([Feature(name, nullable=nullable) for name in names])
    signature = classifier_signature(encoder.width, len(CLASSES))
    model = SimpleNamespace(encoder=encoder, signature=signature, classes=CLASSES)
    return ClassifierTensors(cast(Model, model))


def inputs(body: bytes, width: int, json_bytes: int | None = 0) -> tuple[InputTensor, ...]:
    specs = classifier_signature(width, len(CLASSES)).inputs
    return decode_request(body, json_bytes, specs, 10).inputs


def columns(**values: list[float]) -> tuple[InputTensor, ...]:
    text = ",".join(
        f'{{"name":"{name}","shape":[{len(column)}],"datatype":"FP64","data":{column}}}'
        for name, column in values.items()
    )
    return inputs(f'{{"inputs":[{text}]}}'.encode(), 1, None)


def test_rows_in_binary_are_the_bytes_of_the_body() -> None:
    body = np.arange(6, dtype="<f4").tobytes()
    sent = inputs(body, 3)
    some = tensors("a", "b", "c")
    assert some.count_rows(sent) == 2
    rows = some.read(sent)
    assert rows.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert np.shares_memory(rows, np.frombuffer(body, dtype=np.uint8))


@pytest.mark.parametrize("padding", range(4))
def test_a_runtime_gets_rows_that_are_aligned(padding: int) -> None:
    """Wherever in the body they begin, behind JSON of any length."""
    data = np.arange(6, dtype="<f4").tobytes()
    text = b'{"inputs":[{"name":"features","shape":[2,3],"datatype":"FP32",'
    text += b'"parameters":{"binary_data_size":24}}]}' + b" " * padding
    rows = tensors("a", "b", "c").read(inputs(text + data, 3, len(text)))
    assert rows.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert rows.flags.aligned
    assert rows.flags.c_contiguous


def test_a_feature_may_be_called_as_the_tensor_is() -> None:
    only, first = tensors("features"), tensors("features", "b")
    assert only.read(columns(features=[1, 2])).tolist() == [[1], [2]]
    sent = columns(b=[3, 4], features=[1, 2])
    assert first.count_rows(sent) == 2
    assert first.read(sent).tolist() == [[1, 3], [2, 4]]


def test_not_a_number_is_null_where_null_is_accepted() -> None:
    body = np.array([[np.nan, 1]], dtype="<f4").tobytes()
    rows = tensors("a", "b", nullable=True).read(inputs(body, 2))
    assert np.isnan(rows[0, 0])


def test_long_names_of_classes_count_as_many_values() -> None:
    def per_row(classes: int) -> int:
        wanted: Any = [RequestedOutput("probabilities", (), classes=classes)]
        return tensors("a").values_per_row(wanted)

    assert tensors("a").values_per_row([]) == len(CLASSES)
    assert per_row(1) == len(CLASSES) + 5
    assert per_row(99) == len(CLASSES) * 6
