"""The view of every prediction in Flask: it calls the same handler as the fast path."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .body import read_body, reply_answer
from .context import CONTEXT, RequestContext, current_request
from .extension import current_lantern
from .response import Response
from .routes import Handler


def answer_with(
    handler: Handler, name: str | None, *version: str | None, read: Callable[..., bytes] = read_body
) -> Response:
    """Return what ``handler`` answers to the current request, for the model ``name``.

    ``version`` is that in the path, if it may have one, and ``read`` returns the body.
    """
    lantern, request = current_lantern(), current_request()
    context: RequestContext = request.environ[CONTEXT]
    context.raise_failure()
    service = lantern.get_service(name)
    return reply_answer(
        *handler(lantern, service, context, partial(read, request, lantern.settings), *version)
    )
