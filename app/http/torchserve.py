"""Predictions by TorchServe's inference API."""

from __future__ import annotations

from ..protocols.native.media import MediaBodies
from ..protocols.native.media_types import ANYTHING, JSON, ReadBody
from ..protocols.native.schemas import bodies_of
from ..protocols.native.top import requested_top
from ..protocols.torchserve import answer_of, sample_in
from ..registry.service import ModelService
from .content import content_of, encoded
from .context import RequestContext
from .extension import Lantern
from .handlers import Answer, answer_by_handler, choose, predict_row


def predict(
    lantern: Lantern,
    service: ModelService,
    context: RequestContext,
    read_body: ReadBody,
    version: str | None = None,
) -> Answer:
    """Predict the sample in the body, with ``version`` if the path pins one.

    What a handler answers is sent as it is; other models answer as TorchServe's own handlers do.
    Raises as `app.http.handlers.predict` does.
    """
    rollout = service.rollout
    model = choose(lantern, rollout, context, version)
    if model.handler is not None:
        return answer_by_handler(lantern, model, context, read_body)
    requests = bodies_of(model, lantern.settings.limits.max_batch_size).requests
    top = requested_top(context.head.query, model)
    body = read_body(ANYTHING)
    if isinstance(requests, MediaBodies):
        content = content_of(body, context.environ.get("CONTENT_TYPE", ""))
        row = encoded(model, sample_in(content, requests.members))
    else:
        row = requests.predict.load(body)
    prediction, headers = predict_row(
        lantern, rollout, context, model, row, place=requests.predict.place
    )
    return answer_of(model, prediction, top), [("Content-Type", JSON), *headers]
