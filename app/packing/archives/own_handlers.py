"""TorchServe's own handlers that no step can stand for: why, and what to do instead."""

from __future__ import annotations

from collections.abc import Mapping

from ...model.errors import shown

IMAGE_CLASSIFIER = "image_classifier"
TEXT_CLASSIFIER = "text_classifier"
TAKEN = (IMAGE_CLASSIFIER, TEXT_CLASSIFIER)
"""The handlers of TorchServe's own that become steps."""
_HANDLER = "give the archive a handler of its own"
_WHY: Mapping[str, tuple[str, str]] = {
    "image_segmenter": (
        "It answers a class for each pixel, and steps are for one answer to an image",
        f"export the network and pack it with --task tensors, or {_HANDLER}",
    ),
    "object_detector": (
        "It answers a list of boxes of any length, and steps are for one answer to an image",
        f"export the network and pack it with --task tensors, or {_HANDLER}",
    ),
    "base_handler": (
        "It doesn't say what its network takes and answers",
        f"export the network and pack it with --task tensors, or {_HANDLER}",
    ),
}
_OTHERS = ("It needs libraries of its own", f"export its network and pack that, or {_HANDLER}")


def why_not_taken(handler: str) -> str:
    """Return why ``handler`` isn't carried over, and what to do instead, in sentences."""
    why, instead = _WHY.get(handler, _OTHERS)
    return (
        f"uses TorchServe's own handler {shown(handler)}, which isn't taken. {why}. "
        f"{instead[0].upper()}{instead[1:]}."
    )
